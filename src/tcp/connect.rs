//! Connecting: attempts on backends not tried before, each with its own time, while the client is watched: its
//! reset cancels at once, and so does a FIN with no byte before it. Its bytes stay in the kernel, so whichever
//! backend answers gets them once.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use super::greeting::Greeting;
use super::session::Session;
use super::source_ports::{From, Lease};
use crate::config::{Hold, WhenFull, WhenNoneUp};
use crate::pool::backend::{Backend, CONNECT_BOUNDS};
use crate::pool::outlier;
use crate::pool::{BackendPermit, PickError, PickKey, Picked, Pool, Tried};
use crate::stream::Stream;
use crate::sys::socket::{self, Outgoing, Peeked};
use crate::telemetry::record::{CloseReason, Stage};

/// Most connections are made faster than this; watching the client costs calls, so it starts only then.
const GRACE: Duration = Duration::from_millis(5);

/// How often a client that half-closed is looked at: the event loop cannot tell its reset from its FIN.
const LOOK: Duration = Duration::from_millis(100);

/// A connection to a backend, made or in the making, and the source port if it is one of ours.
pub struct Opened {
    pub stream: Stream,
    pub lease: Option<Lease>,
}

/// A backend connection, and the client as the relay is to have it.
pub struct Connected<C = Watch> {
    pub opened: Opened,
    pub permit: BackendPermit,
    pub client: C,
}

/// Why an attempt failed, and so whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NoDescriptors,
    NoSourcePort,
    Refused,
    Timeout,
    /// It answered, but not that it goes on in TLS.
    Tls,
    Unreachable,
}

impl Failure {
    pub fn of(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                Failure::NoDescriptors
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Failure::NoSourcePort,
            Some(libc::ETIMEDOUT) => Failure::Timeout,
            Some(
                libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL,
            ) => Failure::Unreachable,
            // ECONNREFUSED, a reset during the handshake; of unix sockets: no such file, queue full.
            _ => Failure::Refused,
        }
    }

    /// Our own lack is never held against a backend.
    pub fn is_backends_fault(self) -> bool {
        !matches!(self, Failure::NoDescriptors | Failure::NoSourcePort)
    }

    fn reason(self) -> CloseReason {
        match self {
            Failure::NoDescriptors => CloseReason::NoDescriptors,
            Failure::NoSourcePort => CloseReason::NoSourcePort,
            Failure::Refused => CloseReason::ConnectRefused,
            Failure::Timeout => CloseReason::ConnectTimeout,
            Failure::Tls => CloseReason::TlsFailed,
            Failure::Unreachable => CloseReason::ConnectUnreachable,
        }
    }
}

/// Picks and connects until a backend answers, the attempts are used up, or the client left.
pub async fn connect(
    session: &Rc<Session>,
    client: &Stream,
    mut pool: Arc<Pool>,
) -> Result<Connected, CloseReason> {
    let mut watch = Watch::default();
    let mut tried = Tried::default();
    let mut failure = None;
    for _ in 0..pool.config.connect.attempts {
        let picked = match pick(session, &pool, &tried) {
            Ok(picked) => picked,
            Err(error) => match (failure, hold(&pool, error)) {
                (Some(failure), _) => return Err(Failure::reason(failure)),
                (None, None) => return Err(no_backend(&pool, error)),
                (None, Some(hold)) => {
                    wait(session, client, &mut pool, &mut watch, (error, hold)).await?
                }
            },
        };
        session.stage.set(Stage::Connect);
        session.with_backend(|before| {
            before.live.counters.of(session.worker.id).retries.add(1);
        });
        tried.push(picked.index);
        session.set_backend(Arc::clone(picked.backend()));
        let begun = Instant::now();
        match attempt(session, client, &pool, picked.backend(), &mut watch).await? {
            Ok(opened) => {
                succeeded(session, &pool, picked.backend(), begun);
                return Ok(Connected { opened, permit: picked.permit, client: watch });
            }
            Err(why) => {
                failed(session, &pool, picked.backend(), why);
                failure = Some(why);
                if why == Failure::NoDescriptors {
                    break;
                }
            }
        }
    }
    Err(failure.map_or(CloseReason::NoBackend, Failure::reason))
}

fn pick(session: &Session, pool: &Pool, tried: &Tried) -> Result<Picked, PickError> {
    let client = session.client();
    let by = |server_name: Option<&str>| {
        pool.pick(&PickKey { client, server_name }, tried, Instant::now())
    };
    session.told(|told| by(told.server_name())).unwrap_or_else(|| by(None))
}

/// Whether the pool lets a client wait rather than turning it away.
fn hold(pool: &Pool, error: PickError) -> Option<Hold> {
    match (error, pool.config.when_full, pool.config.when_none_up) {
        (PickError::AllFull, WhenFull::Hold(hold), _) => Some(hold),
        (PickError::NoneUp, _, WhenNoneUp::Hold(hold)) => Some(hold),
        _ => None,
    }
}

fn no_backend(pool: &Pool, error: PickError) -> CloseReason {
    match error {
        PickError::AllFull => CloseReason::BackendFull,
        PickError::AllTried | PickError::NoneUp => {
            pool.shared.no_backend.add(1);
            CloseReason::NoBackend
        }
    }
}

/// Holds the client until a backend can be picked, in stage `route`. The time runs from accept; a reload may
/// put another version of the pool in place meanwhile.
async fn wait(
    session: &Session,
    client: &Stream,
    pool: &mut Arc<Pool>,
    watch: &mut Watch,
    (error, hold): (PickError, Hold),
) -> Result<Picked, CloseReason> {
    let shared = Arc::clone(&pool.shared);
    let Some(_held) = shared.hold(hold.max) else {
        return Err(no_backend(pool, error));
    };
    let left = hold.time.saturating_sub(session.started.elapsed());
    let mut deadline = pin!(sleep(left));
    loop {
        // Registered before looking, so that no wake-up falls between the look and the wait.
        let mut changed = pin!(shared.changed.notified());
        changed.as_mut().enable();
        *pool = session.pool().ok_or(CloseReason::NoRoute)?;
        if let Ok(picked) = pick(session, pool, &Tried::default()) {
            return Ok(picked);
        }
        poll_fn(|cx| {
            if let Some(reason) = session.poll_cut(cx) {
                return Poll::Ready(Err(reason));
            }
            if let Poll::Ready(reason) = watch.poll_left(client, cx) {
                return Poll::Ready(Err(reason));
            }
            if changed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            deadline.as_mut().poll(cx).map(|()| Err(CloseReason::HoldTimeout))
        })
        .await?;
    }
}

fn succeeded(session: &Session, pool: &Pool, backend: &Backend, begun: Instant) {
    if session.told(|told| told.cause.is_some()) == Some(true) {
        // Of an attempt before.
        session.tell(|told| told.cause = None);
    }
    let took = begun.elapsed();
    outlier::succeeded(backend);
    session.connected(took);
    let counters = backend.live.counters.of(session.worker.id);
    counters.sessions.add(1);
    counters.connect_duration.observe(&CONNECT_BOUNDS, took);
    let of_pool = pool.shared.counters.of(session.worker.id);
    of_pool.connect_duration.observe(&CONNECT_BOUNDS, took);
    backend.observe_latency(took, Instant::now());
}

fn failed(session: &Session, pool: &Pool, backend: &Backend, why: Failure) {
    session.failed_attempts.set(session.failed_attempts.get().saturating_add(1));
    let failures = &backend.live.connect_failures;
    match why {
        Failure::NoDescriptors => &failures.no_descriptors,
        Failure::NoSourcePort => &failures.no_source_port,
        Failure::Refused => &failures.refused,
        Failure::Timeout => &failures.timeout,
        Failure::Tls => &failures.tls_failed,
        Failure::Unreachable => &failures.unreachable,
    }
    .add(1);
    if why.is_backends_fault() {
        outlier::failed(pool, backend, Instant::now());
    }
}

/// One attempt. The outer error ends the session (the client left, or somebody cut it), the inner one only
/// this attempt.
async fn attempt(
    session: &Session,
    client: &Stream,
    pool: &Pool,
    backend: &Backend,
    watch: &mut Watch,
) -> Result<Result<Opened, Failure>, CloseReason> {
    let mut greeting = match Greeting::new(session, client, pool, backend) {
        Ok(greeting) => greeting,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut opened = match open(session, client, pool, backend, greeting.is_first()) {
        Ok(opened) => opened,
        Err(error) => return Ok(Err(Failure::of(&error))),
    };
    let mut deadline = pin!(sleep(pool.config.connect.timeout));
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = greeting.poll(&mut opened.stream, cx) {
            if let Some(cause) = greeting.cause.take() {
                session.tell(|told| told.cause = Some(cause.into()));
            }
            return Poll::Ready(Ok(outcome));
        }
        if let Some(reason) = session.poll_cut(cx) {
            return Poll::Ready(Err(reason));
        }
        if let Poll::Ready(reason) = watch.poll_left(client, cx) {
            return Poll::Ready(Err(reason));
        }
        deadline.as_mut().poll(cx).map(|()| Ok(Err(Failure::Timeout)))
    })
    .await
    .map(|outcome| {
        outcome.map(|()| {
            if let Some(lease) = &mut opened.lease {
                lease.connected(&opened.stream);
            }
            opened
        })
    })
}

/// Begins a connection; it is made or fails in the background.
fn open(
    session: &Session,
    client: &Stream,
    pool: &Pool,
    backend: &Backend,
    has_greeting: bool,
) -> io::Result<Opened> {
    let address = socket::backend_sockaddr(&backend.address, session.local())?
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EHOSTUNREACH))?;
    let config = &session.listener.config;
    let options = Outgoing {
        keepalive: config.keepalive,
        buffer: config.socket_buffers.map(|buffers| buffers.backend),
        user_timeout: pool.config.backend_user_timeout,
        sends_first: has_greeting || socket::has_bytes(client),
    };
    let make = || socket::outgoing(&address, options);
    let (socket, lease) = match address.as_socket() {
        Some(inet) => {
            let from = From { sources: &pool.config.source, mode: pool.config.source_ports };
            session.worker.source_ports.connect(inet, from, &make)?
        }
        None => {
            let socket = make()?;
            socket.connect(&address)?;
            (socket, None)
        }
    };
    Ok(Opened { stream: Stream::new(socket.into())?, lease })
}

/// What is known of a client while nobody reads from it.
#[derive(Default)]
pub struct Watch {
    /// Runs before the first look, and between looks at a client that half-closed.
    timer: Option<std::pin::Pin<Box<Sleep>>>,
    looking: bool,
    half_closed: bool,
}

impl Watch {
    /// Ready when the client left for good: a reset, or a FIN with no byte before it.
    fn poll_left(&mut self, client: &Stream, cx: &mut Context<'_>) -> Poll<CloseReason> {
        loop {
            if !self.looking || self.half_closed {
                let wait = if self.half_closed { LOOK } else { GRACE };
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
                self.looking = true;
            } else {
                match client.poll_arrival(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientReset),
                    Poll::Ready(Ok(())) => {}
                }
            }
            match socket::peek(client) {
                Peeked::Reset => return Poll::Ready(CloseReason::ClientReset),
                // In TLS its bytes may have come along with the handshake.
                Peeked::Ended if client.tls().is_some() => self.half_closed = true,
                Peeked::Ended => return Poll::Ready(CloseReason::ClientClosed),
                Peeked::Bytes { fin } => self.half_closed = fin,
                Peeked::Nothing => {}
            }
            if !self.half_closed {
                client.forget_arrival();
            }
        }
    }
}

impl Connected<Watch> {
    /// Hands the client on. If its arrivals were watched, the event loop must announce them anew.
    pub fn with_client(self, client: Stream) -> io::Result<Connected<Stream>> {
        let client = if self.client.looking {
            // Without a relay nobody waits for the backend's FIN: it must not stay half-open on a port given back.
            client.into_fresh().inspect_err(|_| self.opened.stream.reset_on_close())?
        } else {
            client
        };
        Ok(Connected { opened: self.opened, permit: self.permit, client })
    }
}
