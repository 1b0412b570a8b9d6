//! The dense table that a pick scans: per backend its in-flight count, limit and effective weight, sixteen bytes,
//! four to a cache line. Chunks never move, so that a reload can add backends while old permits still count.
//!
//! Only the `Slot` owns a place. Claiming sets the place's bit in its chunk, dropping the slot clears it. The slot is
//! in the backend's `Live`, which every permit and every pool version keeps alive, so a place goes to another backend
//! only when nothing can count on it any more.
//!
//! ```text
//! Places ── Arc<Chunk> ─┬─ head: taken (one bit per row), tallies (of all rows that are tallied)
//!                       ├─ rows: [Hot; 64]  ◀── Slot {chunk, index} ◀── Live ◀── Backend ◀── permit, pool
//!                       └─ latencies: [Latency; 64]
//! ```
//!
//! Tallies are what bounded load needs (`tally.rs`): the sessions and the weight of a chunk's rows that are up, kept
//! up to date by every change of a row. A row never leaves its chunk, so no reload, move between tiers or change of
//! weight has to carry a count from one place to another.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicI64, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};

use super::latency::Latency;
use super::load::{Load, Share};

/// Backends per chunk: one bit each in `Chunk::taken`.
pub const CHUNK: usize = 64;

/// Effective weights are in 256ths of a configured unit, so that slow start can ramp a weight of 1.
pub const WEIGHT_UNIT: u32 = 256;

/// Rows that do not move as long as one of them is in use.
#[derive(Debug)]
pub struct Chunk {
    head: Head,
    rows: [Hot; CHUNK],
    /// The most sessions that each row ever had at once; separate from the rows, which are read far more often.
    peaks: [AtomicU32; CHUNK],
    latencies: [Latency; CHUNK],
}

/// On a cache line of its own, because every session of a tallied pool writes there; so the rows begin on a line,
/// too.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Head {
    taken: AtomicU64,
    /// Of the tallied rows that are up. Below 0 at most while a change is under way that another one has overtaken.
    sessions: AtomicI64,
    weight: AtomicI64,
}

/// The values of a chunk's tallies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tallies {
    pub sessions: i64,
    pub weight: i64,
}

/// What a pick reads of one backend.
#[derive(Debug)]
#[repr(C)]
pub struct Hot {
    /// A `Load`: sessions and effective weight. Changed by the chunk alone, which tallies.
    load: AtomicU64,
    /// `max_sessions`; `u32::MAX` = none.
    pub limit: AtomicU32,
    /// The weight if `when_none_up: try_all` ignores probes; 0 in drain, maintenance, or at weight 0.
    forced_weight: AtomicU32,
}

/// Which of a row's two weights counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    Effective,
    /// `when_none_up: try_all`, and no backend is up.
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
            load: AtomicU64::new(0),
            limit: AtomicU32::new(u32::MAX),
            forced_weight: AtomicU32::new(0),
        }
    }
}

impl Hot {
    #[inline]
    pub fn load(&self) -> Load {
        Load::of(self.load.load(Relaxed))
    }

    /// Sessions that connect or relay.
    pub fn in_flight(&self) -> u32 {
        self.load().sessions()
    }

    pub fn weight(&self, weights: Weights) -> u32 {
        self.weight_of(self.load(), weights)
    }

    /// The weight that goes with a load that was read already.
    #[inline]
    pub fn weight_of(&self, load: Load, weights: Weights) -> u32 {
        match weights {
            Weights::Effective => load.weight(),
            Weights::Forced => self.forced_weight.load(Relaxed),
        }
    }

    /// Up by these weights, and below its limit.
    #[inline]
    pub fn is_open(&self, weights: Weights) -> bool {
        let load = self.load();
        self.weight_of(load, weights) > 0 && load.sessions() < self.limit.load(Relaxed)
    }

    /// How many sessions it could take now; `u32::MAX`: there is no limit.
    pub fn room(&self) -> u32 {
        match self.limit.load(Relaxed) {
            u32::MAX => u32::MAX,
            limit => limit.saturating_sub(self.in_flight()),
        }
    }

    pub fn is_full(&self) -> bool {
        self.in_flight() >= self.limit.load(Relaxed)
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Chunk {
            head: Head::default(),
            rows: std::array::from_fn(|_| Hot::default()),
            peaks: std::array::from_fn(|_| AtomicU32::new(0)),
            latencies: std::array::from_fn(|_| Latency::default()),
        }
    }
}

impl Chunk {
    #[inline]
    pub fn rows(&self) -> &[Hot; CHUNK] {
        &self.rows
    }

    /// Takes a slot at any count below the limit.
    pub fn take(&self, row: usize) -> bool {
        let hot = &self.rows[row];
        let limit = hot.limit.load(Relaxed);
        let another = |word| {
            let load = Load::of(word);
            (load.sessions() < limit).then(|| load.with_another().word())
        };
        let Ok(before) = hot.load.fetch_update(Relaxed, Relaxed, another) else { return false };
        self.taken(row, Load::of(before));
        true
    }

    /// Takes a slot if the load is still `seen`, and below the limit.
    pub fn take_at(&self, row: usize, seen: Load) -> bool {
        let hot = &self.rows[row];
        if seen.sessions() >= hot.limit.load(Relaxed) {
            return false;
        }
        let (word, next) = (seen.word(), seen.with_another().word());
        if hot.load.compare_exchange(word, next, Relaxed, Relaxed).is_err() {
            return false;
        }
        self.taken(row, seen);
        true
    }

    #[inline]
    fn taken(&self, row: usize, before: Load) {
        if before.counts() {
            self.head.sessions.fetch_add(1, Release);
        }
        let now = before.sessions() + 1;
        // Rarely written, so that the cache line stays with its readers.
        if now > self.peaks[row].load(Relaxed) {
            self.peaks[row].fetch_max(now, Relaxed);
        }
    }

    /// Sequentially consistent, for the sessions that wait for the slot.
    fn give_back(&self, row: usize) {
        let before = Load::of(self.rows[row].load.fetch_sub(1, SeqCst));
        debug_assert!(before.sessions() > 0, "a slot is given back at most once");
        if before.counts() {
            self.head.sessions.fetch_sub(1, Release);
        }
    }

    /// From now on the row is in the tallies.
    pub fn tally(&self, row: usize) {
        self.change(row, Load::tallied);
    }

    /// The values of the tallies, if they include no other rows than `mine` (a bit each), all of which are tallied.
    #[inline]
    pub fn tallies(&self, mine: u64) -> Option<Tallies> {
        // Acquire pairs with the release of the tallying thread: a row that is included in the value was taken
        // before.
        let tallies = Tallies {
            sessions: self.head.sessions.load(Acquire),
            weight: self.head.weight.load(Acquire),
        };
        (self.head.taken.load(Relaxed) & !mine == 0).then_some(tallies)
    }

    /// Changes a row's load, and returns the old one.
    fn change(&self, row: usize, change: impl Fn(Load) -> Load) -> Load {
        let next = |word| Some(change(Load::of(word)).word());
        let changed = self.rows[row].load.fetch_update(Relaxed, Relaxed, next);
        let before = Load::of(changed.unwrap_or_else(|word| word));
        self.settle(before.share(), change(before).share());
        before
    }

    fn settle(&self, before: Share, after: Share) {
        let more = i64::from(after.sessions) - i64::from(before.sessions);
        self.head.sessions.fetch_add(more, Release);
        let heavier = i64::from(after.weight) - i64::from(before.weight);
        self.head.weight.fetch_add(heavier, Release);
    }

    /// As new, for the next backend.
    fn reset(&self, row: usize) {
        let hot = &self.rows[row];
        self.change(row, |_| Load::default());
        hot.limit.store(u32::MAX, Relaxed);
        hot.forced_weight.store(0, Relaxed);
        self.peaks[row].store(0, Relaxed);
        self.latencies[row].forget();
    }

    pub fn latency(&self, row: usize) -> &Latency {
        &self.latencies[row]
    }

    /// The lowest free place, now taken.
    fn claim(&self) -> Option<usize> {
        let mut index = 0;
        // Acquire pairs with the release of the slot that left the place: its reset row is seen.
        self.head
            .taken
            .fetch_update(Acquire, Relaxed, |taken| {
                index = taken.trailing_ones();
                taken.checked_add(1).map(|next| taken | next)
            })
            .ok()?;
        usize::try_from(index).ok()
    }

    fn is_unused(&self) -> bool {
        self.head.taken.load(Relaxed) == 0
    }
}

impl Slot {
    /// A table of one, for tests and for backends outside a pool.
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

    /// Sequentially consistent, for the sessions that wait for the slot.
    pub fn give_back(&self) {
        self.chunk.give_back(self.index);
    }

    /// The most sessions it ever had at once.
    pub fn peak(&self) -> u32 {
        self.chunk.peaks[self.index].load(Relaxed)
    }

    /// Effective and forced weight; returns the old ones.
    pub fn set_weights(&self, weight: u32, forced: u32) -> (u32, u32) {
        let before = self.chunk.change(self.index, |load| load.with_weight(weight));
        (before.weight(), self.hot().forced_weight.swap(forced, Relaxed))
    }

    pub fn latency(&self) -> &Latency {
        self.chunk.latency(self.index)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.chunk.reset(self.index);
        self.chunk.head.taken.fetch_and(!(1 << self.index), Release);
    }
}

impl Places {
    /// A free place, in a new chunk if necessary.
    pub fn claim(&mut self) -> Slot {
        // The newest last: a pool that is built at once fills its chunks one after the other, so only the last one
        // has room; the earlier ones have room after removals, and are worth checking then.
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

    /// Forgets the chunks in which no place is taken.
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
    fn the_most_sessions_at_once_are_known_also_afterwards() {
        let slot = Slot::alone();
        let chunk = slot.chunk();
        assert!(chunk.take(slot.index()) && chunk.take(slot.index()));
        slot.give_back();
        let seen = slot.hot().load();
        assert!(chunk.take_at(slot.index(), seen));
        assert_eq!((slot.peak(), slot.hot().in_flight()), (2, 2));
        let seen = slot.hot().load();
        assert!(chunk.take_at(slot.index(), seen));
        (0..3).for_each(|_| slot.give_back());
        assert_eq!((slot.peak(), slot.hot().in_flight()), (3, 0));
    }

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
        gone.set_weights(3, 4);
        gone.latency().observe(std::time::Duration::from_secs(1), 7);
        drop(gone);
        let again = places.claim();
        assert_eq!(again.index(), 17);
        assert_eq!(again.hot().limit.load(Relaxed), u32::MAX);
        assert_eq!(again.hot().load(), Load::default());
        assert_eq!(again.hot().weight(Weights::Forced), 0);
        assert_eq!(again.latency().microseconds(7), None);
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
                        taken.fetch_add(u32::from(slot.chunk().take(slot.index())), Relaxed);
                    }
                });
            }
        });
        assert_eq!(taken.into_inner(), 5);
        assert!(slot.hot().is_full());
    }
}
