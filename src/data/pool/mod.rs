//! A pool: backends and the policy that picks one of them. Built by the control plane, read by the data plane. A pick
//! takes no lock and allocates nothing; it either takes a slot on a backend or says why not.
//!
//! ```text
//! Pool ── Arc<Backend> … (listing order)      Shared (survives a reload: who waits, counts)
//!   └── tiers, lowest first ── Members (their rows) and Picker (the algorithm over them)
//! Backend ── settings of the file, immutable
//!   └── Arc<Live> (survives a reload) ── slot (in-flight, limit, weight: the dense table), counters, status
//! ```

pub mod backend;
pub mod closing;
pub mod hand;
pub mod inflow;
pub mod balance;
mod build;
pub mod ejection;
pub mod order;
pub mod memory;
pub mod part;
pub mod single;
pub mod failback;
pub mod flap;
pub mod finding;
pub mod fitness;
pub mod latency;
pub mod load;
pub mod failures;
pub mod pick;
pub mod queue;
pub mod resting;
pub mod members;
pub mod slots;
pub mod tally;
pub mod slow_start;
pub mod shared;
mod sources;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
pub mod tier;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crate::border::addr::BackendAddr;
use crate::config;
use crate::sys::clock::Moment;
use backend::{Backend, Live};
use members::Ask;
use pick::{narrow, widen};
use slots::{Places, Weights};
use tier::Tier;

pub use pick::{PickError, PickKey, Tried};
pub use queue::Held;
pub use shared::{PoolCounters, SESSION_BOUNDS, Shared};

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
    /// Removed by a reload while they had sessions.
    departed: Vec<Departed>,
}

/// A backend that is no longer in the pool, as long as anything uses it. Its sessions still count, in its metrics
/// and, if it comes back (as found backends may do within seconds), against its limit.
#[derive(Clone)]
struct Departed {
    name: Arc<str>,
    address: BackendAddr,
    live: Weak<Live>,
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

impl Pool {
    /// Picks a backend and takes a slot on it. Takes no lock, allocates nothing, and needs a bounded number of steps
    /// also when everything is full.
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

    /// A tier serves when all tiers below it are down or tried, or, with `spill`, full; but none below the one that keeps
    /// serving until `failback` says otherwise, as long as a backend is up in that one.
    fn pick_by(&self, ask: &Ask) -> Result<Picked, PickError> {
        match self.shared.serving_tier.load(Relaxed) {
            0 => self.pick_from(0, ask),
            serving => match self.pick_from(serving, ask) {
                Err(PickError::NoneUp) => self.pick_from(0, ask),
                other => other,
            },
        }
    }

    fn pick_from(&self, lowest: u32, ask: &Ask) -> Result<Picked, PickError> {
        let mut verdict = PickError::NoneUp;
        for tier in self.tiers_to_serve(lowest) {
            match tier.pick(ask) {
                Ok(index) => return Ok(self.picked(index)),
                // It keeps no other tier waiting any more.
                Err(PickError::NoneUp) if lowest > 0 && tier.number == lowest => break,
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

    /// Puts this version's settings in force: must be called once, when its snapshot is swapped in. Until then
    /// building it has changed nothing that sessions or the version in use can see.
    pub fn activate(&self, now: Instant, wall: SystemTime) {
        for backend in &self.backends {
            backend.live.removed.set(false);
            backend.activate(now, wall);
            ejection::enlist(backend, now, wall);
        }
        for (_, live) in self.departed() {
            live.removed.set(true);
            live.outlier.retire();
        }
        self.reorder(now, wall);
        self.wake_held();
    }

    /// A session failed on this backend, which is to blame for it.
    pub fn failed(&self, backend: &Backend, now: Instant) {
        if let Some(passive) = &self.config.passive {
            ejection::failed(passive, self.backends.len(), backend, now);
        }
    }

    /// Backends that a held session leaves alone now, as many as can be passed over: they failed a moment ago, or came
    /// a moment ago and were sent enough. With how long until one of the latter may be sent more.
    pub fn left_alone(&self, now: Moment) -> (Tried, Option<Duration>) {
        let queue = &self.shared.queue;
        let round = queue.round().filter(|_| !queue.has_pass());
        let (mut left_alone, mut soonest) = (Tried::default(), None::<Duration>);
        for (index, backend) in self.backends.iter().enumerate() {
            let live = &backend.live;
            let wait = round.and_then(|round| live.inflow.wait(round, now.nanoseconds()));
            if let Some(wait) = wait {
                soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
            }
            if wait.is_some() || live.rest.is_on() {
                left_alone.push(narrow(index));
            }
        }
        (left_alone, soonest)
    }

    /// Whether a held session may be sent there now; then it counts as sent.
    pub fn lets_through(&self, backend: &Backend, now: Moment) -> bool {
        let queue = &self.shared.queue;
        let is_due = |round| backend.live.inflow.take(round, now.nanoseconds());
        queue.round().is_none_or(is_due) || queue.take_pass()
    }

    /// How many sessions the roomiest backend could take now, of those that a pick would consider and that are not known
    /// to fail. `u32::MAX`: there is no limit.
    pub fn room(&self) -> u32 {
        let is_forced =
            self.config.when_none_up == config::WhenNoneUp::TryAll && self.is_deserted();
        let weights = if is_forced { Weights::Forced } else { Weights::Effective };
        let room = match self.shared.serving_tier.load(Relaxed) {
            0 => None,
            serving => self.room_from(serving, weights),
        };
        room.or_else(|| self.room_from(0, weights)).unwrap_or(0)
    }

    /// As `pick_from` goes through the tiers. `None`: nobody is up.
    fn room_from(&self, lowest: u32, weights: Weights) -> Option<u32> {
        let mut verdict = None;
        for tier in self.tiers_to_serve(lowest) {
            match tier.room(weights) {
                Some(room) if room > 0 || !self.config.spill => return Some(room),
                None if lowest > 0 && tier.number == lowest => break,
                room => verdict = verdict.or(room),
            }
        }
        verdict
    }

    /// From this one on, but none above the one that is waited for.
    fn tiers_to_serve(&self, lowest: u32) -> impl Iterator<Item = &Tier> {
        let waited_for = self.shared.waited_for.load(Relaxed);
        let tiers = self.tiers.iter().filter(move |tier| tier.number >= lowest);
        tiers.take_while(move |tier| tier.number <= waited_for)
    }

    /// Those of its backends that `tried` has, as another version counts them.
    pub fn in_version(&self, tried: &Tried, other: &Pool) -> Tried {
        let mut there = Tried::default();
        for live in tried.iter().filter_map(|it| Some(&self.backends.get(widen(it))?.live)) {
            let place = other.backends.iter().position(|it| Arc::ptr_eq(&it.live, live));
            place.into_iter().for_each(|index| there.push(narrow(index)));
        }
        there
    }

    /// Whether no backend in it is up and takes new sessions.
    pub fn is_deserted(&self) -> bool {
        let takes = |backend: &Arc<Backend>| backend.live.slot.hot().weight(Weights::Effective) > 0;
        !self.backends.iter().any(takes)
    }

    /// Removed backends that still have sessions.
    pub fn departed(&self) -> impl Iterator<Item = (&Arc<str>, Arc<Live>)> {
        self.departed.iter().filter_map(|departed| Some((&departed.name, departed.live.upgrade()?)))
    }

    /// Lets no tier above this one serve, before the version that waits for it is in force. The previous version,
    /// which may wait for a tier that is known now, goes on waiting until it is replaced.
    pub fn hold_back(&self, tier: Option<u32>) {
        self.shared.waited_for.fetch_min(tier.unwrap_or(u32::MAX), Relaxed);
    }

    /// Lets no tier above this one serve; `None`: there is no wait.
    pub fn wait_for_tier(&self, tier: Option<u32>) {
        let before = self.shared.waited_for.swap(tier.unwrap_or(u32::MAX), Relaxed);
        if tier.is_none_or(|tier| tier > before) {
            self.backends.iter().filter(|it| it.tier > before).for_each(|it| it.comes());
            self.wake_held();
        }
    }

    /// Whether a tier may not serve yet because the backends of a tier below it are not known.
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
        self.shared.queue.call_all();
    }

    /// Whether any session is on a backend of this version, or held for it.
    pub fn is_in_use(&self) -> bool {
        let busy = |backend: &Arc<Backend>| backend.live.slot.hot().in_flight() > 0;
        self.backends.iter().any(busy)
            || self.departed().next().is_some()
            || self.shared.queue.held() > 0
    }
}

impl Picked {
    pub fn backend(&self) -> &Arc<Backend> {
        &self.permit.backend
    }
}

impl Drop for BackendPermit {
    fn drop(&mut self) {
        // Both are sequentially consistent, and so is the fence of a held session: no slot is free while a session
        // sleeps for it.
        self.backend.live.slot.give_back();
        if self.backend.shared.queue.round().is_some() {
            self.backend.shared.queue.call();
        }
    }
}
