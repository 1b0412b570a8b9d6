//! A pool: backends and the policy that picks one of them. Built by the control plane, read by the data
//! plane. A pick takes no lock and allocates nothing; it either takes a slot on a backend or says why not.
//!
//! ```text
//! Pool ── Arc<Backend> … (listing order)      Shared (survives a reload: who waits, what changed)
//!   └── tiers, lowest first ── Picker (algorithm) over indices into `backends`
//! Backend ── settings of the file, immutable
//!   └── Arc<Live> (survives a reload) ── slot (in-flight, limit, weight: the dense table), counters, status
//! ```

pub mod backend;
pub mod slots;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::sync::Notify;

use crate::addr::ClientAddr;
use crate::config;
use crate::telemetry::counters::SharedCounter;
use backend::Backend;

/// Everything about a pool that the data plane reads.
pub struct Pool {
    pub name: Arc<str>,
    pub config: Arc<config::Pool>,
    /// Listing order.
    pub backends: Vec<Arc<Backend>>,
    pub shared: Arc<Shared>,
}

/// What outlives one version of a pool.
#[derive(Default)]
pub struct Shared {
    /// Sessions held by `when_none_up` or `when_full`.
    pub held: AtomicU32,
    /// Woken when a backend comes up, a slot is given back while somebody waits, or the pool is reloaded.
    pub changed: Notify,
    /// `pool_no_backend_total`.
    pub no_backend: SharedCounter,
}

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct PickKey {
    pub client: ClientAddr,
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
    pub backend: Arc<Backend>,
    pub permit: BackendPermit,
}

/// One session's slot on a backend; given back on drop.
pub struct BackendPermit {
    pub backend: Arc<Backend>,
    shared: Arc<Shared>,
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

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Drop for BackendPermit {
    fn drop(&mut self) {
        self.backend.live.slot.give_back();
        if self.shared.held.load(Relaxed) > 0 {
            self.shared.changed.notify_one();
        }
    }
}

impl Pool {
    pub fn build(_config: Arc<config::Pool>, _previous: Option<&Pool>, _workers: usize) -> Pool {
        unimplemented!()
    }
    pub fn activate(&self, _now: std::time::Instant) {}
    pub fn pick(
        &self,
        _key: &PickKey,
        _tried: &Tried,
        _now: std::time::Instant,
    ) -> Result<Picked, PickError> {
        unimplemented!()
    }
}
