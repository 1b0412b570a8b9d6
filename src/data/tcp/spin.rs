//! `process.busy_poll`: for this time after its last turn a worker asks the kernel again and again for events,
//! instead of going to sleep. Sleeping and waking is most of a lone client's latency; the price is a CPU that is
//! never idle while clients send.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::border::plane::Plane;

#[derive(Default)]
pub struct Spin {
    /// Turns of sessions since the start: it only matters that the number changes.
    turns: Cell<u64>,
    is_spinning: Cell<bool>,
    begin: Notify,
}

impl Spin {
    /// A session of this worker has its turn.
    pub fn turn(&self, plane: &Plane) {
        self.turns.set(self.turns.get().wrapping_add(1));
        if !self.is_spinning.get() && plane.busy_poll_ns.load(Relaxed) > 0 {
            self.is_spinning.set(true);
            self.begin.notify_one();
        }
    }
}

/// Runs for the life of the worker; costs nothing while `busy_poll` is `none`.
pub async fn run(spin: &Spin, plane: &Plane) {
    loop {
        spin.begin.notified().await;
        let (mut turns, mut since) = (spin.turns.get(), Instant::now());
        loop {
            // The runtime polls for events without waiting, because there is a task to run.
            tokio::task::yield_now().await;
            let now = Instant::now();
            if turns != spin.turns.get() {
                (turns, since) = (spin.turns.get(), now);
            } else if now - since >= Duration::from_nanos(plane.busy_poll_ns.load(Relaxed)) {
                break;
            }
        }
        spin.is_spinning.set(false);
    }
}
