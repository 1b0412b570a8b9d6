//! What the data plane shows to the control plane besides the Backend atomics: its limits, each worker's load and
//! statistics, and rows about open sessions. It names no internals of either plane.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use tokio::runtime::RuntimeMetrics;
use tokio::sync::mpsc;

use crate::border::addr::{BackendAddr, ListenAddr, LocalAddr};
use crate::border::counters::{Counter, SharedCounter};
use crate::border::record::{CloseReason, Stage};
use crate::border::session_log::SessionLog;
use crate::border::snapshot::{Departed, Snapshot};
use crate::config::Protocol;
use crate::data::limits::Gate;
use crate::data::pool::closing::Closing;

/// Shared by every thread for the life of the process.
pub struct Plane {
    pub snapshot: ArcSwap<Snapshot>,
    /// Removed by a reload while they had sessions: their metrics disappear when the last session has ended.
    pub departed: ArcSwap<Departed>,
    /// The bound addresses, by the address in the configuration.
    pub served: ArcSwap<BTreeMap<Bind, Served>>,
    pub gate: Arc<Gate>,
    /// The limit of flows of all UDP listeners, from the descriptor limit.
    pub flows: Arc<Gate>,
    pub workers: Box<[Arc<CachePadded<WorkerLoad>>]>,
    pub accept_errors: AcceptErrors,
    pub source_ports: Arc<PortStats>,
    pub session_log: SessionLog,
    /// How long workers look for more work before they sleep; 0 = not at all.
    pub busy_poll_ns: AtomicU64,
    /// Set by SIGTERM: `draining`, and readyz says 503.
    pub draining: AtomicBool,
    /// Some names of the start were not asked for yet.
    settling: AtomicBool,
    since: Instant,
    next_session: AtomicU64,
}

/// Clients do not wait longer than this for names that are not resolved.
pub const SETTLING: Duration = Duration::from_secs(12);

/// TCP and UDP may have the same address.
pub type Bind = (Protocol, ListenAddr);

/// One bound address.
#[derive(Clone, Debug)]
pub struct Served {
    pub listener: Arc<str>,
    /// With the port that the kernel chose if the configuration has 0.
    pub local: LocalAddr,
}

/// One worker, seen from outside.
pub struct WorkerLoad {
    /// The process's limit, which every session of the worker counts against.
    pub gate: Arc<Gate>,
    /// Sessions on this worker, and those that are being passed to it.
    pub sessions: AtomicUsize,
    /// Flows on its UDP thread.
    pub flows: AtomicUsize,
    pub copied_bytes: Counter,
    /// Copied by its UDP thread.
    pub udp_bytes: Counter,
    pub spliced_bytes: Counter,
    /// Nanoseconds that its UDP thread has worked.
    pub udp_busy: Counter,
    metrics: OnceLock<RuntimeMetrics>,
}

/// `accept_errors_total{reason}`.
#[derive(Debug, Default)]
pub struct AcceptErrors {
    /// The client had left before the connection was accepted.
    pub aborted: SharedCounter,
    pub no_descriptors: SharedCounter,
    pub no_memory: SharedCounter,
    pub other: SharedCounter,
}

/// `source_ports_in_use` and `source_ports_exhausted_total`: ports that maitred chose.
#[derive(Debug, Default)]
pub struct PortStats {
    pub in_use: AtomicUsize,
    pub exhausted: SharedCounter,
}

/// An open session or flow as API and page show it.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub id: u64,
    pub listener: Arc<str>,
    pub pool: Option<Arc<str>>,
    pub backend: Option<Arc<str>>,
    pub client: String,
    pub age: Duration,
    pub idle: Duration,
    /// Bytes on the client side.
    pub received_bytes: u64,
    pub sent_bytes: u64,
    pub stage: Stage,
    pub worker: usize,
}

/// How many of a thread's sessions or flows are listed at once: all others wait for the time that this takes.
pub const SEATS: usize = 256;

/// A part of a list.
#[derive(Debug, Default)]
pub struct Part {
    pub rows: Vec<SessionRow>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<usize>,
}

/// Which sessions are selected; a field that is `None` selects all.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    pub id: Option<u64>,
    pub pool: Option<String>,
    pub backend: Option<String>,
    /// The identity of the backend: a reload may have given its name to another one.
    pub address: Option<BackendAddr>,
    /// The stage that they must have reached.
    pub stage: Option<Stage>,
    /// An address without a port.
    pub client: Option<std::net::IpAddr>,
}

impl fmt::Display for SessionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SessionFilter { id, pool, backend, client, address: _, stage: _ } = self;
        let mut parts = Vec::new();
        parts.extend(id.map(|id| format!("id {id}")));
        // From a request: may be any text.
        parts.extend(pool.as_ref().map(|pool| format!("pool {}", pool.escape_debug())));
        parts.extend(backend.as_ref().map(|backend| format!("backend {}", backend.escape_debug())));
        parts.extend(client.map(|client| format!("client {client}")));
        f.write_str(&parts.join(", "))
    }
}

/// Cut these sessions, for this reason.
#[derive(Clone, Debug)]
pub struct Cut {
    pub filter: SessionFilter,
    pub reason: CloseReason,
    /// The pace, where there may be very many; `None`: at once.
    pub closing: Option<Arc<Closing>>,
    /// Where each thread reports how many it cut; has room for all.
    pub count: Option<mpsc::Sender<usize>>,
}

impl Cut {
    pub fn counted(&self, cut: usize) {
        if let Some(count) = &self.count {
            // The client that asked may have left.
            let _ = count.try_send(cut);
        }
    }
}

impl Plane {
    pub fn new(workers: usize, gate: Arc<Gate>, session_log: SessionLog) -> Arc<Plane> {
        Arc::new(Plane {
            snapshot: ArcSwap::from_pointee(Snapshot::default()),
            departed: ArcSwap::default(),
            served: ArcSwap::default(),
            workers: (0..workers.max(1)).map(|_| WorkerLoad::new(&gate)).collect(),
            gate,
            flows: Gate::new(0),
            accept_errors: AcceptErrors::default(),
            source_ports: Arc::default(),
            session_log,
            busy_poll_ns: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            since: Instant::now(),
            next_session: AtomicU64::new(1),
        })
    }

    pub fn set_settling(&self, settling: bool) {
        self.settling.store(settling, Relaxed);
    }

    /// Whether it is too early for clients: names of backends are still being resolved, and the limit for that has
    /// not passed.
    pub fn is_settling(&self) -> bool {
        self.settling.load(Relaxed) && self.since.elapsed() < SETTLING
    }

    pub fn next_session_id(&self) -> u64 {
        self.next_session.fetch_add(1, Relaxed)
    }

    /// Sessions and flows open on all workers.
    pub fn open_sessions(&self) -> usize {
        let open = |it: &WorkerLoad| it.sessions.load(Relaxed) + it.flows.load(Relaxed);
        self.workers.iter().map(|worker| open(worker)).sum()
    }

    pub fn open_flows(&self) -> usize {
        self.workers.iter().map(|worker| worker.flows.load(Relaxed)).sum()
    }

    /// Threads with statistics of their own: first the TCP threads of all workers, then their UDP threads.
    pub fn threads(&self) -> usize {
        self.workers.len() * 2
    }

    /// The place of a worker's UDP thread among them.
    pub fn udp_thread(&self, worker: usize) -> usize {
        self.workers.len() + worker
    }
}

impl WorkerLoad {
    fn new(gate: &Arc<Gate>) -> Arc<CachePadded<WorkerLoad>> {
        Arc::new(CachePadded::new(WorkerLoad {
            gate: Arc::clone(gate),
            sessions: AtomicUsize::new(0),
            flows: AtomicUsize::new(0),
            copied_bytes: Counter::default(),
            udp_bytes: Counter::default(),
            spliced_bytes: Counter::default(),
            udp_busy: Counter::default(),
            metrics: OnceLock::new(),
        }))
    }

    pub fn set_metrics(&self, metrics: RuntimeMetrics) {
        // A worker starts once; a second call would come from the same runtime.
        let _ = self.metrics.set(metrics);
    }

    /// Time that this worker spent working rather than waiting, on both threads.
    pub fn busy(&self) -> Duration {
        let tcp = self.metrics.get().map(|metrics| metrics.worker_total_busy_duration(0));
        tcp.unwrap_or_default() + Duration::from_nanos(self.udp_busy.value())
    }
}
