//! `process.busy_poll`: for so long after its last turn a worker asks the kernel again and again for something to do,
//! instead of going to sleep. Sleeping and being woken is most of what a lone client waits for; the price is a
//! processor that is never idle while clients talk.

use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::border::plane::Plane;

#[derive(Default)]
pub struct Spin {
    /// Of sessions, since the start: all that matters is that it changes.
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
            // The runtime looks for events without waiting, since there is a task to be run.
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
