//! What outlives one version of a pool: waiting sessions, ejections, counts.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::finding::Finding;
use super::memory::Order;
use super::queue::Queue;
use crate::border::addr::BackendAddr;
use crate::border::counters::{Histogram, PerWorker, SharedCounter};

/// What outlives one version of a pool.
pub struct Shared {
    /// Sessions held by `when_none_up` or `when_full`.
    pub queue: Arc<Queue>,
    /// `pool_no_backend_total`.
    pub no_backend: SharedCounter,
    pub counters: PerWorker<PoolCounters>,
    pub finding: Finding,
    /// Clients choose the port on which backends without a port of their own are reached: several ports lead here.
    pub many_ports: AtomicBool,
    /// The tier whose names were never resolved: no tier above it serves in its place yet. `u32::MAX`: there is none.
    pub(super) waited_for: AtomicU32,
    /// The tier below which none serves, as `failback` keeps it; 0: none is kept. A pick reads it, the order writes it.
    pub(super) serving_tier: AtomicU32,
    pub(super) order: Mutex<Order>,
    /// Whether the order has news for the health checks.
    pub(super) has_news: AtomicBool,
    /// `pool_conflict`.
    pub is_in_conflict: AtomicBool,
    /// When `source` was last compared with this machine's addresses, on the coarse clock; 0: not yet.
    pub(super) sources_looked_at: AtomicU64,
    /// No backend that answers lets the probes log in.
    pub is_blind: AtomicBool,
    /// Backends that are ejected now; `passive.max_ejected` limits this.
    pub ejected: AtomicU32,
    /// `probe_duration_seconds`, in `CONNECT_BOUNDS`. All probes run on one thread, the only writer.
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

/// Upper bounds in seconds of `backend_connect_duration_seconds` and `backend_first_byte_duration_seconds`.
pub const CONNECT_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

impl Shared {
    pub fn new(workers: usize) -> Shared {
        Shared {
            queue: Arc::default(),
            no_backend: SharedCounter::default(),
            many_ports: AtomicBool::new(false),
            is_blind: AtomicBool::new(false),
            ejected: AtomicU32::new(0),
            probe_duration: Histogram::default(),
            counters: PerWorker::new(workers),
            finding: Finding::default(),
            waited_for: AtomicU32::new(u32::MAX),
            serving_tier: AtomicU32::new(0),
            order: Mutex::default(),
            has_news: AtomicBool::new(false),
            is_in_conflict: AtomicBool::new(false),
            sources_looked_at: AtomicU64::new(0),
        }
    }

    /// Whether clients choose the port on which this backend is reached. If it does not listen on that port, this
    /// says nothing about its other ports.
    pub fn is_port_of_clients(&self, address: &BackendAddr) -> bool {
        matches!(address, BackendAddr::InetClientPort(_)) && self.many_ports.load(Relaxed)
    }
}
