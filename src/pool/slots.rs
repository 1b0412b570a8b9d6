//! The dense table a pick scans: per backend its in-flight count, limit and effective weight, sixteen bytes,
//! four to a cache line. Chunks never move, so that a reload can add backends while old permits still count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Backends per chunk.
pub const CHUNK: usize = 64;

/// Effective weights are in 256ths of a configured unit, so that slow start can ramp a weight of 1.
pub const WEIGHT_UNIT: u32 = 256;

pub type Chunk = [Hot; CHUNK];

/// What a pick reads of one backend.
#[derive(Debug)]
#[repr(C)]
pub struct Hot {
    /// Sessions connecting or relaying.
    pub in_flight: AtomicU32,
    /// `max_sessions`; `u32::MAX` = none.
    pub limit: AtomicU32,
    /// In `WEIGHT_UNIT`s; 0 = takes no new sessions now (down, ejected, by hand, weight 0).
    pub weight: AtomicU32,
    /// The same if `when_none_up: try_all` ignores probes; 0 in drain, maintenance, or at weight 0.
    pub forced_weight: AtomicU32,
}

/// One backend's place in the table.
#[derive(Clone, Debug)]
pub struct Slot {
    chunk: Arc<Chunk>,
    index: usize,
}

impl Default for Hot {
    fn default() -> Self {
        Hot {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(u32::MAX),
            weight: AtomicU32::new(0),
            forced_weight: AtomicU32::new(0),
        }
    }
}

impl Hot {
    /// Takes a slot if the count still is `seen` and below the limit.
    pub fn take_at(&self, seen: u32) -> bool {
        seen < self.limit.load(Relaxed)
            && self
                .in_flight
                .compare_exchange(seen, seen.saturating_add(1), Relaxed, Relaxed)
                .is_ok()
    }

    /// Takes a slot at whatever count, below the limit.
    pub fn take(&self) -> bool {
        let limit = self.limit.load(Relaxed);
        self.in_flight
            .fetch_update(Relaxed, Relaxed, |count| (count < limit).then(|| count + 1))
            .is_ok()
    }
}

impl Slot {
    pub fn new(chunk: Arc<Chunk>, index: usize) -> Self {
        assert!(index < CHUNK, "a slot lies within its chunk");
        Slot { chunk, index }
    }

    /// A table of one, for tests and for pools of one backend.
    pub fn alone() -> Self {
        Slot::new(Arc::new(std::array::from_fn(|_| Hot::default())), 0)
    }

    pub fn hot(&self) -> &Hot {
        &self.chunk[self.index]
    }

    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn give_back(&self) {
        let before = self.hot().in_flight.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a slot is given back at most once");
    }
}
