//! The dense table a pick scans: per backend its in-flight count, limit and effective weight, sixteen bytes,
//! four to a cache line. Chunks never move, so that a reload can add backends while old permits still count.
//!
//! Who owns a place: the `Slot`, and nobody else. Claiming sets the place's bit in its chunk, dropping the slot
//! clears it. The slot lives in the backend's `Live`, which every permit and every pool version keeps alive, so a
//! place is given to another backend only when nobody can count on it any more.
//!
//! ```text
//! Places ── Arc<Chunk> ─┬─ taken: one bit per row
//!                       └─ rows: [Hot; 64]  ◀── Slot {chunk, index} ◀── Live ◀── Backend ◀── permit, pool
//! ```

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};

/// Backends per chunk: one bit each in `Chunk::taken`.
pub const CHUNK: usize = 64;

/// Effective weights are in 256ths of a configured unit, so that slow start can ramp a weight of 1.
pub const WEIGHT_UNIT: u32 = 256;

/// Rows that stay where they are as long as anybody uses one of them.
#[derive(Debug)]
pub struct Chunk {
    taken: AtomicU64,
    pub rows: [Hot; CHUNK],
}

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

/// Which of a row's two weights counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    Effective,
    /// `when_none_up: try_all`, and nobody is up.
    Forced,
}

/// One backend's place in the table, its own until dropped.
#[derive(Debug)]
pub struct Slot {
    chunk: Arc<Chunk>,
    index: usize,
}

/// The chunks of a pool, in the order in which places are handed out.
#[derive(Clone, Debug, Default)]
pub struct Places {
    chunks: Vec<Arc<Chunk>>,
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
    pub fn weight(&self, weights: Weights) -> u32 {
        match weights {
            Weights::Effective => self.weight.load(Relaxed),
            Weights::Forced => self.forced_weight.load(Relaxed),
        }
    }

    pub fn is_full(&self) -> bool {
        self.in_flight.load(Relaxed) >= self.limit.load(Relaxed)
    }

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

    fn reset(&self) {
        self.in_flight.store(0, Relaxed);
        self.limit.store(u32::MAX, Relaxed);
        self.weight.store(0, Relaxed);
        self.forced_weight.store(0, Relaxed);
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk { taken: AtomicU64::new(0), rows: std::array::from_fn(|_| Hot::default()) }
    }
}

impl Chunk {
    /// The lowest free place, now taken.
    fn claim(&self) -> Option<usize> {
        let mut index = 0;
        // Acquire pairs with the release of the slot that left the place: its reset row is seen.
        self.taken
            .fetch_update(Acquire, Relaxed, |taken| {
                index = taken.trailing_ones();
                taken.checked_add(1).map(|next| taken | next)
            })
            .ok()?;
        usize::try_from(index).ok()
    }

    fn is_unused(&self) -> bool {
        self.taken.load(Relaxed) == 0
    }
}

impl Slot {
    /// A table of one, for tests and for what stands outside a pool.
    pub fn alone() -> Self {
        Places::default().claim()
    }

    pub fn hot(&self) -> &Hot {
        &self.chunk.rows[self.index]
    }

    pub fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    pub fn index(&self) -> usize {
        self.index
    }

    /// Sequentially consistent, for the sake of those who wait for the slot.
    pub fn give_back(&self) {
        let before = self.hot().in_flight.fetch_sub(1, SeqCst);
        debug_assert!(before > 0, "a slot is given back at most once");
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.hot().reset();
        self.chunk.taken.fetch_and(!(1 << self.index), Release);
    }
}

impl Places {
    /// A free place, in a new chunk if need be.
    pub fn claim(&mut self) -> Slot {
        // Newest last: a pool built at once fills its chunks one after the other, so only the last has room;
        // the earlier ones have it after removals, and are worth the look then.
        for chunk in &self.chunks {
            if let Some(index) = chunk.claim() {
                return Slot { chunk: Arc::clone(chunk), index };
            }
        }
        let chunk = Arc::new(Chunk::default());
        let index = chunk.claim().expect("a new chunk is empty");
        self.chunks.push(Arc::clone(&chunk));
        Slot { chunk, index }
    }

    /// Forgets the chunks nobody has a place in.
    pub fn trim(&mut self) {
        self.chunks.retain(|chunk| !chunk.is_unused());
    }

    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_quarter_of_a_cache_line() {
        assert_eq!(size_of::<Hot>(), 16);
    }

    #[test]
    fn places_fill_a_chunk_in_order_then_the_next() {
        let mut places = Places::default();
        let slots: Vec<Slot> = (0..130).map(|_| places.claim()).collect();
        let order: Vec<usize> = slots.iter().map(Slot::index).collect();
        let expected: Vec<usize> = (0..130).map(|place| place % CHUNK).collect();
        assert_eq!(order, expected);
        assert_eq!(places.chunks().len(), 3);
    }

    #[test]
    fn a_place_is_free_again_when_its_slot_is_dropped_and_its_row_is_as_new() {
        let mut places = Places::default();
        let mut slots: Vec<Slot> = (0..CHUNK).map(|_| places.claim()).collect();
        let gone = slots.remove(17);
        gone.hot().limit.store(3, Relaxed);
        gone.hot().weight.store(3, Relaxed);
        drop(gone);
        let again = places.claim();
        assert_eq!(again.index(), 17);
        assert_eq!(again.hot().limit.load(Relaxed), u32::MAX);
        assert_eq!(again.hot().weight.load(Relaxed), 0);
        assert_eq!(places.chunks().len(), 1);
    }

    #[test]
    fn only_chunks_without_slots_are_trimmed() {
        let mut places = Places::default();
        let mut slots: Vec<Slot> = (0..CHUNK * 2).map(|_| places.claim()).collect();
        slots.truncate(CHUNK + 1);
        places.trim();
        assert_eq!(places.chunks().len(), 2);
        slots.truncate(CHUNK);
        places.trim();
        assert_eq!(places.chunks().len(), 1);
    }

    #[test]
    fn a_limit_is_exact_over_threads() {
        let slot = Slot::alone();
        slot.hot().limit.store(5, Relaxed);
        let taken = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        taken.fetch_add(u32::from(slot.hot().take()), Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 5);
        assert!(slot.hot().is_full());
    }
}
