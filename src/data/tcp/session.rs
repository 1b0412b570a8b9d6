//! One session: what is known of it, and what is noted on its way. What becomes of it is in `life`.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::place::Home;

use super::first_bytes::Told;
use super::source_ports::Lease;
use crate::border::addr::{ClientAddr, LocalAddr, PackedClientAddr};
use crate::border::plane::{SessionFilter, SessionRow};
use crate::border::record::{Bytes, CloseReason, Stage};
use crate::border::snapshot::Listener;
use crate::config::PostgresCancel;
use crate::data::admit::{self, ListenerPermit};
use crate::data::limits::{ClientNet, ClientPermit};
use crate::data::pool::backend::{Backend, CONNECT_BOUNDS};
use crate::data::pool::{BackendPermit, Pool};
use crate::data::wire::proxy_protocol::Ends;
use crate::data::wire::{Progress, postgres};
use crate::sys::clock::{self, Moment};

/// Without a byte for this long a session is in a quiet moment: longer than a network takes to answer, shorter than
/// people think.
const MOMENT: Duration = Duration::from_millis(100);

/// One session. Everything in it belongs to one worker: no atomics. There may be hundreds of thousands of them, so
/// rare parts are small or boxed.
pub struct Session {
    pub id: u64,
    /// The backend of the last attempt.
    backend: Cell<Option<Arc<Backend>>>,
    /// While relaying: the slot on the backend, and the source port if maitred chose it.
    pub holds: Holds,
    pub started: Moment,
    pub bytes: Cell<Bytes>,
    /// Coarse clock of the last byte either way.
    pub last_byte_ms: Cell<u64>,
    waker: Cell<Option<Waker>>,
    local: Arc<LocalAddr>,
    client: Cell<PackedClientAddr>,
    /// What the first bytes said, if any were looked at.
    told: Cell<Option<Box<Told>>>,
    pub times: Cell<Times>,
    /// Its place in the worker's roster.
    pub seat: Cell<u32>,
    pub failed_attempts: Cell<u8>,
    pub stage: Cell<Stage>,
    cut: Cell<Option<CloseReason>>,
    /// The reason if it is to end in case this is a quiet moment.
    cut_if_quiet: Cell<Option<CloseReason>>,
    /// Whether it has a place among its client's sessions.
    is_counted: Cell<bool>,
    /// The protocol, by its first bytes, as far as they were seen.
    pub speaks_tls: Cell<bool>,
    /// Why it ended; `internal` until that is known.
    pub reason: Cell<CloseReason>,
    /// Its settings, as they were when it was accepted.
    pub listener: ListenerPermit,
    /// Its place is given back last: at zero load everything else must be given back.
    pub worker: Home,
}

/// What a relayed session holds besides its places.
#[derive(Default)]
pub struct Holds {
    pub slot: Cell<Option<BackendPermit>>,
    pub lease: Cell<Option<Box<Lease>>>,
}

/// How long the backend took, in microseconds; one hour is the maximum.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub connect: Option<NonZeroU32>,
    pub first_byte: Option<NonZeroU32>,
    /// When the backend was last sent anything, or connected, since the start: until its first byte.
    first_byte_from: u32,
}

/// Its place among its client's sessions, if those are limited.
impl Drop for Session {
    fn drop(&mut self) {
        if let (true, Some(ip)) = (self.is_counted.get(), self.client().ip()) {
            self.listener.live.quotas.clients.leave(ClientNet::of(ip));
        }
    }
}

impl Session {
    /// Admitted, and of this worker from now on.
    pub fn new(
        client: ClientAddr,
        local: Arc<LocalAddr>,
        listener: ListenerPermit,
        worker: Home,
    ) -> Session {
        Session {
            id: worker.plane.next_session_id(),
            backend: Cell::default(),
            holds: Holds::default(),
            started: Moment::now(),
            bytes: Cell::default(),
            last_byte_ms: Cell::new(clock::coarse_ms()),
            waker: Cell::default(),
            local,
            client: Cell::new(client.into()),
            told: Cell::default(),
            times: Cell::default(),
            seat: Cell::new(0),
            failed_attempts: Cell::new(0),
            stage: Cell::new(Stage::Route),
            cut: Cell::new(None),
            cut_if_quiet: Cell::new(None),
            is_counted: Cell::new(false),
            speaks_tls: Cell::new(false),
            reason: Cell::new(CloseReason::Internal),
            listener,
            worker,
        }
    }

    /// The pool as it is now; a reload may have replaced it since the session was accepted.
    pub fn pool(&self) -> Option<Arc<Pool>> {
        let snapshot = self.worker.plane.snapshot.load();
        snapshot.pools.get(&self.pool_name()?).map(Arc::clone)
    }

    /// The client: the announced one, if there is one.
    pub fn client(&self) -> ClientAddr {
        self.client.get().unpack()
    }

    /// The address that the client dialled, as far as the listening socket or a PROXY header knows it.
    pub fn local(&self) -> LocalAddr {
        self.told(|told| told.local).flatten().unwrap_or(*self.local)
    }

    /// Keeps its place among its client's sessions; its drop gives it back.
    pub fn keep(&self, own: ClientPermit) {
        own.keep();
        self.is_counted.set(true);
    }

    /// From now on it is the session of the client that a PROXY header announced.
    pub fn announce(&self, ends: Ends) {
        let sender = self.client();
        self.client.set(ClientAddr::new(ends.client).into());
        self.tell(|told| {
            told.sender = Some(sender);
            told.local = Some(LocalAddr::new(ends.local));
        });
    }

    pub fn listener_name(&self) -> &str {
        &self.listener.config.name
    }

    /// Whether the listener, as it is now, would admit its client.
    pub fn may_stay(&self, now: &Listener) -> bool {
        let sender = self.told(|told| told.sender).flatten().and_then(|sender| sender.ip());
        let client = self.client().ip();
        let is_sender = self.told(|told| told.sender_of.is_some()) == Some(true);
        admit::may_stay(now, client, sender, is_sender)
    }

    /// Keeps what the first bytes said.
    pub fn tell<T>(&self, note: impl FnOnce(&mut Told) -> T) -> T {
        let mut told = self.told.take().unwrap_or_default();
        let result = note(&mut told);
        self.told.set(Some(told));
        result
    }

    fn bandwidth(&self, from_client: bool) -> Option<u64> {
        let bandwidth = self.listener.config.limits.bandwidth?;
        if from_client { bandwidth.to_backend } else { bandwidth.to_client }
    }

    /// Ready with how much may be read from that side now.
    pub fn poll_allowance(&self, from_client: bool, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(limit) = self.bandwidth(from_client) else { return Poll::Ready(usize::MAX) };
        self.tell(|told| told.paces.of(from_client).poll(limit, cx))
    }

    /// Reads what the first bytes said, if any were looked at.
    pub fn told<T>(&self, look: impl FnOnce(&Told) -> T) -> Option<T> {
        let told = self.told.take()?;
        let result = look(&told);
        self.told.set(Some(told));
        Some(result)
    }

    /// The CancelRequest that is all it has to say, if it is one of those.
    pub fn take_cancel(&self) -> Option<bytes::Bytes> {
        self.told(|told| told.cancel.is_some()).filter(|is_cancel| *is_cancel)?;
        self.tell(|told| told.cancel.take())
    }

    /// A client that was refused TLS by its backend, and GSS encryption before, may send its CancelRequest afterwards.
    pub fn look_for_cancel(&self, taken: &[u8]) {
        if self.listener.config.postgres_cancel == PostgresCancel::None {
            return;
        }
        let asked =
            |count| count == postgres::LENGTH as u64 || count == 2 * postgres::LENGTH as u64;
        if asked(self.bytes.get().client_received)
            && postgres::cancel(taken) == Progress::Whole(Some(taken.len()))
        {
            self.tell(|told| told.cancel = Some(bytes::Bytes::copy_from_slice(taken)));
        }
    }

    /// Whether it may have sent one by now, and no more.
    pub fn may_cancel(&self) -> bool {
        const MOST: u64 = (2 * postgres::LENGTH + postgres::CANCEL_MOST) as u64;
        self.listener.config.postgres_cancel == PostgresCancel::All
            && self.bytes.get().client_received <= MOST
    }

    pub fn set_backend(&self, backend: Arc<Backend>) {
        self.backend.set(Some(backend));
    }

    /// Does something with the backend of the last attempt, if there was one.
    pub fn with_backend<T>(&self, work: impl FnOnce(&Arc<Backend>) -> T) -> Option<T> {
        let backend = self.backend.take()?;
        let result = work(&backend);
        self.backend.set(Some(backend));
        Some(result)
    }

    /// Registers the session's task and returns the reason if it must end.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Option<CloseReason> {
        let waker = self.waker.take().filter(|waker| waker.will_wake(cx.waker()));
        self.waker.set(Some(waker.unwrap_or_else(|| cx.waker().clone())));
        self.cut.get()
    }

    /// Ends the session at its next turn; the first reason stays, unless it would end only an attempt.
    pub fn cut(&self, reason: CloseReason) {
        let is_attempt = |it: CloseReason| self.stage.get() == Stage::Connect && it.is_of_backend();
        if self.cut.get().is_none_or(is_attempt) {
            self.cut.set(Some(reason));
        }
        self.wake();
    }

    /// Ends the session at its next turn if that is a quiet moment.
    pub fn cut_if_quiet(&self, reason: CloseReason) {
        self.cut_if_quiet.set(Some(reason));
        self.wake();
    }

    /// Whether it is to end if this is a quiet moment; asked once.
    pub fn is_to_end_if_quiet(&self) -> Option<CloseReason> {
        self.cut_if_quiet.take()
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            // It registers again at its next turn.
            waker.wake();
        }
    }

    /// How long no byte moved either way.
    pub fn quiet(&self) -> Duration {
        Duration::from_millis(clock::coarse_ms().saturating_sub(self.last_byte_ms.get()))
    }

    /// Whether no byte moved for a moment.
    pub fn is_silent(&self) -> bool {
        self.quiet() >= MOMENT
    }

    /// The reason for the cut does not concern it any more.
    pub fn lift_cut(&self) {
        self.cut.set(None);
    }

    /// The backend accepted the connection; now it may send.
    pub fn connected(&self, took: Duration) {
        let times = self.times.get();
        let connect = NonZeroU32::new(microseconds(took).max(1));
        let first_byte_from = microseconds(self.started.elapsed());
        self.times.set(Times { connect, first_byte_from, ..times });
    }

    /// Payload read from one side.
    pub fn taken(&self, from_client: bool, count: usize) {
        if let Some(limit) = self.bandwidth(from_client) {
            self.tell(|told| told.paces.of(from_client).take(limit, count));
        }
        let count = count as u64;
        let mut bytes = self.bytes.get();
        if from_client {
            if bytes.backend_received == 0 {
                // A client may pause within its request. Set before it is passed on: the backend may be quicker than
                // we are.
                let first_byte_from = microseconds(self.started.elapsed());
                self.times.set(Times { first_byte_from, ..self.times.get() });
            }
            bytes.client_received += count;
            self.listener.live.counters.of(self.worker.id).received_bytes.add(count);
        } else {
            if bytes.backend_received == 0 {
                self.first_byte();
            }
            bytes.backend_received += count;
            self.with_backend(|backend| {
                backend.live.counters.of(self.worker.id).received_bytes.add(count);
            });
        }
        self.bytes.set(bytes);
        self.last_byte_ms.set(clock::coarse_ms());
    }

    /// Payload written to the other side.
    pub fn delivered(&self, from_client: bool, count: usize, spliced: bool) {
        let count = count as u64;
        let mut bytes = self.bytes.get();
        if from_client {
            bytes.backend_sent += count;
            self.with_backend(|backend| {
                backend.live.counters.of(self.worker.id).sent_bytes.add(count);
            });
        } else {
            bytes.client_sent += count;
            self.listener.live.counters.of(self.worker.id).sent_bytes.add(count);
        }
        self.bytes.set(bytes);
        let load = self.worker.load();
        if spliced { &load.spliced_bytes } else { &load.copied_bytes }.add(count);
        self.last_byte_ms.set(clock::coarse_ms());
    }

    /// One of several backends was sent so much of it.
    pub fn told_a_backend(&self, backend: &Backend, count: usize) {
        let count = count as u64;
        let bytes = self.bytes.get();
        self.bytes.set(Bytes { backend_sent: bytes.backend_sent + count, ..bytes });
        backend.live.counters.of(self.worker.id).sent_bytes.add(count);
        self.worker.load().copied_bytes.add(count);
    }

    /// The backend's first byte: how long did it take?
    fn first_byte(&self) {
        let times = self.times.get();
        let from = Duration::from_micros(u64::from(times.first_byte_from));
        let took = self.started.elapsed().saturating_sub(from);
        let first_byte = NonZeroU32::new(microseconds(took).max(1));
        self.times.set(Times { first_byte, ..times });
        self.with_backend(|backend| {
            let counters = backend.live.counters.of(self.worker.id);
            counters.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            let of_pool = backend.shared.counters.of(self.worker.id);
            of_pool.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            backend.observe_latency(took, Instant::now());
        });
        self.answered();
    }

    /// With what it sent before it was refused, which was not passed on.
    pub fn all_bytes(&self) -> Bytes {
        let mut bytes = self.bytes.get();
        if matches!(self.stage.get(), Stage::Preread | Stage::Route) {
            let looked_at = self.told(|told| told.looked_at).unwrap_or(0) as u64;
            // It was read if another backend had it before.
            bytes.client_received = bytes.client_received.max(looked_at);
        }
        bytes
    }

    pub fn matches(&self, filter: &SessionFilter) -> bool {
        filter.id.is_none_or(|id| id == self.id)
            && filter.client.is_none_or(|ip| self.client().ip() == Some(ip))
            && filter.pool.as_deref().is_none_or(|pool| self.pool_name().as_deref() == Some(pool))
            && filter.stage.is_none_or(|stage| self.stage.get() == stage)
            && filter.backend.as_deref().is_none_or(|name| self.is_on(name, filter))
    }

    fn is_on(&self, name: &str, filter: &SessionFilter) -> bool {
        // A session that is held after an attempt is on no backend.
        matches!(self.stage.get(), Stage::Connect | Stage::Relay)
            && self.with_backend(|backend| {
                &*backend.name == name
                    && filter.address.as_ref().is_none_or(|address| backend.address == *address)
            }) == Some(true)
    }

    pub fn row(&self) -> SessionRow {
        let bytes = self.bytes.get();
        SessionRow {
            id: self.id,
            listener: Arc::clone(&self.listener.config.name),
            pool: self.pool_name(),
            backend: self.with_backend(|backend| Arc::clone(&backend.name)),
            client: self.client().to_string(),
            age: self.started.elapsed(),
            idle: self.quiet(),
            received_bytes: bytes.client_received,
            sent_bytes: bytes.client_sent,
            stage: self.stage.get(),
            worker: self.worker.id,
        }
    }

    pub fn pool_name(&self) -> Option<Arc<str>> {
        let config = &self.listener.config;
        match self.told(|told| told.route).flatten() {
            Some(index) => config.routes.get(index)?.pool.clone(),
            None => config.pool.clone(),
        }
    }
}

fn microseconds(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
