//! The connections of a door, and which of them must go when no place is left: the one that has been silent for
//! longest, so that silent connections cannot keep others out. A connection that waits for our answer is not silent.
//! If all do, there are a few more places for liveness and readiness requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::sys::clock::Moment;

/// Places of `/livez` and `/readyz`.
const OF_HEALTH: usize = 16;

/// Every connection has this time for its first byte: in a rush of silent ones no client could be quick enough
/// otherwise. New ones wait meanwhile in the accept queue, some 1 300 of them a second.
const GRACE: Duration = Duration::from_millis(50);

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    General,
    /// `/livez` and `/readyz`.
    Health,
}

/// When a connection was last active.
#[derive(Debug)]
pub(super) struct Pulse {
    heard_ns: AtomicU64,
    /// Its answer is being made: the silence is ours.
    waits: AtomicBool,
}

impl Pulse {
    pub fn new() -> Arc<Pulse> {
        let heard_ns = AtomicU64::new(Moment::now().nanoseconds());
        Arc::new(Pulse { heard_ns, waits: AtomicBool::new(false) })
    }

    /// It sent or read something.
    pub fn beat(&self) {
        self.heard_ns.store(Moment::now().nanoseconds(), Relaxed);
    }

    pub fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Relaxed);
        self.beat();
    }
}

struct Guest {
    place: Place,
    since: Moment,
    pulse: Arc<Pulse>,
    task: AbortHandle,
}

/// For one door.
pub(super) struct Places {
    most: usize,
    guests: Vec<Guest>,
}

impl Places {
    pub fn new(most: usize) -> Places {
        Places { most, guests: Vec::new() }
    }

    /// A place for one more connection, which may push out another.
    pub async fn find(&mut self) -> Place {
        self.guests.retain(|guest| !guest.task.is_finished());
        if self.count(Place::General) < self.most || self.dismiss(Place::General).await {
            return Place::General;
        }
        if self.count(Place::Health) >= OF_HEALTH {
            self.dismiss(Place::Health).await;
        }
        Place::Health
    }

    pub fn take(&mut self, place: Place, pulse: Arc<Pulse>, task: AbortHandle) {
        self.guests.push(Guest { place, since: Moment::now(), pulse, task });
    }

    fn count(&self, place: Place) -> usize {
        self.guests.iter().filter(|guest| guest.place == place).count()
    }

    /// Closes the connection that has been silent for longest, once there is one that had its time; false if all wait
    /// for us.
    async fn dismiss(&mut self, place: Place) -> bool {
        loop {
            let is_silent = |it: &&Guest| it.place == place && !it.pulse.waits.load(Relaxed);
            let left = |it: &Guest| GRACE.saturating_sub(it.since.elapsed());
            let Some(left) = self.guests.iter().filter(is_silent).map(left).min() else {
                return false;
            };
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(left).await;
            self.guests.retain(|guest| !guest.task.is_finished());
        }
        let silent = self.guests.iter().enumerate().filter(|(_, guest)| {
            guest.place == place
                && !guest.pulse.waits.load(Relaxed)
                && guest.since.elapsed() >= GRACE
        });
        let longest = silent.min_by_key(|(_, guest)| guest.pulse.heard_ns.load(Relaxed));
        // None: it began to wait for us at this very moment.
        let Some((longest, _)) = longest else { return false };
        self.guests.swap_remove(longest).task.abort();
        true
    }
}
