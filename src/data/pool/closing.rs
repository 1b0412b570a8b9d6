//! Closing the sessions of a backend that is lost: how fast, until when, and whether it is still wanted. The control plane
//! makes one for each loss; whoever has a part in it holds it, and API and page show it for as long as anybody does.
//!
//! The pace is common to all workers. A few hundred sessions end at once: that is what `reset` is for. Of ten thousand the
//! last ends a second later, so that neither the workers stop for it nor ten thousand clients return in one millisecond.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use crate::config::Rate;
use crate::data::limits::Bucket;

/// So many at once, and so many in each second after that.
pub const PACE: Rate = Rate { per_second: 10_000, burst: 512 };

#[derive(Debug)]
pub struct Closing {
    /// The word of `on_down`.
    pub policy: &'static str,
    /// Until when sessions may stay; `None`: all of them are being closed now.
    pub until: Option<SystemTime>,
    given: Bucket,
    is_called_off: AtomicBool,
}

impl Closing {
    pub fn new(policy: &'static str, until: Option<SystemTime>) -> Closing {
        Closing { policy, until, given: Bucket::new(), is_called_off: AtomicBool::new(false) }
    }

    /// How many of `count` sessions may be closed now: all, some or none. `now_ns`: of the monotonic clock.
    pub fn take(&self, count: u64, now_ns: u64) -> u64 {
        self.given.take(PACE, count, now_ns)
    }

    /// Those that are still open stay.
    pub fn call_off(&self) {
        self.is_called_off.store(true, Relaxed);
    }

    pub fn is_called_off(&self) -> bool {
        self.is_called_off.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What workers that ask every ten milliseconds get, by the second in which they get it.
    #[test]
    fn a_few_hundred_end_at_once_and_ten_thousand_within_a_second() {
        let closing = Closing::new("reset", None);
        let begun_ns = 7_000_000_000;
        assert_eq!(closing.take(300, begun_ns), 300);
        assert_eq!(closing.take(1_000, begun_ns), 212, "the burst is common to all workers");
        assert_eq!(closing.take(1, begun_ns), 0);
        let mut given = 512;
        for turn in 1..=100 {
            given += closing.take(5_000, begun_ns + turn * 10_000_000);
        }
        assert_eq!(given, 10_512);
    }

    /// With `idle_first` hardly any may end for long; what was not used until then is no more than a burst.
    #[test]
    fn what_was_not_used_does_not_pile_up() {
        let closing = Closing::new("idle_first", None);
        assert_eq!(closing.take(1, 1), 1);
        assert_eq!(closing.take(100_000, 30_000_000_000), 512);
    }
}
