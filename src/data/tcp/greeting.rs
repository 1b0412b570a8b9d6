//! What a backend is sent before the client's first byte, on each attempt again: the client's address (PROXY
//! protocol), then TLS if the pool has it, and the request for TLS of a PostgreSQL client, which the backend has to
//! accept.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use socket2::SockAddr;

use super::failure::Failure;
use super::session::Session;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::config::ProxyVersion;
use crate::data::pool::Pool;
use crate::data::pool::backend::Backend;
use crate::data::stream::Stream;
use crate::data::stream::tls::Tls;
use crate::data::tls;
use crate::data::wire::postgres;
use crate::data::wire::proxy_protocol::{Ends, v1, v2};
use crate::sys::{connection, socket};

/// Sent in one piece as soon as the connection is made, before anything else.
pub struct Greeting {
    bytes: Bytes,
    asks_postgres: bool,
    /// It learns who the client is, or that the client asks for TLS, and may refuse because of that: this is not the
    /// backend's fault.
    is_of_client: bool,
    /// The kernel may choose the same port as ours that it connects to.
    may_reach_itself: bool,
    /// Boxed: it is large, and most sessions have none.
    tls: Option<Box<rustls::ClientConnection>>,
    step: Step,
    /// What is wrong with the backend's TLS.
    pub cause: Option<Box<str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Send,
    Answer,
    Handshake,
}

impl Greeting {
    pub fn new(
        session: &Session,
        client: &Stream,
        pool: &Pool,
        backend: &Backend,
        address: &SockAddr,
    ) -> Result<Greeting, Failure> {
        let mut bytes = match pool.config.send_proxy_protocol {
            None => Vec::new(),
            Some(version) => header(session, client, pool, version),
        };
        let asks_postgres = match &pool.config.tls {
            Some(tls) => tls.is_for_postgres(),
            None => session.told(|told| told.wants_postgres_tls) == Some(true),
        };
        if asks_postgres {
            bytes.extend(postgres::TLS_REQUEST);
        }
        let tls = match &pool.config.tls {
            None => None,
            Some(tls) => {
                let connection = tls.connection(backend.address.ip());
                Some(Box::new(connection.map_err(|_| Failure::Tls)?))
            }
        };
        let port = address.as_socket().map(|address| address.port());
        Ok(Greeting {
            is_of_client: pool.config.send_proxy_protocol.is_some()
                || (asks_postgres && pool.config.tls.is_none()),
            bytes: bytes.into(),
            asks_postgres,
            may_reach_itself: port.is_some_and(|it| session.worker.source_ports.may_choose(it)),
            tls,
            step: Step::Connect,
            cause: None,
        })
    }

    /// Whether the backend hears from maitred before it hears from the client.
    pub fn is_first(&self) -> bool {
        !self.bytes.is_empty() || self.tls.is_some()
    }

    /// Ready when the connection is made, the greeting is with the kernel and its answer, if any, has arrived.
    pub fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            self.step = match self.step {
                Step::Connect => {
                    ready!(stream.poll_connected(cx)).map_err(|error| Failure::of(&error))?;
                    if self.may_reach_itself && connection::is_with_itself(&*stream) {
                        // Without TIME_WAIT: the process that is to serve there must find the port free.
                        stream.reset_on_close();
                        return Poll::Ready(Err(Failure::Refused));
                    }
                    Step::Send
                }
                Step::Send => {
                    ready!(self.poll_send(stream, cx)).map_err(|error| self.failure(&error))?;
                    if self.asks_postgres { Step::Answer } else { Step::Handshake }
                }
                Step::Answer => {
                    // Not a byte more than the answer: what follows is for the client.
                    let mut answer = [0];
                    let count = ready!(stream.poll_read(cx, &mut answer));
                    let count = count.map_err(|error| self.failure(&error))?;
                    if count == 0 || answer[0] != postgres::YES {
                        self.cause = Some("backend: it does not accept TLS".into());
                        let is_ours = self.tls.is_some();
                        return Poll::Ready(Err(match is_ours {
                            true => Failure::Tls,
                            false => Failure::Declined,
                        }));
                    }
                    Step::Handshake
                }
                Step::Handshake => {
                    if let Some(connection) = self.tls.take() {
                        stream.encrypt(*connection);
                    }
                    let outcome = ready!(stream.poll_handshake(cx));
                    return Poll::Ready(outcome.map_err(|error| self.broke(&error)));
                }
            }
        }
    }

    fn poll_send(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let sent = ready!(stream.poll_write(cx, &self.bytes))?;
            self.bytes.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let is_declined = self.asks_postgres && self.tls.is_none();
        if is_declined { Failure::Declined } else { Failure::of(error) }
    }

    /// Whatever ends a connection during a handshake, the handshake failed.
    fn broke(&mut self, error: &io::Error) -> Failure {
        self.cause = Some(format!("backend: {}", tls::explain(error)).into());
        // A TLS fault is the backend's; a close without an alert may be because of the client.
        let says_why = error.kind() == io::ErrorKind::InvalidData;
        if self.is_of_client && !says_why { Failure::Declined } else { Failure::Tls }
    }
}

fn header(session: &Session, client: &Stream, pool: &Pool, version: ProxyVersion) -> Vec<u8> {
    // The listening socket may be a wildcard; the backend is told the address that the client dialled.
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
        alpn: client.tls().and_then(Tls::alpn).filter(|_| tlvs.alpn),
        checksum: tlvs.crc32c,
    };
    v2::write(ends, extras)
}
