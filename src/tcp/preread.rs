//! Before a session is routed: its PROXY header, where its sender is trusted to send one, and its first bytes, where a
//! route asks for them. They are looked at and left in the kernel, so that the backend gets the very same; only the
//! header and a PostgreSQL client's wish to be encrypted are taken. One deadline, from accept, holds for all of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use tokio::time::{Sleep, sleep};

use super::session::Session;
use super::stream::Stream;
use crate::addr::{ClientAddr, LocalAddr};
use crate::admit::{self, PrereadPermit};
use crate::route::{Decision, Facts};
use crate::sys::clock::Moment;
use crate::sys::socket::{self, Peeked};
use crate::telemetry::record::{CloseReason, Stage};
use crate::wire::Progress;
use crate::wire::client_hello::{self, BadHello, Hello};
use crate::wire::{postgres, proxy_protocol};

/// What a session's first bytes told, and what was made of it.
#[derive(Default)]
pub struct Told {
    /// Who announced the client in a PROXY header.
    pub sender: Option<ClientAddr>,
    /// What the announced client dialled.
    pub local: Option<LocalAddr>,
    pub hello: Hello,
    /// The listener's route it takes; `None`: its own pool.
    pub route: Option<usize>,
    /// A PostgreSQL client was told to go on in TLS; so must its backend be.
    pub wants_postgres_tls: bool,
    /// What was wrong with it.
    pub cause: Option<&'static str>,
}

/// Finds out who the client is and which route it takes, as far as the listener wants to know.
pub async fn preread(session: &Session, client: &Stream) -> Result<(), CloseReason> {
    let listener = &session.listener;
    let is_sender = listener.trusts(session.client().ip());
    if !is_sender && listener.routes.is_empty() {
        return Ok(());
    }
    let mut wait = Wait { session, client, place: None, deadline: None };
    if is_sender {
        wait.header().await?;
    }
    let mut decision = listener.routes.decide(facts(session, None));
    if decision == Decision::Undecided {
        let hello = wait.hello().await?;
        decision = listener.routes.decide(facts(session, Some(&hello)));
        session.tell(|told| told.hello = hello);
    }
    if let Decision::Route(index) = decision {
        session.tell(|told| told.route = Some(index));
    }
    session.stage.set(Stage::Route);
    Ok(())
}

fn facts<'a>(session: &Session, hello: Option<&'a Hello>) -> Facts<'a> {
    Facts { client: session.client().ip(), port: session.local().port(), hello }
}

/// What is held while bytes are waited for.
struct Wait<'a> {
    session: &'a Session,
    client: &'a Stream,
    /// Among all of the listener's that wait.
    place: Option<PrereadPermit>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Wait<'_> {
    /// Takes the PROXY header, and holds whom it announces against what the sender was not held against.
    async fn header(&mut self) -> Result<(), CloseReason> {
        let most = self.session.listener.config.preread_size;
        let header = self.until(|bytes| proxy_protocol::read(bytes, most)).await?;
        let header = header.map_err(|bad| {
            self.session.tell(|told| told.cause = Some(bad.as_str()));
            CloseReason::BadProxyHeader
        })?;
        self.take(header.length)?;
        let Some(ends) = header.ends else { return Ok(()) };
        self.session.announce(ends);
        let (listener, ip) = (&self.session.listener, ends.client.ip());
        let own = admit::admit_announced(listener, ip, Moment::now().nanoseconds())?;
        if let Some(own) = own {
            self.session.keep(own);
        }
        Ok(())
    }

    async fn hello(&mut self) -> Result<Hello, CloseReason> {
        let is_asked = self.session.listener.routes.name_servers();
        // A client may first ask for another encryption, be told no, and then for TLS; and that is all.
        for _ in 0..2 {
            let asked = match is_asked {
                true => self.until(|bytes| Ok::<_, CloseReason>(postgres::read(bytes))).await??,
                false => None,
            };
            match asked {
                None => return self.client_hello(false).await,
                Some(postgres::Request::Tls) => {
                    self.take(postgres::LENGTH)?;
                    self.answer(postgres::YES)?;
                    self.session.tell(|told| told.wants_postgres_tls = true);
                    return self.client_hello(true).await;
                }
                Some(postgres::Request::GssEncryption) => {
                    self.take(postgres::LENGTH)?;
                    self.answer(postgres::NO)?;
                }
            }
        }
        self.client_hello(false).await
    }

    /// Looks at the ClientHello. Who does not speak TLS names no server, unless it said that it would.
    async fn client_hello(&mut self, is_promised: bool) -> Result<Hello, CloseReason> {
        let most = self.session.listener.config.preread_size;
        match self.until(|bytes| client_hello::read(bytes, most)).await? {
            Ok(hello) => Ok(hello),
            Err(BadHello::NotTls) if !is_promised => Ok(Hello::default()),
            Err(bad) => {
                self.session.tell(|told| told.cause = Some(bad.as_str()));
                Err(CloseReason::BadClientHello)
            }
        }
    }

    /// Shows `judge` what is there, each time more came, until it is satisfied.
    async fn until<T, E>(
        &mut self,
        judge: impl Fn(&[u8]) -> Result<Progress<T>, E>,
    ) -> Result<Result<T, E>, CloseReason> {
        let (session, client) = (self.session, self.client);
        let config = &session.listener.config;
        session.stage.set(Stage::Preread);
        if self.place.is_none() {
            let place = PrereadPermit::enter(&session.listener, config.limits.prereads);
            self.place = Some(place.ok_or(CloseReason::OverLimit)?);
        }
        let left = config.timeouts.preread.saturating_sub(session.started.elapsed());
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(left)));
        // All that the client sends is there to be judged.
        let mut is_all = false;
        poll_fn(|cx| {
            if let Some(reason) = session.poll_cut(cx) {
                return Poll::Ready(Err(reason));
            }
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(CloseReason::PrereadTimeout));
            }
            loop {
                if ready!(client.poll_arrival(cx)).is_err() {
                    return Poll::Ready(Err(CloseReason::ClientReset));
                }
                let scratch = &mut session.worker.scratch.borrow_mut()[..config.preread_size];
                let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
                match rustix::net::recv(client, &mut *scratch, flags) {
                    Ok((count, _)) if count > 0 => match judge(&scratch[..count]) {
                        Ok(Progress::Whole(value)) => return Poll::Ready(Ok(Ok(value))),
                        Err(error) => return Poll::Ready(Ok(Err(error))),
                        Ok(Progress::Partial) => {}
                    },
                    Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(_) => return Poll::Ready(Err(CloseReason::ClientReset)),
                }
                match socket::peek(client) {
                    Peeked::Reset => return Poll::Ready(Err(CloseReason::ClientReset)),
                    Peeked::Ended => return Poll::Ready(Err(CloseReason::ClientClosed)),
                    Peeked::Bytes { fin: true } if is_all => {
                        return Poll::Ready(Err(CloseReason::ClientClosed));
                    }
                    Peeked::Bytes { fin: true } => {
                        // The end may have come with bytes that were not there when they were judged.
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

    /// Takes bytes that were looked at.
    fn take(&self, count: usize) -> Result<(), CloseReason> {
        let scratch = &mut self.session.worker.scratch.borrow_mut()[..count];
        match rustix::net::recv(self.client, scratch, RecvFlags::DONTWAIT) {
            Ok((taken, _)) if taken == count => Ok(()),
            _ => Err(CloseReason::ClientReset),
        }
    }

    /// The first byte of ours on this connection always has room.
    fn answer(&self, byte: u8) -> Result<(), CloseReason> {
        match rustix::net::send(self.client, &[byte], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(1) => Ok(()),
            _ => Err(CloseReason::ClientReset),
        }
    }
}
