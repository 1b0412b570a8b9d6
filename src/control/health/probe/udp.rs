//! The `udp` probe: sends one datagram and expects another; also the socket that it shares with `dns`. The socket is
//! connected, so only the backend can answer, and the kernel reports ICMP errors.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UdpSocket;

use super::fault::Fault;
use super::heard::Heard;
use super::pattern::{Pattern, REPLY};
use super::tcp;
use crate::border::addr::ZonedIp;
use crate::config::Expect;
use crate::data::pool::fitness::ProbeResult;
use crate::sys::datagram;

/// How long no error must arrive for the probe to pass, if no answer is expected. ICMP comes back from a host in use
/// within one round trip, which is at most about this on this planet.
const QUIET: Duration = Duration::from_millis(250);

pub(super) struct Udp {
    send: Vec<u8>,
    expect: Option<Pattern>,
}

impl Udp {
    pub(super) fn new(send: Option<&[u8]>, expect: Option<&Expect>) -> Udp {
        Udp { send: send.unwrap_or_default().to_vec(), expect: expect.map(Pattern::new) }
    }

    /// Whether silence counts as a pass.
    pub(super) fn passes_in_silence(&self) -> bool {
        self.expect.is_none()
    }

    /// The text that must not be shown where a reply repeats it.
    pub(super) fn sent(&self) -> &[u8] {
        &self.send
    }

    /// `heard` is set once anything came back. The probe waits for more until something matches.
    pub(super) async fn run(
        &self,
        socket: UdpSocket,
        header: &[u8],
        heard: &Heard,
    ) -> Result<(), Fault> {
        send(&socket, header, &self.send).await?;
        let Some(pattern) = &self.expect else {
            let silence = tokio::time::timeout(QUIET, socket.recv(&mut [0])).await;
            return match silence {
                Ok(Err(error)) => Err(Fault::connecting(&error)),
                // Whatever it was, a process answers there.
                Ok(Ok(_)) | Err(_) => Ok(()),
            };
        };
        let mut reply = vec![0; REPLY];
        loop {
            let length = receive(&socket, &mut reply, heard).await?;
            if pattern.is_in(&reply[..length], 0) {
                return Ok(());
            }
        }
    }
}

/// `header` is the PROXY header, in one datagram with the payload, as sessions have it.
pub(super) async fn send(socket: &UdpSocket, header: &[u8], datagram: &[u8]) -> Result<(), Fault> {
    let sent = socket.send(&[header, datagram].concat()).await;
    sent.map(|_| ()).map_err(|error| Fault::connecting(&error))
}

/// The next datagram; of a longer one, its beginning.
pub(super) async fn receive(
    socket: &UdpSocket,
    reply: &mut [u8],
    heard: &Heard,
) -> Result<usize, Fault> {
    let length = socket.recv(reply).await.map_err(|error| Fault::connecting(&error))?;
    heard.note_only(&reply[..length]);
    Ok(length)
}

/// A socket on which only the backend can answer.
pub(super) fn open(address: &SockAddr, source: &[ZonedIp]) -> Result<UdpSocket, Fault> {
    let Some(backend) = address.as_socket() else {
        // `check` refuses such a configuration.
        let detail = Some("a unix socket cannot be probed by datagrams".into());
        return Err(Fault { detail, ..Fault::of(ProbeResult::LocalError) });
    };
    let socket = connect(backend, source).map_err(|error| Fault::connecting(&error))?;
    // No process listens there, and the kernel happened to choose the same port as ours: the socket connected to
    // itself.
    if socket.local_addr().ok() == Some(backend) {
        return Err(Fault::of(ProbeResult::Refused));
    }
    Ok(socket)
}

fn connect(backend: SocketAddr, source: &[ZonedIp]) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(backend);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None)?;
    datagram::hear_of_icmp(&socket, domain)?;
    tcp::bind_source(&socket, backend, source)?;
    socket.connect(&backend.into())?;
    UdpSocket::from_std(socket.into())
}
