//! One backend: what the file says of it, and what is alive of it across reloads.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use super::slots::Slot;
use crate::addr::BackendAddr;
use crate::telemetry::counters::{Counter, Histogram, PerWorker, SharedCounter};

/// A backend of one version of its pool. Identity across reloads is pool, name and address.
pub struct Backend {
    pub pool: Arc<str>,
    pub name: Arc<str>,
    pub address: BackendAddr,
    /// Configured, 0…256.
    pub weight: u32,
    pub tier: u32,
    pub max_sessions: Option<u32>,
    pub live: Arc<Live>,
}

/// What survives a reload while the backend's identity does.
pub struct Live {
    pub slot: Slot,
    pub counters: PerWorker<BackendCounters>,
    pub connect_failures: ConnectFailures,
    /// Written by the control plane alone (health, hand); the lock is never taken by a pick or a relay.
    pub status: Mutex<Status>,
}

/// The words of API, metric label, log and page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendState {
    Starting,
    Up,
    Down,
    Ejected,
    Drain,
    Maintenance,
}

impl BackendState {
    pub const ALL: [BackendState; 6] = [
        BackendState::Starting,
        BackendState::Up,
        BackendState::Down,
        BackendState::Ejected,
        BackendState::Drain,
        BackendState::Maintenance,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            BackendState::Starting => "starting",
            BackendState::Up => "up",
            BackendState::Down => "down",
            BackendState::Ejected => "ejected",
            BackendState::Drain => "drain",
            BackendState::Maintenance => "maintenance",
        }
    }
}

/// What the backend is now, why, and since when.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: BackendState,
    pub why: String,
    pub since: SystemTime,
    /// Monotonic, for slow start.
    pub up_since: Option<Instant>,
    /// Counts of `backend_transitions_total{to}`, in the order of `BackendState::ALL`.
    pub transitions: [u64; 6],
}

/// Statistics of one worker about one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Sessions that connected.
    pub sessions: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// Attempts on other backends that this one's failure caused.
    pub retries: Counter,
    pub connect_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
    pub first_byte_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
}

/// Upper bounds in seconds of `backend_connect_duration_seconds` and `backend_first_byte_duration_seconds`.
pub const CONNECT_BOUNDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// `backend_connect_failures_total{reason}`.
#[derive(Debug, Default)]
pub struct ConnectFailures {
    pub refused: SharedCounter,
    pub timeout: SharedCounter,
    pub unreachable: SharedCounter,
    /// Our own lack: never the backend's fault.
    pub no_source_port: SharedCounter,
    pub no_descriptors: SharedCounter,
}
