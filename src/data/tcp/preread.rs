//! Before a session is routed: its PROXY header, if its sender is trusted to send one, and its first bytes, if a
//! route or a pool's hash needs them. They are looked at and left in the kernel, so that the backend gets the same
//! bytes; only the header and a PostgreSQL client's request for TLS are consumed. One deadline, from accept, applies
//! to all of it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::net::{RecvFlags, SendFlags};
use rustls::server::Acceptor;
use tokio::time::{Sleep, sleep};

use super::session::Session;
use crate::border::record::{CloseReason, Stage};
use crate::border::snapshot::Listener;
use crate::config::PostgresCancel;
use crate::data::admit::{self, PrereadPermit};
use crate::data::route::{Decision, Facts};
use crate::data::stream::Stream;
use crate::data::stream::tls::Tls;
use crate::data::tls;
use crate::data::wire::Progress;
use crate::data::wire::client_hello::{self, BadHello, Hello, Protocols};
use crate::data::wire::{postgres, proxy_protocol};
use crate::sys::clock::Moment;
use crate::sys::socket::{self, Peeked};

/// Finds out who the client is and which route it takes, as far as the listener needs it.
pub async fn preread(session: &Session, client: &mut Stream) -> Result<(), CloseReason> {
    let listener = &session.listener;
    let judge = session.told(|told| told.sender_of.clone()).flatten();
    let cancels = listener.config.postgres_cancel == PostgresCancel::All;
    let is_plain = listener.routes.is_empty() && listener.config.tls.is_none() && !cancels;
    if judge.is_none() && is_plain {
        return Ok(());
    }
    let mut wait = Wait { session, client, place: None, deadline: None };
    if let Some(judge) = judge {
        wait.header(judge).await?;
    }
    // Some clients send it in clear also where they speak TLS otherwise.
    let is_cancel = wait.cancels_in_clear().await?;
    if let Some(server) = listener.config.tls.as_ref().filter(|_| !is_cancel) {
        wait.handshake(server).await?;
        wait.cancels_in_tls().await?;
    }
    let mut decision = session
        .told(|told| listener.routes.decide(facts(session, told.hello.as_ref())))
        .unwrap_or_else(|| listener.routes.decide(facts(session, None)));
    if decision == Decision::Undecided {
        let hello = wait.hello().await?;
        // A CancelRequest in clear names no server.
        decision = listener.routes.decide(facts(session, Some(&hello)));
        session.tell(|told| told.hello = Some(hello));
    }
    if let Decision::Route(index) = decision {
        session.tell(|told| told.route = Some(index));
    }
    forget_offers(session);
    session.stage.set(Stage::Route);
    Ok(())
}

/// Finds out which server name the client asks for, if the pool's hash needs it.
pub async fn server_name(session: &Session, client: &mut Stream) -> Result<(), CloseReason> {
    if session.told(|told| told.hello.is_some()) == Some(true) {
        return Ok(());
    }
    let mut wait = Wait { session, client, place: None, deadline: None };
    let hello = wait.client_hello(false).await?;
    session.tell(|told| told.hello = Some(hello));
    forget_offers(session);
    session.stage.set(Stage::Route);
    Ok(())
}

/// What the client offered is not needed any more; only the name is kept, for the log. A client may offer as much as
/// `preread_size` allows, and stay for a year.
fn forget_offers(session: &Session) {
    if session.told(|told| told.hello.is_some()) == Some(true) {
        session.tell(|told| {
            if let Some(hello) = &mut told.hello {
                hello.alpn = Protocols::default();
            }
        });
    }
}

fn facts<'a>(session: &Session, hello: Option<&'a Hello>) -> Facts<'a> {
    Facts { client: session.client().ip(), port: session.local().port(), hello }
}

/// Why TLS with the client ended.
fn broke(session: &Session, error: &io::Error) -> CloseReason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CloseReason::ClientClosed,
        io::ErrorKind::InvalidData => {
            session.tell(|told| told.cause = Some(tls::explain(error).into()));
            CloseReason::TlsFailed
        }
        _ => CloseReason::ClientReset,
    }
}

/// What is held while bytes are awaited.
struct Wait<'a> {
    session: &'a Session,
    client: &'a mut Stream,
    /// A place among the listener's sessions that wait.
    place: Option<PrereadPermit>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Wait<'_> {
    /// Reads the PROXY header, and applies those rules to the announced client that were not applied to the sender.
    async fn header(&mut self, judge: Arc<Listener>) -> Result<(), CloseReason> {
        let most = self.session.listener.config.preread_size;
        let header = self.until(|bytes| proxy_protocol::read(bytes, most)).await?;
        let header = header.map_err(|bad| {
            self.session.tell(|told| told.cause = Some(bad.as_str().into()));
            CloseReason::BadProxyHeader
        })?;
        self.take(header.length)?;
        self.session.tell(|told| told.sender_of = None);
        let Some(ends) = header.ends else { return Ok(()) };
        self.session.announce(ends);
        let own = admit::admit_announced(&judge, ends.client.ip(), Moment::now().nanoseconds())?;
        if let Some(own) = own {
            self.session.keep(own);
        }
        Ok(())
    }

    /// Whether the client's first bytes are a CancelRequest, if this is to be known; it is taken then.
    async fn cancels_in_clear(&mut self) -> Result<bool, CloseReason> {
        if self.session.listener.config.postgres_cancel == PostgresCancel::None {
            return Ok(false);
        }
        let request = self.until(|bytes| {
            Ok::<_, CloseReason>(match postgres::cancel(bytes) {
                Progress::Partial => Progress::Partial,
                Progress::Whole(length) => {
                    Progress::Whole(length.map(|length| Bytes::copy_from_slice(&bytes[..length])))
                }
            })
        });
        let request = request.await??;
        if let Some(request) = &request {
            self.take(request.len())?;
        }
        let is_cancel = request.is_some();
        self.session.tell(|told| told.cancel = request);
        Ok(is_cancel)
    }

    /// The same, after a handshake. What is not a CancelRequest is left for the relay.
    async fn cancels_in_tls(&mut self) -> Result<(), CloseReason> {
        let session = self.session;
        if session.listener.config.postgres_cancel == PostgresCancel::None || self.is_cancel() {
            return Ok(());
        }
        let request = self.limited(|client, cx| {
            loop {
                let ahead = client.tls().map(Tls::ahead).unwrap_or_default();
                if let Progress::Whole(length) = postgres::cancel(ahead) {
                    let request = length.map(|length| Bytes::copy_from_slice(&ahead[..length]));
                    return Poll::Ready(Ok(request));
                }
                match ready!(client.poll_ahead(cx, postgres::CANCEL_MOST)) {
                    Ok(0) => return Poll::Ready(Err(CloseReason::ClientClosed)),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(broke(session, &error))),
                }
            }
        });
        let request = request.await?;
        session.tell(|told| told.cancel = request);
        Ok(())
    }

    fn is_cancel(&self) -> bool {
        self.session.told(|told| told.cancel.is_some()) == Some(true)
    }

    async fn hello(&mut self) -> Result<Hello, CloseReason> {
        if self.is_cancel() {
            return Ok(Hello::default());
        }
        let is_promised = match self.session.listener.routes.name_servers() {
            true => self.postgres_asks().await?,
            false => false,
        };
        if is_promised {
            self.session.tell(|told| told.wants_postgres_tls = true);
        }
        if self.is_cancel() { Ok(Hello::default()) } else { self.client_hello(is_promised).await }
    }

    /// Answers a PostgreSQL client that asks for TLS; returns whether one did.
    async fn postgres_asks(&mut self) -> Result<bool, CloseReason> {
        // It may first ask for another encryption, be refused, and then ask for TLS; nothing else.
        for _ in 0..2 {
            match self.until(|bytes| Ok::<_, CloseReason>(postgres::read(bytes))).await?? {
                None => break,
                Some(postgres::Request::Tls) => {
                    self.take(postgres::LENGTH)?;
                    self.answer(&[postgres::YES])?;
                    return Ok(true);
                }
                Some(postgres::Request::GssEncryption) => {
                    self.take(postgres::LENGTH)?;
                    self.answer(&[postgres::NO])?;
                    if self.cancels_in_clear().await? {
                        break;
                    }
                }
            }
        }
        Ok(false)
    }

    /// Looks at the ClientHello. A client that does not speak TLS has no server name; if it asked for TLS before,
    /// this is a fault.
    async fn client_hello(&mut self, is_promised: bool) -> Result<Hello, CloseReason> {
        let most = self.session.listener.config.preread_size;
        match self.until(|bytes| client_hello::read(bytes, most)).await? {
            Ok(hello) => Ok(hello),
            Err(BadHello::NotTls) if !is_promised => Ok(Hello::default()),
            Err(bad) => {
                self.session.tell(|told| told.cause = Some(bad.as_str().into()));
                Err(CloseReason::BadClientHello)
            }
        }
    }

    /// Gives `judge` the bytes so far, each time more arrive, until it is satisfied.
    async fn until<T, E>(
        &mut self,
        judge: impl Fn(&[u8]) -> Result<Progress<T>, E>,
    ) -> Result<Result<T, E>, CloseReason> {
        let session = self.session;
        let most = session.listener.config.preread_size;
        // Everything that the client sends has arrived.
        let mut is_all = false;
        self.limited(|client, cx| {
            loop {
                if ready!(client.poll_arrival(cx)).is_err() {
                    return Poll::Ready(Err(CloseReason::ClientReset));
                }
                let scratch = &mut session.worker.scratch.borrow_mut()[..most];
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                match rustix::net::recv(&*client, &mut *scratch, flags) {
                    Ok((count, _)) if count > 0 => {
                        session.tell(|told| told.looked_at = count);
                        match judge(&scratch[..count]) {
                            Ok(Progress::Whole(value)) => return Poll::Ready(Ok(Ok(value))),
                            Err(error) => return Poll::Ready(Ok(Err(error))),
                            Ok(Progress::Partial) => {}
                        }
                    }
                    Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(_) => return Poll::Ready(Err(CloseReason::ClientReset)),
                }
                match socket::peek(&*client) {
                    Peeked::Reset => return Poll::Ready(Err(CloseReason::ClientReset)),
                    Peeked::Ended => return Poll::Ready(Err(CloseReason::ClientClosed)),
                    Peeked::Bytes { fin: true } if is_all => {
                        return Poll::Ready(Err(CloseReason::ClientClosed));
                    }
                    Peeked::Bytes { fin: true } => {
                        // The end may have arrived with bytes that were not there when they were judged.
                        is_all = true;
                        continue;
                    }
                    Peeked::Bytes { fin: false } | Peeked::Nothing => {}
                }
                client.forget_arrival();
            }
        })
        .await
    }

    /// Waits for what `work` does with the client, within the limits.
    async fn limited<T>(
        &mut self,
        mut work: impl FnMut(&mut Stream, &mut Context<'_>) -> Poll<Result<T, CloseReason>>,
    ) -> Result<T, CloseReason> {
        let session = self.session;
        let config = &session.listener.config;
        session.stage.set(Stage::Preread);
        if self.place.is_none() {
            let place = PrereadPermit::enter(&session.listener, config.limits.prereads);
            self.place = Some(place.ok_or(CloseReason::OverLimit)?);
        }
        let left = config.timeouts.preread.saturating_sub(session.started.elapsed());
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(left)));
        poll_fn(|cx| {
            if let Some(reason) = session.poll_cut(cx) {
                return Poll::Ready(Err(reason));
            }
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(CloseReason::PrereadTimeout));
            }
            work(self.client, cx)
        })
        .await
    }

    /// Terminates the client's TLS here.
    async fn handshake(&mut self, server: &tls::server::Server) -> Result<(), CloseReason> {
        if server.is_for_postgres() && self.postgres_asks().await? {
            self.session.tell(|told| told.speaks_postgres = true);
        }
        if self.is_cancel() {
            return Ok(());
        }
        self.turn_away_in_clear().await?;
        let most = self.session.listener.config.preread_size;
        let (mut acceptor, mut read) = (Acceptor::default(), 0);
        let accepted = self
            .limited(|client, cx| client.poll_hello(&mut acceptor, &mut read, most, cx).map(Ok))
            .await?;
        self.session.tell(|told| told.looked_at = read);
        let accepted = accepted.map_err(|error| broke(self.session, &error))?;
        let first = accepted.client_hello();
        let hello = Hello {
            server_name: first
                .server_name()
                .map(|name| name.trim_end_matches('.').to_ascii_lowercase()),
            alpn: first.alpn().into_iter().flatten().collect(),
        };
        // The name is worth logging also if the handshake fails.
        self.session.tell(|told| told.hello = Some(hello));
        match accepted.into_connection(Arc::clone(&server.config)) {
            Ok(connection) => self.client.encrypt(connection),
            Err((error, mut alert)) => {
                let mut text = Vec::new();
                // Writing to memory does not fail.
                let _ = alert.write(&mut text);
                let _ = self.answer(&text);
                return Err(broke(
                    self.session,
                    &io::Error::new(io::ErrorKind::InvalidData, error),
                ));
            }
        }
        let outcome = self.limited(|client, cx| client.poll_handshake(cx).map(Ok)).await?;
        outcome.map_err(|error| broke(self.session, &error))
    }

    /// A PostgreSQL client that did not get TLS would not understand an alert.
    async fn turn_away_in_clear(&mut self) -> Result<(), CloseReason> {
        let in_clear = self.until(|bytes| {
            let is_asking = !matches!(postgres::read(bytes), Progress::Whole(None));
            Ok::<_, CloseReason>(match bytes {
                // Every TLS record begins like this.
                [22, ..] => Progress::Whole(false),
                [0, ..] if bytes.len() < postgres::LENGTH => Progress::Partial,
                _ => Progress::Whole(postgres::is_startup(bytes) || is_asking),
            })
        });
        if in_clear.await?? {
            let what = "this address needs TLS: connect with sslmode=require or better";
            let _ = self.answer(&postgres::error("28000", what));
            self.session.tell(|told| told.cause = Some("it does not speak TLS".into()));
            return Err(CloseReason::TlsFailed);
        }
        Ok(())
    }

    /// Consumes bytes that were looked at.
    fn take(&self, count: usize) -> Result<(), CloseReason> {
        let scratch = &mut self.session.worker.scratch.borrow_mut()[..count];
        match rustix::net::recv(&*self.client, scratch, RecvFlags::DONTWAIT) {
            Ok((taken, _)) if taken == count => Ok(()),
            _ => Err(CloseReason::ClientReset),
        }
    }

    /// Our first bytes on this connection always fit.
    fn answer(&self, bytes: &[u8]) -> Result<(), CloseReason> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&*self.client, bytes, flags) {
            Ok(count) if count == bytes.len() => Ok(()),
            _ => Err(CloseReason::ClientReset),
        }
    }
}
