//! Connects, in TLS where the pool's sessions do. A `tcp` probe does only this, and every other TCP probe begins with
//! it. The kernel chooses the source port. Closing sends a reset, except after an orderly close (`parting`).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockAddr, SockRef, Socket};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::fault::Fault;
use crate::border::addr::ZonedIp;
use crate::config::ProxyVersion;
use crate::data::pool::fitness::ProbeResult;
use crate::data::stream::Stream;
use crate::data::tls::client::Client;
use crate::data::wire::postgres;
use crate::data::wire::proxy_protocol::{v1, v2};
use crate::sys::socket::{self, Outgoing};

const PLAIN: Outgoing =
    Outgoing { keepalive: None, buffer: None, user_timeout: None, sends_first: false };

/// How often a full accept queue is retried.
const QUEUE: Duration = Duration::from_millis(10);

/// A connection to `address`. If sessions announce their client in a PROXY header, the probe announces that the
/// connection is maitred's own.
pub(super) async fn connect(
    address: &SockAddr,
    source: &[ZonedIp],
    proxy: Option<ProxyVersion>,
    tls: Option<Tls<'_>>,
) -> Result<Stream, Fault> {
    let mut stream = loop {
        match begin(address, source) {
            // The accept queue of a unix socket is full: its owner is alive, but busy. The probe may use its whole
            // time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(QUEUE).await,
            begun => break begun.map_err(|error| Fault::connecting(&error))?,
        }
    };
    let connected = poll_fn(|cx| stream.poll_connected(cx)).await;
    connected.map_err(|error| Fault::connecting(&error))?;
    // No process listens there, and the kernel happened to choose the same port as ours: the socket connected to
    // itself.
    let own = SockRef::from(&stream).local_addr();
    if address.as_socket().is_some() && own.is_ok_and(|own| own == *address) {
        return Err(Fault::of(ProbeResult::Refused));
    }
    let header = match proxy {
        None => Vec::new(),
        Some(ProxyVersion::V1) => v1::write(None),
        Some(ProxyVersion::V2) => v2::write_local(),
    };
    stream.write_all(&header).await.map_err(|error| Fault::talking(&error))?;
    if let Some(Tls { client, asks }) = tls {
        if asks {
            let talking = |error: io::Error| Fault::talking(&error);
            stream.write_all(&postgres::TLS_REQUEST).await.map_err(talking)?;
            if stream.read_u8().await.map_err(talking)? != postgres::YES {
                return Err(Fault::tls_failed("it does not accept TLS"));
            }
        }
        encrypt(&mut stream, address, client).await?;
    }
    Ok(stream)
}

/// How a connection becomes encrypted.
#[derive(Clone, Copy)]
pub(super) struct Tls<'a> {
    pub client: &'a Client,
    /// First by PostgreSQL's SSLRequest.
    pub asks: bool,
}

pub(super) async fn encrypt(
    stream: &mut Stream,
    address: &SockAddr,
    client: &Client,
) -> Result<(), Fault> {
    let ip = address.as_socket().map(|address| address.ip());
    stream.encrypt(client.connection(ip).map_err(|error| Fault::tls_failed(error.to_string()))?);
    let outcome = poll_fn(|cx| stream.poll_handshake(cx)).await;
    outcome.map_err(|error| Fault::tls_failed(crate::data::tls::explain(&error)))
}

fn begin(address: &SockAddr, source: &[ZonedIp]) -> io::Result<Stream> {
    let socket = socket::outgoing(address, &PLAIN)?;
    socket::reset_on_close(&socket);
    if let Some(address) = address.as_socket() {
        bind_source(&socket, address, source)?;
    }
    match socket.connect(address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Stream::new(socket.into())
}

/// Any of the addresses of the right family; without one the kernel chooses.
pub(super) fn bind_source(
    socket: &Socket,
    address: SocketAddr,
    source: &[ZonedIp],
) -> io::Result<()> {
    let fitting: Vec<&ZonedIp> =
        source.iter().filter(|source| source.is_ipv4() == address.is_ipv4()).collect();
    let Some(source) = fastrand::choice(fitting) else { return Ok(()) };
    socket::set_bind_address_no_port(socket)?;
    socket.bind(&source.at(0).into()).map_err(|error| match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            let what = format!("`source` {source} is not an address of this machine");
            io::Error::new(error.kind(), what)
        }
        _ => error,
    })
}
