//! The last hour: sampled every ten seconds, kept in memory, bounded. For page and API, which need rates; a scraper
//! computes its own from the counters. `keep` runs on the control plane; nothing here touches the byte path.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::MissedTickBehavior;

use crate::border::plane::Plane;
use crate::border::record::CloseReason;
use crate::border::snapshot::{ListenerLive, Terms};
use crate::data::pool::Pool;
use crate::data::pool::backend::Live;

/// Between two points.
pub const STEP: Duration = Duration::from_secs(10);

/// One hour of them.
pub const POINTS: usize = 360;

/// Pools with a history of their own: 10 KiB each, so that with any configuration all of it takes half a megabyte,
/// and some 80 bytes for each backend. The first ones in the file; the others only count in the history of
/// everything.
pub const POOLS: usize = 50;

const REASONS: usize = CloseReason::ALL.len();

/// The figures at one time, and the rates of the ten seconds before, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Exact: there are never more than a million.
    pub sessions_active: f32,
    pub rates: Rates,
}

/// Per second. *Received* is from, *sent* is to, the side whose rates they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub sessions: f32,
    pub received_bytes: f32,
    pub sent_bytes: f32,
    pub failures: f32,
}

/// Oldest first.
pub type Series = VecDeque<Point>;

/// Since its start.
#[derive(Clone, Copy, Default)]
struct Counts {
    sessions: u64,
    received_bytes: u64,
    sent_bytes: u64,
    failures: u64,
}

/// A std lock: held for a sample or a page, never across an await.
pub struct History(Mutex<Kept>);

pub struct Kept {
    /// The time of the newest point, or of the start.
    pub end: SystemTime,
    looked: Instant,
    pub all: Series,
    /// In the order of the file.
    pub pools: Vec<(Arc<str>, Series)>,
    backends: Recent<Live>,
    listeners: Recent<ListenerLive>,
    failed: [u64; REASONS],
    failure_rates: [f32; REASONS],
}

/// The counts of each at the last sample, and its rates then. By the identity of the counters, so that an object of
/// the same name after a reload begins anew; the weak reference keeps its address from being reused.
type Recent<T> = HashMap<usize, (Weak<T>, Counts, Rates)>;

impl History {
    pub fn new(now: Instant, wall: SystemTime) -> Arc<History> {
        Arc::new(History(Mutex::new(Kept {
            end: wall,
            looked: now,
            all: Series::new(),
            pools: Vec::new(),
            backends: HashMap::new(),
            listeners: HashMap::new(),
            failed: [0; REASONS],
            failure_rates: [0.0; REASONS],
        })))
    }

    pub fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample, at this time.
    pub fn look(&self, plane: &Plane, now: Instant, wall: SystemTime) {
        self.kept().look(plane, now, wall);
    }
}

/// Samples for as long as the page or the API could ask: a few microseconds for each ten backends, on the control
/// runtime.
pub async fn keep(history: Arc<History>, plane: Arc<Plane>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + STEP, STEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        history.look(&plane, Instant::now(), SystemTime::now());
    }
}

impl Kept {
    /// Over the last ten seconds. `None`: not sampled yet.
    pub fn backend(&self, live: &Arc<Live>) -> Option<Rates> {
        self.backends.get(&identity(live)).map(|(_, _, rates)| *rates)
    }

    pub fn listener(&self, live: &Arc<ListenerLive>) -> Option<Rates> {
        self.listeners.get(&identity(live)).map(|(_, _, rates)| *rates)
    }

    /// How many sessions a second ended with this reason, over the last ten seconds.
    pub fn failing(&self, reason: CloseReason) -> Option<f32> {
        self.all.back().map(|_| self.failure_rates[reason as usize])
    }

    fn look(&mut self, plane: &Plane, now: Instant, wall: SystemTime) {
        let elapsed = now.duration_since(self.looked);
        // A late sample stands for all the time since the one before.
        let steps = (elapsed.as_secs_f32() / STEP.as_secs_f32()).round().max(1.0);
        let lasted = elapsed.as_secs_f32().max(f32::EPSILON);
        let times = (1..POINTS).find(|it| *it as f32 >= steps).unwrap_or(POINTS);
        (self.looked, self.end) = (now, wall);
        let snapshot = plane.snapshot.load_full();
        let departed = plane.departed.load_full();
        let rates = self.look_at_listeners(
            snapshot.listeners.values().map(|it| &it.terms).chain(&departed.listeners),
            lasted,
        );
        let sessions_active = plane.open_sessions() as f32;
        push(&mut self.all, Point { sessions_active, rates }, times);
        self.look_at_pools(&snapshot, &departed.pools, (lasted, times));
    }

    fn look_at_listeners<'a>(
        &mut self,
        listeners: impl Iterator<Item = &'a Arc<Terms>>,
        lasted: f32,
    ) -> Rates {
        let mut fresh = HashMap::new();
        let mut all = Counts::default();
        let mut failed = [0; REASONS];
        for listener in listeners {
            let counts = counts_of_listener(listener, &mut failed);
            all.add(note(&self.listeners, &mut fresh, &listener.live, counts, lasted));
        }
        for (index, now) in failed.iter().enumerate() {
            let more = now.saturating_sub(self.failed[index]);
            self.failure_rates[index] = more as f32 / lasted;
        }
        self.failed = failed;
        self.listeners = fresh;
        all.by_the_second(lasted)
    }

    fn look_at_pools(
        &mut self,
        snapshot: &crate::border::snapshot::Snapshot,
        departed: &[Arc<Pool>],
        (lasted, times): (f32, usize),
    ) {
        let mut fresh = HashMap::new();
        let mut before: HashMap<Arc<str>, Series> = self.pools.drain(..).collect();
        let pools = snapshot.config.pools.iter().filter_map(|it| snapshot.pools.get(&it.name));
        for (index, pool) in pools.enumerate() {
            let (active, counts) = look_at_pool(pool, &self.backends, &mut fresh, lasted);
            if index < POOLS {
                let mut series = before.remove(&pool.name).unwrap_or_default();
                let rates = counts.by_the_second(lasted);
                push(&mut series, Point { sessions_active: active as f32, rates }, times);
                self.pools.push((Arc::clone(&pool.name), series));
            }
        }
        // It has no history of its own, but if it comes back its last counts must be known.
        for pool in departed {
            look_at_pool(pool, &self.backends, &mut fresh, lasted);
        }
        self.backends = fresh;
    }
}

/// Sessions open on it, and the counts since the last sample.
fn look_at_pool(
    pool: &Pool,
    before: &Recent<Live>,
    fresh: &mut Recent<Live>,
    lasted: f32,
) -> (u64, Counts) {
    let departed: Vec<Arc<Live>> = pool.departed().map(|(_, live)| live).collect();
    let mut all = Counts::default();
    let mut active = 0;
    for live in pool.backends.iter().map(|backend| &backend.live).chain(&departed) {
        active += u64::from(live.slot.hot().in_flight());
        all.add(note(before, fresh, live, counts_of_backend(live), lasted));
    }
    (active, all)
}

/// Keeps the counts for the next sample; returns what is new.
fn note<T>(
    before: &Recent<T>,
    fresh: &mut Recent<T>,
    of: &Arc<T>,
    counts: Counts,
    lasted: f32,
) -> Counts {
    let known = before.get(&identity(of)).map(|(_, counts, _)| *counts);
    // A counter that did not exist at the last sample began at 0 since.
    let more = counts.since(known.unwrap_or_default());
    fresh.insert(identity(of), (Arc::downgrade(of), counts, more.by_the_second(lasted)));
    more
}

fn identity<T>(of: &Arc<T>) -> usize {
    Arc::as_ptr(of).addr()
}

fn push(series: &mut Series, point: Point, times: usize) {
    for _ in 0..times {
        if series.len() == POINTS {
            series.pop_front();
        }
        series.push_back(point);
    }
}

/// Failures are sessions that `log.sessions: failures` logs.
fn counts_of_listener(listener: &Terms, failed: &mut [u64; REASONS]) -> Counts {
    let mut counts = Counts::default();
    for cell in listener.live.counters.cells() {
        counts.sessions += cell.sessions.value();
        counts.received_bytes += cell.received_bytes.value();
        counts.sent_bytes += cell.sent_bytes.value();
    }
    for reason in CloseReason::ALL {
        counts.failures += listener.failed(reason);
        failed[reason as usize] += listener.failed(reason);
    }
    counts
}

/// Failures are failed connection attempts.
fn counts_of_backend(live: &Live) -> Counts {
    let mut counts = Counts::default();
    for cell in live.counters.cells() {
        counts.sessions += cell.sessions.value();
        counts.received_bytes += cell.received_bytes.value();
        counts.sent_bytes += cell.sent_bytes.value();
    }
    counts.failures = live.connect_failures.by_reason().iter().map(|(_, count)| count).sum();
    counts
}

impl Counts {
    fn add(&mut self, more: Counts) {
        self.sessions += more.sessions;
        self.received_bytes += more.received_bytes;
        self.sent_bytes += more.sent_bytes;
        self.failures += more.failures;
    }

    fn since(self, before: Counts) -> Counts {
        Counts {
            sessions: self.sessions.saturating_sub(before.sessions),
            received_bytes: self.received_bytes.saturating_sub(before.received_bytes),
            sent_bytes: self.sent_bytes.saturating_sub(before.sent_bytes),
            failures: self.failures.saturating_sub(before.failures),
        }
    }

    fn by_the_second(self, lasted: f32) -> Rates {
        Rates {
            sessions: self.sessions as f32 / lasted,
            received_bytes: self.received_bytes as f32 / lasted,
            sent_bytes: self.sent_bytes as f32 / lasted,
            failures: self.failures as f32 / lasted,
        }
    }
}
