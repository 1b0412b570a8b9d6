//! A rate with a burst, in one word of memory and without a lock: the generic cell rate algorithm. Knows no clock:
//! time is passed in. Asked for every new session, every new flow and every datagram that a rate is set for.
//!
//! GCRA in its form of virtual scheduling (ATM Forum, Traffic Management Specification 4.0, af-tm-0056.000, section
//! 4.4.2; ITU-T I.371, annex A) keeps one figure, the theoretical arrival time TAT: when the next one would be due if
//! everybody came exactly at the rate. Who comes early lives off the burst:
//!
//! ```text
//!   TAT ≤ now                 the bucket is full: count from now on
//!   TAT − now ≤ burst − n     n may pass: TAT += n (all in units of 1 s / per_second)
//!   else                      only as many as there is room for
//! ```
//!
//! TAT is kept in nanoseconds, so that it means the same after a reload that changes the rate, but it is always a
//! moment at which a place falls due, k s / per_second rounded up to the next nanosecond. At no more than 10⁹ places a
//! second two of them never share a nanosecond, so k is found again exactly: nothing is lost to rounding, however
//! often and at however odd a rate places are taken.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Rate;

/// As many places fall due in a second at most; a higher `per_second` counts as this.
const MAX_PER_SECOND: u64 = SECOND;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// What one rate has given out so far. New, it is full.
#[derive(Debug, Default)]
pub struct Bucket {
    /// TAT, in nanoseconds of the caller's clock.
    due_ns: AtomicU64,
}

impl Bucket {
    pub fn new() -> Bucket {
        Bucket::default()
    }

    /// How many of `count` may pass now: all, some or none. Over any time t no more than `burst` plus t × `per_second`,
    /// rounded up, pass, also if many threads ask at once.
    ///
    /// `now_ns`: nanoseconds since a moment that is the same for every call. A thread whose clock is behind gets no
    /// more than one that is on time. `per_second` and `burst`: 1 to 10⁹; with a nought nobody passes. After a reload
    /// that lowers the burst, what was given out before is worked off first.
    pub fn take(&self, rate: Rate, count: u64, now_ns: u64) -> u64 {
        let per_second = rate.per_second.min(MAX_PER_SECOND);
        if per_second == 0 {
            return 0;
        }
        let now = places_until(now_ns, per_second);
        let mut due_ns = self.due_ns.load(Relaxed);
        // Fails only if another thread has taken places meanwhile. Nothing but this word is ordered by it.
        loop {
            let first = places_until(due_ns, per_second).max(now);
            let granted = count.min(rate.burst.saturating_sub(first - now));
            if granted == 0 {
                return 0;
            }
            let next_ns = due(first.saturating_add(granted), per_second);
            match self.due_ns.compare_exchange_weak(due_ns, next_ns, Relaxed, Relaxed) {
                Ok(_) => return granted,
                Err(other) => due_ns = other,
            }
        }
    }

    /// Whether it is full again, and so the same as a new one, whatever the rate.
    pub fn is_full(&self, now_ns: u64) -> bool {
        self.due_ns.load(Relaxed) <= now_ns
    }
}

/// How many places have fallen due until then. Whole seconds apart, because the product of both would not fit.
fn places_until(ns: u64, per_second: u64) -> u64 {
    (ns / SECOND) * per_second + (ns % SECOND) * per_second / SECOND
}

/// When that place falls due, rounded up; in some 580 years from the clock's beginning, never.
fn due(place: u64, per_second: u64) -> u64 {
    let (seconds, rest) = (place / per_second, place % per_second);
    seconds.saturating_mul(SECOND).saturating_add((rest * SECOND).div_ceil(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    fn rate(per_second: u64, burst: u64) -> Rate {
        Rate { per_second, burst }
    }

    #[test]
    fn the_burst_at_once_and_then_the_rate() {
        let (bucket, rate) = (Bucket::new(), rate(100, 5));
        let passed = |now_ms: u64| (0..20).map(|_| bucket.take(rate, 1, now_ms * MS)).sum::<u64>();
        assert_eq!(passed(1_000), 5);
        // While the clock stands still, nobody else.
        assert_eq!(passed(1_000), 0);
        assert_eq!(passed(1_009), 0);
        assert_eq!(passed(1_010), 1);
        assert_eq!(passed(1_040), 3);
        // However long nobody came, never more than the burst.
        assert_eq!(passed(900_000), 5);
    }

    #[test]
    fn of_many_at_once_as_many_pass_as_there_is_room_for() {
        let (bucket, rate) = (Bucket::new(), rate(10, 8));
        assert_eq!(bucket.take(rate, 5, 0), 5);
        assert_eq!(bucket.take(rate, 5, 0), 3);
        assert_eq!(bucket.take(rate, 5, 0), 0);
        assert_eq!(bucket.take(rate, 5, 250 * MS), 2);
        assert_eq!(bucket.take(rate, 0, 10_000 * MS), 0);
    }

    #[test]
    fn odd_rates_are_met_exactly_in_the_long_run() {
        for per_second in [1, 3, 7, 999, 333_333_333, 700_000_001, 999_999_999, 1_000_000_000] {
            let (bucket, rate) = (Bucket::new(), rate(per_second, per_second));
            bucket.take(rate, per_second, 0);
            // Asked ever again at moments that fit no grid, for more than there can be.
            let passed: u64 = (1..=10_000).map(|turn| bucket.take(rate, u64::MAX, turn * MS)).sum();
            assert_eq!(passed, 10 * per_second);
        }
        // One by one as well, at a rate whose distance is no whole number of nanoseconds.
        let (bucket, rate) = (Bucket::new(), rate(700_000_000, 1));
        let passed: u64 = (0..1_000_000).map(|ns| bucket.take(rate, 1, ns)).sum();
        assert!((700_000..=700_001).contains(&passed), "{passed}");
    }

    #[test]
    fn it_is_full_when_all_is_paid_back() {
        let bucket = Bucket::new();
        assert!(bucket.is_full(0));
        assert_eq!(bucket.take(rate(3, 3), 3, 0), 3);
        assert!(!bucket.is_full(999_999_999));
        assert!(bucket.is_full(1_000_000_000));
    }

    #[test]
    fn nothing_overflows_at_the_extremes() {
        const MOST: u64 = 1_000_000_000;
        for (per_second, burst) in [(MOST, MOST), (1, MOST), (MOST, 1), (u64::MAX, u64::MAX)] {
            for now_ns in [0, 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
                let bucket = Bucket::new();
                assert_eq!(bucket.take(rate(per_second, burst), u64::MAX, now_ns), burst);
            }
        }
        let bucket = Bucket::new();
        assert_eq!(bucket.take(rate(1, MOST), MOST, 0), MOST);
        assert_eq!(bucket.take(rate(1, MOST), 1, 0), 0);
        assert_eq!(bucket.take(rate(1, MOST), 9, 2_000_000_000), 2);
        assert_eq!(Bucket::new().take(rate(0, 5), 1, 0), 0);
        assert_eq!(Bucket::new().take(rate(5, 0), 1, 0), 0);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let (bucket, rate) = (Bucket::new(), rate(1_000, 10_000));
        let takers = |now_ns: u64| {
            std::thread::scope(|scope| {
                let taker = |count| {
                    let bucket = &bucket;
                    move || (0..20_000).map(|_| bucket.take(rate, count, now_ns)).sum::<u64>()
                };
                let takers: Vec<_> = (1..5).map(|count| scope.spawn(taker(count))).collect();
                takers.into_iter().map(|taker| taker.join().unwrap()).sum::<u64>()
            })
        };
        assert_eq!(takers(5 * MS), 10_000);
        assert_eq!(takers(2_005 * MS), 2_000);
    }

    proptest! {
        /// Against the plain bucket that holds a whole number of tokens and gets one at each k / per_second.
        #[test]
        fn it_is_a_bucket_of_tokens(
            per_second in prop_oneof![1_u64..20, 1_u64..=1_000_000_000],
            burst in 1_u64..40,
            steps in prop::collection::vec((0_u64..200_000_000, 0_u64..10), 1..60),
        ) {
            let (bucket, rate) = (Bucket::new(), rate(per_second, burst));
            let (mut now, mut tokens, mut seen) = (0_u64, u128::from(burst), 0_u128);
            for (step, count) in steps {
                now += step;
                let fallen_due = u128::from(now) * u128::from(per_second) / 1_000_000_000;
                tokens = (tokens + fallen_due - seen).min(burst.into());
                seen = fallen_due;
                let granted = u128::from(count).min(tokens);
                tokens -= granted;
                prop_assert_eq!(u128::from(bucket.take(rate, count, now)), granted);
            }
        }
    }
}
