//! Statistics that the data plane writes and a scrape sums: one cell per worker, each on its own cache lines, so that
//! no worker ever waits for another. Limits are not statistics: they are shared and exact.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

/// A monotonic count with a single writer: its worker. `add` is a plain load and store, which is why two
/// threads must never write one counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A monotonic count with many writers; for rare events.
#[derive(Debug, Default)]
pub struct SharedCounter(AtomicU64);

impl SharedCounter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One `T` per worker, made when that worker first uses it: 35 000 idle backends cost a pointer each.
#[derive(Debug)]
pub struct PerWorker<T>(Box<[OnceLock<Box<CachePadded<T>>>]>);

impl<T: Default> PerWorker<T> {
    pub fn new(workers: usize) -> Self {
        PerWorker((0..workers.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The cell of `worker`; only that worker's thread may write to it.
    pub fn of(&self, worker: usize) -> &T {
        self.0[worker].get_or_init(Box::default)
    }

    /// Sum over all workers.
    pub fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.cells().map(read).sum()
    }

    /// The cells that were ever used.
    pub fn cells(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(|cell| cell.get().map(|cell| &***cell))
    }
}

/// A histogram with a single writer per worker. Bounds are upper bounds in seconds, as Prometheus has them.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    buckets: [Counter; N],
    count: Counter,
    sum_nanoseconds: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Histogram {
            buckets: std::array::from_fn(|_| Counter::default()),
            count: Counter::default(),
            sum_nanoseconds: Counter::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    pub fn observe(&self, bounds: &[f64; N], value: std::time::Duration) {
        let seconds = value.as_secs_f64();
        if let Some(index) = bounds.iter().position(|bound| seconds <= *bound) {
            self.buckets[index].add(1);
        }
        self.count.add(1);
        self.sum_nanoseconds.add(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The count in bucket `index` alone, not cumulated.
    pub fn bucket(&self, index: usize) -> u64 {
        self.buckets[index].value()
    }

    pub fn count(&self) -> u64 {
        self.count.value()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_nanoseconds.value() as f64 / 1e9
    }
}
