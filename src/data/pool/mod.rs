//! A pool: backends and the policy that picks one of them. Built by the control plane, read by the data
//! plane. A pick takes no lock and allocates nothing; it either takes a slot on a backend or says why not.
//!
//! ```text
//! Pool ── Arc<Backend> … (listing order)      Shared (survives a reload: who waits, what changed)
//!   └── tiers, lowest first ── Members (their rows) and Picker (the algorithm over them)
//! Backend ── settings of the file, immutable
//!   └── Arc<Live> (survives a reload) ── slot (in-flight, limit, weight: the dense table), counters, status
//! ```

pub mod backend;
pub mod hand;
pub mod balance;
mod build;
pub mod finding;
pub mod fitness;
pub mod latency;
pub mod load;
pub mod outlier;
pub mod rest;
pub mod members;
pub mod slots;
pub mod tally;
pub mod slow_start;
mod sources;
#[cfg(test)]
pub(crate) mod tests;
pub mod tier;

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence,
};
use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use tokio::sync::Notify;

use crate::border::addr::{BackendAddr, ClientAddr};
use crate::border::counters::{Histogram, PerWorker, SharedCounter};
use crate::config;
use backend::{Backend, CONNECT_BOUNDS, Live};
use finding::Finding;
use members::Ask;
use slots::{Places, Weights};
use tier::Tier;

/// Everything about a pool that the data plane reads.
pub struct Pool {
    pub name: Arc<str>,
    pub config: Arc<config::Pool>,
    /// Listing order.
    pub backends: Vec<Arc<Backend>>,
    pub shared: Arc<Shared>,
    /// Lowest number first.
    tiers: Vec<Tier>,
    places: Places,
    /// Removed by a reload while sessions were on them.
    departed: Vec<Departed>,
}

/// A backend that is no longer of the pool, as long as anybody uses it: its sessions still count, in its series and,
/// if it comes back (as those that discovery finds may do within seconds), against its limit.
#[derive(Clone)]
struct Departed {
    name: Arc<str>,
    address: BackendAddr,
    live: Weak<Live>,
}

/// What outlives one version of a pool.
pub struct Shared {
    /// Sessions held by `when_none_up` or `when_full`.
    pub held: AtomicU32,
    /// Woken when a backend comes up, a slot is given back while somebody waits, or the pool is reloaded.
    pub changed: Notify,
    /// `pool_no_backend_total`.
    pub no_backend: SharedCounter,
    pub counters: PerWorker<PoolCounters>,
    pub finding: Finding,
    /// Clients choose on which port backends without one of their own are asked: several lead here.
    pub many_ports: AtomicBool,
    /// The tier whose names were never answered for: none above it serves in its place yet. `u32::MAX`: there is none.
    waited_for: AtomicU32,
    /// When `source` was last compared with what this machine has, on the coarse clock; 0: not yet.
    sources_looked_at: AtomicU64,
    /// Backends ejected now; `passive.max_ejected` is held against it.
    pub ejected: AtomicU32,
    /// `probe_duration_seconds`, in `CONNECT_BOUNDS`. All probes run on one thread: its only writer.
    pub probe_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
}

/// Statistics of one worker about one pool: they do not shrink when a backend is removed.
#[derive(Debug, Default)]
pub struct PoolCounters {
    pub connect_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
    pub first_byte_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
    pub session_duration: Histogram<{ SESSION_BOUNDS.len() }>,
}

/// Upper bounds in seconds of `session_duration_seconds`: 10 ms to 24 h.
pub const SESSION_BOUNDS: [f64; 12] =
    [0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 28_800.0, 86_400.0];

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct PickKey<'a> {
    pub client: ClientAddr,
    /// What a TLS client asks for, in lower case.
    pub server_name: Option<&'a str>,
}

impl PickKey<'_> {
    pub fn new(client: ClientAddr) -> Self {
        PickKey { client, server_name: None }
    }
}

/// Indices of the backends this session tried already. `connect.attempts` is at most `Tried::MAX`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indices: [u32; Tried::MAX],
    count: u8,
}

/// Why no backend was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// Some backend is up, but all that are, are at `max_sessions`.
    AllFull,
    /// Backends are up, but this session tried them all.
    AllTried,
    /// Nobody is up (or has weight).
    NoneUp,
}

/// A backend and the slot taken on it.
pub struct Picked {
    pub index: u32,
    pub permit: BackendPermit,
}

/// One session's slot on a backend; given back on drop.
pub struct BackendPermit {
    pub backend: Arc<Backend>,
}

/// A session's place among the held ones of its pool; given back on drop.
pub struct Held {
    shared: Arc<Shared>,
}

impl Pool {
    /// Picks a backend and takes a slot on it. Takes no lock, allocates nothing, and is over after a bounded number
    /// of steps also when everything is full.
    pub fn pick(
        &self,
        key: &PickKey<'_>,
        tried: &Tried,
        now: Instant,
    ) -> Result<Picked, PickError> {
        let ask = Ask { key, tried, weights: Weights::Effective, now };
        match self.pick_by(&ask) {
            Err(PickError::NoneUp) if self.config.when_none_up == config::WhenNoneUp::TryAll => {
                self.pick_by(&Ask { weights: Weights::Forced, ..ask })
            }
            other => other,
        }
    }

    /// A tier serves when all below it are down or tried, or, with `spill`, full.
    fn pick_by(&self, ask: &Ask) -> Result<Picked, PickError> {
        let mut verdict = PickError::NoneUp;
        for tier in &self.tiers {
            if tier.number > self.shared.waited_for.load(Relaxed) {
                break;
            }
            match tier.pick(ask) {
                Ok(index) => return Ok(self.picked(index)),
                Err(PickError::AllFull) if !self.config.spill => return Err(PickError::AllFull),
                Err(PickError::AllFull) => verdict = PickError::AllFull,
                Err(PickError::AllTried) if verdict == PickError::NoneUp => {
                    verdict = PickError::AllTried;
                }
                Err(PickError::AllTried | PickError::NoneUp) => {}
            }
        }
        Err(verdict)
    }

    fn picked(&self, index: u32) -> Picked {
        let backend = Arc::clone(&self.backends[widen(index)]);
        Picked { index, permit: BackendPermit { backend } }
    }

    /// Makes this version's settings the ones that count: to be called once, when its snapshot is swapped in.
    /// Until then building it has changed nothing that sessions or the version in use can see.
    pub fn activate(&self, now: Instant, wall: SystemTime) {
        for backend in &self.backends {
            backend.live.removed.set(false);
            backend.activate(now, wall);
            outlier::enlist(backend, now, wall);
        }
        for (_, live) in self.departed() {
            live.removed.set(true);
            live.outlier.retire();
        }
        self.wake_held();
    }

    /// Backends that failed a moment ago, as many as can be passed over.
    pub fn resting(&self) -> Tried {
        let mut resting = Tried::default();
        for (index, backend) in self.backends.iter().enumerate() {
            if backend.live.rest.is_on() {
                resting.push(narrow(index));
            }
        }
        resting
    }

    /// Whether nobody in it is up and takes new sessions.
    pub fn is_deserted(&self) -> bool {
        let takes = |backend: &Arc<Backend>| backend.live.slot.hot().weight(Weights::Effective) > 0;
        !self.backends.iter().any(takes)
    }

    /// Removed backends that still have sessions.
    pub fn departed(&self) -> impl Iterator<Item = (&Arc<str>, Arc<Live>)> {
        self.departed.iter().filter_map(|departed| Some((&departed.name, departed.live.upgrade()?)))
    }

    /// Lets no tier above this one serve, before the version that waits for it is in force. The version before, which
    /// may wait for a tier that is known now, goes on waiting until it is replaced.
    pub fn hold_back(&self, tier: Option<u32>) {
        self.shared.waited_for.fetch_min(tier.unwrap_or(u32::MAX), Relaxed);
    }

    /// Lets no tier above this one serve; `None`: nobody is waited for.
    pub fn wait_for_tier(&self, tier: Option<u32>) {
        let before = self.shared.waited_for.swap(tier.unwrap_or(u32::MAX), Relaxed);
        if tier.is_none_or(|tier| tier > before) {
            self.wake_held();
        }
    }

    /// Whether a tier may not serve yet since it is not known who is in one below it.
    pub fn waits_for_tier(&self) -> bool {
        let waited_for = self.shared.waited_for.load(Relaxed);
        self.tiers.last().is_some_and(|tier| tier.number > waited_for)
    }

    /// Recomputes all weights: the tick of slow start.
    pub fn refresh_weights(&self, now: Instant) {
        for backend in &self.backends {
            backend.refresh_weight(now);
        }
    }

    pub fn wake_held(&self) {
        self.shared.wake_held();
    }

    /// Whether any session is on a backend of this version, or held for it.
    pub fn is_in_use(&self) -> bool {
        let busy = |backend: &Arc<Backend>| backend.live.slot.hot().in_flight() > 0;
        self.backends.iter().any(busy)
            || self.departed().next().is_some()
            || self.shared.held.load(Relaxed) > 0
    }
}

impl Shared {
    pub fn new(workers: usize) -> Shared {
        Shared {
            held: AtomicU32::new(0),
            changed: Notify::new(),
            no_backend: SharedCounter::default(),
            many_ports: AtomicBool::new(false),
            ejected: AtomicU32::new(0),
            probe_duration: Histogram::default(),
            counters: PerWorker::new(workers),
            finding: Finding::default(),
            waited_for: AtomicU32::new(u32::MAX),
            sources_looked_at: AtomicU64::new(0),
        }
    }

    /// Joins the held sessions unless `max` are held already. Whoever is held makes its `changed.notified()` future
    /// and enables it first, then picks, then waits: so no wake-up is lost between pick and wait.
    pub fn hold(self: &Arc<Self>, max: u32) -> Option<Held> {
        self.held.fetch_update(SeqCst, Relaxed, |held| (held < max).then(|| held + 1)).ok()?;
        // With the order in `BackendPermit::drop`: either that permit sees us, or our pick sees its slot.
        fence(SeqCst);
        Some(Held { shared: Arc::clone(self) })
    }

    pub fn wake_held(&self) {
        self.changed.notify_waiters();
    }

    /// Whether clients choose the port on which this backend is asked. Nobody may serve on it, and that says nothing
    /// about the others.
    pub fn is_port_of_clients(&self, address: &BackendAddr) -> bool {
        matches!(address, BackendAddr::InetClientPort(_)) && self.many_ports.load(Relaxed)
    }
}

/// An index of the dense kind as a `usize`, which has at least 32 bits on every system with sockets.
pub(crate) fn widen(index: u32) -> usize {
    index as usize
}

/// The converse; a pool has far fewer than 2^32 backends.
pub(crate) fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a pool has fewer than 2^32 backends")
}

impl Tried {
    pub const MAX: usize = 16;

    pub fn push(&mut self, index: u32) {
        if usize::from(self.count) < Tried::MAX {
            self.indices[usize::from(self.count)] = index;
            self.count += 1;
        }
    }

    pub fn contains(&self, index: u32) -> bool {
        self.indices[..usize::from(self.count)].contains(&index)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.indices[..self.len()].iter().copied()
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Picked {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.permit.backend
    }
}

impl Drop for BackendPermit {
    fn drop(&mut self) {
        // Both sequentially consistent, and so is the fence of who is held: no slot is free while somebody sleeps
        // because of it.
        self.backend.live.slot.give_back();
        if self.backend.shared.held.load(SeqCst) > 0 {
            self.backend.shared.changed.notify_one();
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.held.fetch_sub(1, Relaxed);
    }
}
