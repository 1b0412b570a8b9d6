//! Connecting: attempts on backends that were not tried before, each with its own timeout, then on the same ones
//! again after a pause, while the client is watched (`watch`). If no backend is left to try, the client may be held
//! (`hold`). Its bytes stay in the kernel, so the backend that answers gets them once.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use socket2::SockAddr;
use tokio::time::{Sleep, sleep};

use super::failure::Failure;
use super::greeting::Greeting;
use super::hold;
use super::options::outgoing;
use super::search::Search;
use super::session::Session;
use super::source_ports::{From, Lease};
use super::watch::{Waiting, Watch};
use crate::border::record::{CloseReason, Stage};
use crate::config::{self, RetryUntil, WhenNoneUp};
use crate::data::pool::backend::{Backend, CONNECT_BOUNDS};
use crate::data::pool::{BackendPermit, PickError, Picked, Pool, Tried};
use crate::data::stream::Stream;
use crate::sys::clock::Moment;
use crate::sys::socket;

/// A connection to a backend, made or in the making, and its source port if maitred chose it.
pub struct Opened {
    pub stream: Stream,
    pub lease: Option<Lease>,
}

/// A connected backend, and the client in the form that the relay needs.
pub struct Connected<C = Watch> {
    pub opened: Opened,
    pub permit: BackendPermit,
    pub client: C,
}

/// How long until the same session tries a failed backend again, if no other is left.
const AGAIN: Duration = Duration::from_millis(250);

/// Picks and connects until a backend answers, no backend is left to try or wait for, or the client has left.
pub async fn connect(
    session: &Rc<Session>,
    client: &mut Stream,
    pool: Arc<Pool>,
) -> Result<Connected, CloseReason> {
    let mut search = Search::new(session, client, pool);
    let mut left = search.attempts();
    loop {
        let picked = match search.look(left) {
            Ok(picked) => picked,
            Err(missing) => match Box::pin(search.wait(missing, left)).await? {
                Some(picked) => picked,
                None => continue,
            },
        };
        left = left.saturating_sub(1);
        match search.attempt(picked).await? {
            Ok((opened, permit)) => {
                session.put_on_trial(&search.pool, search.tried, left);
                return Ok(Connected { opened, permit, client: search.watch });
            }
            Err(Failure::NoDescriptors) => return Err(CloseReason::NoDescriptors),
            Err(_) => {}
        }
    }
}

impl Search<'_> {
    /// Waits for a backend that is missing, if waiting is allowed; `None`: those that failed may be tried again.
    async fn wait(
        &mut self,
        (error, hold): (PickError, Option<config::Hold>),
        left: u32,
    ) -> Result<Option<Picked>, CloseReason> {
        match hold {
            Some(hold) => hold::wait(self, error, hold).await.map(Some),
            None if left > 0 && self.may_return(error) => self.pause().await.map(|()| None),
            None => Err(self.gave_up(error)),
        }
    }

    async fn pause(&mut self) -> Result<(), CloseReason> {
        let mut again = pin!(sleep(AGAIN));
        poll_fn(|cx| match self.poll_cut(cx) {
            // The session is not on that backend any more.
            Some(over) => Poll::Ready(over),
            None => self.poll_over(again.as_mut(), cx),
        })
        .await?;
        self.session.lift_cut();
        self.tried = Tried::default();
        Ok(())
    }

    /// One attempt. The outer error ends the session (the client left, or it was cut), the inner one only this
    /// attempt.
    async fn attempt(
        &mut self,
        picked: Picked,
    ) -> Result<Result<(Opened, BackendPermit), Failure>, CloseReason> {
        let session = self.session;
        session.stage.set(Stage::Connect);
        session.with_backend(|before| {
            before.live.counters.of(session.worker.id).retries.add(1);
        });
        self.tried.push(picked.index);
        session.set_backend(Arc::clone(picked.backend()));
        let begun = Moment::now();
        let outcome = self.open(picked.backend()).await?;
        if let Some(hold) = &mut self.hold {
            hold.place.arrived(Instant::now());
        }
        session.lift_cut();
        match outcome {
            Ok(opened) => {
                succeeded(session, &self.pool, picked.backend(), begun);
                Ok(Ok((opened, picked.permit)))
            }
            Err(why) => {
                failed(session, &self.pool, picked.backend(), why);
                self.failure = Some(why);
                Ok(Err(why))
            }
        }
    }

    async fn open(&mut self, backend: &Backend) -> Result<Result<Opened, Failure>, CloseReason> {
        let (mut greeting, opened) = match self.begin(backend) {
            Ok(begun) => begun,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut deadline = pin!(sleep(self.pool.config.connect.timeout));
        let mut opened = match opened {
            Some(opened) => opened,
            None => match Box::pin(self.queue(backend, deadline.as_mut())).await? {
                Ok(opened) => opened,
                Err(failure) => return Ok(Err(failure)),
            },
        };
        let outcome = poll_fn(|cx| {
            if let Some(over) = self.poll_cut(cx) {
                return Poll::Ready(over.map(Err));
            }
            if let Poll::Ready(outcome) = greeting.poll(&mut opened.stream, cx) {
                return Poll::Ready(Ok(outcome));
            }
            self.poll_over(deadline.as_mut(), cx).map(|over| over.map(Err))
        })
        .await?;
        if let Some(cause) = greeting.cause.take() {
            self.session.tell(|told| told.cause = Some(String::from(cause).into()));
        }
        Ok(outcome.map(|()| {
            if let Some(lease) = &mut opened.lease {
                lease.connected(&opened.stream);
            }
            opened
        }))
    }

    /// Begins to connect; returns nothing yet if the accept queue of a unix socket is full.
    fn begin(&mut self, backend: &Backend) -> Result<(Greeting, Option<Opened>), Failure> {
        let begun = self.begin_now(backend);
        if let Some(hold) = &mut self.hold {
            // Not before: the backend is to see held clients in their order.
            hold.place.sets_out(Instant::now());
        }
        begun
    }

    fn begin_now(&self, backend: &Backend) -> Result<(Greeting, Option<Opened>), Failure> {
        let (session, client, pool) = (self.session, &*self.client, &self.pool);
        let address = self.address(backend)?;
        let greeting = Greeting::new(session, client, pool, backend, &address)?;
        // A held session is to reach the backend in its turn, not when it says something.
        let sends_first = self.hold.is_none()
            && (greeting.is_first() || self.has_asked || socket::has_bytes(client));
        match open(session, pool, &address, sends_first) {
            Ok(opened) => Ok((greeting, Some(opened))),
            Err(error) if is_queue_full(&error) => Ok((greeting, None)),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    fn address(&self, backend: &Backend) -> Result<SockAddr, Failure> {
        match socket::backend_sockaddr(&backend.address, self.session.local()) {
            Ok(Some(address)) => Ok(address),
            Ok(None) | Err(_) => Err(Failure::NoPort),
        }
    }

    /// The accept queue of the unix socket is full: its owner is alive and busy. A blocking connect() would wait.
    async fn queue(
        &mut self,
        backend: &Backend,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<Result<Opened, Failure>, CloseReason> {
        let address = match self.address(backend) {
            Ok(address) => address,
            Err(failure) => return Ok(Err(failure)),
        };
        loop {
            let mut again = pin!(sleep(QUEUE));
            let over = poll_fn(|cx| {
                if let Some(over) = self.poll_cut(cx) {
                    return Poll::Ready(Some(over));
                }
                match self.poll_over(deadline.as_mut(), cx) {
                    Poll::Ready(over) => Poll::Ready(Some(over)),
                    Poll::Pending => again.as_mut().poll(cx).map(|()| None),
                }
            });
            match over.await {
                Some(Ok(Failure::Timeout)) => return Ok(Err(Failure::QueueFull)),
                Some(over) => return over.map(Err),
                None => {}
            }
            // What is sent when matters only to TCP.
            match open(self.session, &self.pool, &address, false) {
                Err(error) if is_queue_full(&error) => {}
                outcome => return Ok(outcome.map_err(|error| Failure::of(&error))),
            }
        }
    }

    /// The attempt, or the session, has been asked to end.
    fn poll_cut(&self, cx: &Context<'_>) -> Option<Result<Failure, CloseReason>> {
        let reason = self.session.poll_cut(cx)?;
        Some(if reason.is_of_backend() { Ok(Failure::Down) } else { Err(reason) })
    }

    /// What ends an attempt from outside.
    fn poll_over(
        &mut self,
        deadline: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Failure, CloseReason>> {
        if let Poll::Ready(reason) = self.watch.poll_left(self.client, Waiting::Connecting, cx) {
            return Poll::Ready(Err(reason));
        }
        deadline.poll(cx).map(|()| Ok(Failure::Timeout))
    }
}

/// How often a full queue is retried: more often than anybody notices.
pub(super) const QUEUE: Duration = Duration::from_millis(10);

pub(super) fn is_queue_full(error: &io::Error) -> bool {
    // For an internet address this would be EADDRNOTAVAIL: the kernel queues those itself.
    error.raw_os_error() == Some(libc::EAGAIN)
}

fn succeeded(session: &Session, pool: &Pool, backend: &Backend, begun: Moment) {
    if session.told(|told| told.cause.is_some()) == Some(true) {
        // Of an earlier attempt.
        session.tell(|told| told.cause = None);
    }
    let took = begun.elapsed();
    if pool.config.connect.retry_until == RetryUntil::Connected {
        session.serves(backend);
    }
    if backend.live.rest.lift() {
        // Held sessions that left this backend alone may try it.
        backend.comes();
        pool.wake_held();
    }
    session.connected(took);
    let counters = backend.live.counters.of(session.worker.id);
    counters.connect_duration.observe(&CONNECT_BOUNDS, took);
    let of_pool = pool.shared.counters.of(session.worker.id);
    of_pool.connect_duration.observe(&CONNECT_BOUNDS, took);
    backend.observe_latency(took, Instant::now());
}

fn failed(session: &Session, pool: &Pool, backend: &Backend, why: Failure) {
    session.failed_attempts.set(session.failed_attempts.get().saturating_add(1));
    let failures = &backend.live.connect_failures;
    match why {
        Failure::NoDescriptors => failures.no_descriptors.add(1),
        Failure::NoSourcePort => {
            failures.no_source_port.add(1);
            pool.warn_of_absent_sources();
        }
        Failure::Refused => failures.refused.add(1),
        Failure::QueueFull | Failure::Timeout => failures.timeout.add(1),
        Failure::Declined | Failure::Tls => failures.tls_failed.add(1),
        Failure::NoPort | Failure::Unreachable => failures.unreachable.add(1),
        // Counted with that reason.
        Failure::Down => {}
    }
    if matches!(pool.config.when_none_up, WhenNoneUp::Hold(_)) && why.may_pass() {
        backend.live.rest.begin(AGAIN);
    }
    if why.is_backends_fault() && !pool.shared.is_port_of_clients(&backend.address) {
        pool.failed(backend, Instant::now());
    }
}

/// Begins a connection; it is made or fails in the background.
pub(super) fn open(
    session: &Session,
    pool: &Pool,
    address: &SockAddr,
    sends_first: bool,
) -> io::Result<Opened> {
    let options = outgoing(&session.listener.config, pool, sends_first);
    let make = || socket::outgoing(address, &options);
    let (socket, lease) = match address.as_socket() {
        Some(inet) => {
            let from = From { sources: &pool.config.source, mode: pool.config.source_ports };
            session.worker.source_ports.connect(inet, from, &make)?
        }
        None => {
            let socket = make()?;
            socket.connect(address)?;
            (socket, None)
        }
    };
    Ok(Opened { stream: Stream::new(socket.into())?, lease })
}

impl Connected<Watch> {
    /// Hands the client on. If its arrivals were watched, the event loop must announce them again.
    pub fn with_client(self, client: Stream) -> io::Result<Connected<Stream>> {
        let client = if self.client.has_looked() {
            // Without a relay the backend's FIN is not awaited: the connection must not stay half-open on a port that
            // is given back.
            client.into_fresh().inspect_err(|_| self.opened.stream.reset_on_close())?
        } else {
            client
        };
        Ok(Connected { opened: self.opened, permit: self.permit, client })
    }
}
