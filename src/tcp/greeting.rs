//! What a backend is told before the client's first byte reaches it, anew on each attempt: who the client is (PROXY
//! protocol), and that a PostgreSQL client goes on in TLS, which it has to agree to.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use super::connect::Failure;
use super::session::Session;
use super::stream::Stream;
use crate::addr::{ClientAddr, LocalAddr};
use crate::config::ProxyVersion;
use crate::pool::Pool;
use crate::sys::socket;
use crate::wire::postgres;
use crate::wire::proxy_protocol::{Ends, v1, v2};

/// Sent in one piece as soon as the connection is made, with nothing before it.
pub struct Greeting {
    pub bytes: Bytes,
    is_connected: bool,
    awaits_yes: bool,
}

impl Greeting {
    pub fn new(session: &Session, client: &Stream, pool: &Pool) -> Greeting {
        let mut bytes = match pool.config.send_proxy_protocol {
            None => Vec::new(),
            Some(version) => header(session, client, pool, version),
        };
        let awaits_yes = session.told(|told| told.wants_postgres_tls) == Some(true);
        if awaits_yes {
            bytes.extend(postgres::TLS_REQUEST);
        }
        Greeting { bytes: bytes.into(), is_connected: false, awaits_yes }
    }

    /// Ready when the connection is made, the greeting is with the kernel and any answer to it has come.
    pub fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if !self.is_connected {
            ready!(stream.poll_connected(cx)).map_err(|error| Failure::of(&error))?;
            self.is_connected = true;
        }
        while !self.bytes.is_empty() {
            let sent = ready!(stream.poll_write(cx, &self.bytes));
            self.bytes.advance(sent.map_err(|error| Failure::of(&error))?);
        }
        if self.awaits_yes {
            // Not a byte more than the answer: what follows is the client's.
            let mut answer = [0];
            let count = ready!(stream.poll_read(cx, &mut answer));
            if count.map_err(|error| Failure::of(&error))? == 0 || answer[0] != postgres::YES {
                return Poll::Ready(Err(Failure::Tls));
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn header(session: &Session, client: &Stream, pool: &Pool, version: ProxyVersion) -> Vec<u8> {
    // The listening socket may be a wildcard; the backend is told what the client really dialled.
    let local =
        session.told(|told| told.local).flatten().unwrap_or_else(|| socket::local_addr(client));
    let ends = match (session.client(), local) {
        (ClientAddr::Inet(client), LocalAddr::Inet(local)) => Some(Ends { client, local }),
        _ => None,
    };
    if version == ProxyVersion::V1 {
        return v1::write(ends);
    }
    let tlvs = pool.config.send_proxy_tlvs;
    let name = session.told(|told| told.server_name().map(str::to_owned)).flatten();
    let extras = v2::Extras {
        authority: name.as_deref().filter(|_| tlvs.authority),
        // Known where TLS ends here.
        alpn: None,
        checksum: tlvs.crc32c,
    };
    v2::write(ends, extras)
}
