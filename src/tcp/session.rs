//! The life of one TCP connection, top to bottom: admitted by the listener, then route → connect → relay →
//! record. Each stage returns the reason if it ends the session; `run` records exactly once, whatever
//! happened; guards give back what was taken.

use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::connect::{self, Connected};
use super::relay;
use super::stream::Stream;
use super::worker::Worker;
use crate::addr::{ClientAddr, LocalAddr};
use crate::admit::Permit;
use crate::config::OnRefuse;
use crate::plane::{Plane, SessionFilter, SessionRow};
use crate::pool::backend::{Backend, CONNECT_BOUNDS};
use crate::pool::{Pool, SESSION_BOUNDS};
use crate::snapshot::Listener;
use crate::sys::clock;
use crate::telemetry::record::{Bytes, CloseReason, Record, Stage};

/// What a refused client may have sent already is read before the close, up to this, so that it sees an end
/// and not a reset.
const POLITE: usize = 256 * 1024;

/// An admitted connection on its way to the worker it will live on.
pub struct Arrival {
    pub socket: OwnedFd,
    pub client: ClientAddr,
    pub local: LocalAddr,
    pub listener: Arc<Listener>,
    pub permit: Permit,
    pub load: LoadPermit,
}

/// One session counted as a worker's load, from the choice of the worker on.
pub struct LoadPermit {
    plane: Arc<Plane>,
    worker: usize,
}

/// One session. Everything in it belongs to one worker: no atomics.
pub struct Session {
    pub id: u64,
    pub worker: Rc<Worker>,
    pub listener: Arc<Listener>,
    pub client: ClientAddr,
    pub local: LocalAddr,
    pub started: Instant,
    pub stage: Cell<Stage>,
    /// Of the last attempt.
    pub backend: RefCell<Option<Arc<Backend>>>,
    pub failed_attempts: Cell<u32>,
    /// When the backend could first have spoken: connected, or given the client's first bytes.
    pub first_byte_from: Cell<Option<Instant>>,
    pub connect_time: Cell<Option<Duration>>,
    pub first_byte_time: Cell<Option<Duration>>,
    pub bytes: Cell<Bytes>,
    /// Coarse clock of the last byte either way.
    pub last_byte_ms: Cell<u64>,
    cut: Cell<Option<CloseReason>>,
    waker: RefCell<Option<Waker>>,
}

/// Takes an arrival in and lets it live on this worker.
pub fn start(worker: &Rc<Worker>, arrival: Arrival) {
    let Arrival { socket, client, local, listener, permit, load } = arrival;
    // The listening socket may be a wildcard; the log wants the address the client really dialled.
    let local = if worker.plane.session_log.is_on() {
        crate::sys::socket::local_addr(&socket)
    } else {
        local
    };
    listener.live.counters.of(worker.id).sessions.add(1);
    let session = Rc::new(Session {
        id: worker.plane.next_session_id(),
        worker: Rc::clone(worker),
        listener,
        client,
        local,
        started: Instant::now(),
        stage: Cell::new(Stage::Route),
        backend: RefCell::new(None),
        failed_attempts: Cell::new(0),
        first_byte_from: Cell::new(None),
        connect_time: Cell::new(None),
        first_byte_time: Cell::new(None),
        bytes: Cell::new(Bytes::default()),
        last_byte_ms: Cell::new(clock::coarse_ms()),
        cut: Cell::new(None),
        waker: RefCell::new(None),
    });
    worker.sessions.borrow_mut().insert(session.id, Rc::clone(&session));
    tokio::task::spawn_local(run(session, socket, (permit, load)));
}

/// Lives, and records the ending exactly once. A panic below ends in `internal` by way of the guard's drop.
async fn run(session: Rc<Session>, socket: OwnedFd, _places: (Permit, LoadPermit)) {
    let mut ending = Ending { session: &session, reason: CloseReason::Internal };
    ending.reason = match life(&session, socket).await {
        Ok(reason) | Err(reason) => reason,
    };
}

async fn life(session: &Rc<Session>, socket: OwnedFd) -> Result<CloseReason, CloseReason> {
    let client = Stream::new(socket).map_err(|_| CloseReason::NoDescriptors)?;
    let pool = match route(session) {
        Ok(pool) => pool,
        Err(reason) => return Err(refuse(session, &client, reason)),
    };
    // Boxed: what connecting needs is given back before the session settles down to relay.
    let connected = match Box::pin(connect::connect(session, &client, pool)).await {
        Ok(connected) => connected,
        Err(reason) => return Err(refuse(session, &client, reason)),
    };
    session.stage.set(Stage::Relay);
    let Connected { opened, permit: _permit, client } =
        connected.with_client(client).map_err(|_| CloseReason::Internal)?;
    let mut lease = opened.lease;
    let reason = relay::relay(session, client, opened.stream).await;
    if let Some(lease) = &mut lease {
        lease.closed_by_us = reason == CloseReason::ClientClosed;
    }
    Ok(reason)
}

/// What no route claims goes to the listener's pool.
fn route(session: &Session) -> Result<Arc<Pool>, CloseReason> {
    session.pool().ok_or(CloseReason::NoRoute)
}

/// Ends a client that never reached a backend, as `on_refuse` says.
fn refuse(session: &Session, client: &Stream, reason: CloseReason) -> CloseReason {
    match session.listener.config.on_refuse {
        OnRefuse::Reset => client.reset_on_close(),
        OnRefuse::Close => {
            client.finish();
            client.discard(&mut session.worker.scratch.borrow_mut(), POLITE);
        }
    }
    reason
}

impl Session {
    /// The pool as it is now; a reload may have replaced it since the session was accepted.
    pub fn pool(&self) -> Option<Arc<Pool>> {
        let snapshot = self.worker.plane.snapshot.load();
        snapshot.pools.get(self.listener.config.pool.as_ref()?).map(Arc::clone)
    }

    /// Registers the session's task and says whether somebody wants it to end.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Option<CloseReason> {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.cut.get()
    }

    /// Ends the session at its next turn; the first reason stands.
    pub fn cut(&self, reason: CloseReason) {
        if self.cut.get().is_none() {
            self.cut.set(Some(reason));
        }
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Payload taken from one side.
    pub fn taken(&self, from_client: bool, count: usize) {
        let count = count as u64;
        let mut bytes = self.bytes.get();
        if from_client {
            bytes.client_received += count;
            self.listener.live.counters.of(self.worker.id).received_bytes.add(count);
        } else {
            if bytes.backend_received == 0 {
                self.first_byte();
            }
            bytes.backend_received += count;
            if let Some(backend) = self.backend.borrow().as_ref() {
                backend.live.counters.of(self.worker.id).received_bytes.add(count);
            }
        }
        self.bytes.set(bytes);
        self.last_byte_ms.set(clock::coarse_ms());
    }

    /// Payload given to the other side.
    pub fn delivered(&self, from_client: bool, count: usize, spliced: bool) {
        let count = count as u64;
        let mut bytes = self.bytes.get();
        if from_client {
            if bytes.backend_sent == 0 && bytes.backend_received == 0 {
                self.first_byte_from.set(Some(Instant::now()));
            }
            bytes.backend_sent += count;
            if let Some(backend) = self.backend.borrow().as_ref() {
                backend.live.counters.of(self.worker.id).sent_bytes.add(count);
            }
        } else {
            bytes.client_sent += count;
            self.listener.live.counters.of(self.worker.id).sent_bytes.add(count);
        }
        self.bytes.set(bytes);
        let load = self.worker.load();
        if spliced { &load.spliced_bytes } else { &load.copied_bytes }.add(count);
        self.last_byte_ms.set(clock::coarse_ms());
    }

    /// The backend spoke for the first time: how long did it let us wait?
    fn first_byte(&self) {
        let took = self.first_byte_from.get().unwrap_or(self.started).elapsed();
        self.first_byte_time.set(Some(took));
        if let Some(backend) = self.backend.borrow().as_ref() {
            let counters = backend.live.counters.of(self.worker.id);
            counters.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            let of_pool = backend.shared.counters.of(self.worker.id);
            of_pool.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            backend.observe_latency(took, Instant::now());
        }
    }

    pub fn matches(&self, filter: &SessionFilter) -> bool {
        let backend = self.backend.borrow();
        filter.id.is_none_or(|id| id == self.id)
            && filter.client.is_none_or(|ip| self.client.ip() == Some(ip))
            && filter.pool.as_deref().is_none_or(|pool| self.pool_name().as_deref() == Some(pool))
            && filter
                .backend
                .as_deref()
                .is_none_or(|name| backend.as_ref().is_some_and(|backend| &*backend.name == name))
    }

    pub fn row(&self) -> SessionRow {
        let idle = clock::coarse_ms().saturating_sub(self.last_byte_ms.get());
        let bytes = self.bytes.get();
        SessionRow {
            id: self.id,
            listener: Arc::clone(&self.listener.config.name),
            pool: self.pool_name(),
            backend: self.backend.borrow().as_ref().map(|backend| Arc::clone(&backend.name)),
            client: self.client.to_string(),
            age: self.started.elapsed(),
            idle: Duration::from_millis(idle),
            received_bytes: bytes.client_received,
            sent_bytes: bytes.client_sent,
            stage: self.stage.get(),
        }
    }

    fn pool_name(&self) -> Option<Arc<str>> {
        self.listener.config.pool.clone()
    }
}

/// Records the session when it goes out of scope, and takes it off the worker's table.
struct Ending<'a> {
    session: &'a Rc<Session>,
    reason: CloseReason,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let session = self.session;
        session.worker.sessions.borrow_mut().remove(&session.id);
        let (stage, reason) = (session.stage.get(), self.reason);
        let worker = session.worker.id;
        session.listener.live.counters.of(worker).closed(stage, reason).add(1);
        if let (Stage::Relay, Some(backend)) = (stage, session.backend.borrow().as_ref()) {
            let durations = &backend.shared.counters.of(worker).session_duration;
            durations.observe(&SESSION_BOUNDS, session.started.elapsed());
        }
        let log = &session.worker.plane.session_log;
        if log.wants(reason) {
            log.write(Record {
                id: session.id,
                listener: Arc::clone(&session.listener.config.name),
                client: session.client,
                local: session.local,
                pool: session.pool_name(),
                backend: session.backend.borrow().as_ref().map(|b| Arc::clone(&b.name)),
                tried: session.failed_attempts.get(),
                stage,
                reason,
                bytes: session.bytes.get(),
                connect: session.connect_time.get(),
                first_byte: session.first_byte_time.get(),
                duration: session.started.elapsed(),
            });
        }
    }
}

/// Records a client that was refused before it became a session.
pub fn record_refusal(
    worker: &Worker,
    listener: &Listener,
    client: ClientAddr,
    local: LocalAddr,
    stage: Stage,
    reason: CloseReason,
) {
    let counters = listener.live.counters.of(worker.id);
    counters.sessions.add(1);
    counters.closed(stage, reason).add(1);
    if worker.plane.session_log.wants(reason) {
        worker.plane.session_log.write(Record {
            id: worker.plane.next_session_id(),
            listener: Arc::clone(&listener.config.name),
            client,
            local,
            pool: None,
            backend: None,
            tried: 0,
            stage,
            reason,
            bytes: Bytes::default(),
            connect: None,
            first_byte: None,
            duration: Duration::ZERO,
        });
    }
}

impl LoadPermit {
    pub fn new(plane: Arc<Plane>, worker: usize) -> LoadPermit {
        plane.workers[worker].sessions.fetch_add(1, Relaxed);
        LoadPermit { plane, worker }
    }
}

impl Drop for LoadPermit {
    fn drop(&mut self) {
        self.plane.workers[self.worker].sessions.fetch_sub(1, Relaxed);
    }
}
