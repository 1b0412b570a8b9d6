//! A rate with a burst, in one word of memory and without a lock: the generic cell rate algorithm. Knows no clock:
//! time is passed in. Used for every new session, new flow and datagram for which a rate is set.
//!
//! GCRA in its form of virtual scheduling (ATM Forum, Traffic Management Specification 4.0, af-tm-0056.000, section
//! 4.4.2; ITU-T I.371, annex A) keeps one figure, the theoretical arrival time TAT: when the next arrival would be
//! due if all came exactly at the rate. Early arrivals use up the burst:
//!
//! ```text
//!   TAT ≤ now                 the bucket is full: count from now on
//!   TAT − now ≤ burst − n     n may pass: TAT += n (counted in places; one falls due each 1 s / per_second)
//!   else                      only as many as there is room for
//! ```
//!
//! TAT is kept in nanoseconds, so that it means the same after a reload that changes the rate. Most rates have no whole
//! number of those between two arrivals, so they are counted in shares: a place is cut into as many equal shares as make
//! at most 10⁹ of them fall due in a second, and TAT is always the moment at which one does, k s / shares a second rounded
//! up to the next nanosecond. Two of them never have one nanosecond, so k is found again exactly: nothing is lost to
//! rounding, however often and at however odd a rate places are taken, and "now" is right to 2 ns.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::config::Rate;

/// The most shares that fall due in a second, and so the most places; a higher `per_second` counts as this.
const MAX_PER_SECOND: u64 = SECOND;

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// What one rate has given out so far. A new one is full.
#[derive(Debug, Default)]
pub struct Bucket {
    /// TAT, in nanoseconds of the caller's clock.
    due_ns: AtomicU64,
}

impl Bucket {
    pub fn new() -> Bucket {
        Bucket::default()
    }

    /// How many of `count` may pass now: all, some or none. Over any time t no more than `burst` plus (t + 2 ns) ×
    /// `per_second` pass, also if many threads ask at once.
    ///
    /// `now_ns`: nanoseconds since a moment that is the same for every call. A thread whose clock is behind gets no
    /// more than one that is on time. `per_second` and `burst`: 1 to 10⁹; with 0 nothing passes. After a reload that
    /// lowers the burst, what was given out before is worked off first.
    pub fn take(&self, rate: Rate, count: u64, now_ns: u64) -> u64 {
        let per_second = rate.per_second.min(MAX_PER_SECOND);
        if per_second == 0 {
            return 0;
        }
        let share_count = MAX_PER_SECOND / per_second;
        let shares_a_second = share_count * per_second;
        let burst = rate.burst.saturating_mul(share_count);
        let now = shares_until(now_ns, shares_a_second);
        let mut due_ns = self.due_ns.load(Relaxed);
        // Fails only if another thread has taken places meanwhile. No other memory is ordered by this word.
        loop {
            let first = shares_until(due_ns, shares_a_second).max(now);
            let granted = count.min(burst.saturating_sub(first - now) / share_count);
            if granted == 0 {
                return 0;
            }
            let next_ns = due(first.saturating_add(granted * share_count), shares_a_second);
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

/// How many shares have fallen due until then. Whole seconds apart, because the product of both would not fit.
fn shares_until(ns: u64, a_second: u64) -> u64 {
    (ns / SECOND) * a_second + (ns % SECOND) * a_second / SECOND
}

/// When that share falls due, rounded up; in some 580 years from the clock's beginning, never.
fn due(share: u64, a_second: u64) -> u64 {
    let (seconds, rest) = (share / a_second, share % a_second);
    seconds.saturating_mul(SECOND).saturating_add((rest * SECOND).div_ceil(a_second))
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
        // While the clock stands still, nothing more passes.
        assert_eq!(passed(1_000), 0);
        assert_eq!(passed(1_009), 0);
        assert_eq!(passed(1_010), 1);
        assert_eq!(passed(1_040), 3);
        // However long nothing came, never more than the burst.
        assert_eq!(passed(900_000), 5);
    }

    /// Whenever the burst was taken, the next one comes a whole distance later.
    #[test]
    fn a_place_comes_back_one_distance_after_it_was_taken() {
        for begun in [0, 1, 333, 999_999_999, 1_000_000_007, 123_456_789_012_345] {
            for (per_second, distance) in [(1, 1_000_000_000), (3, 333_333_334), (50, 20_000_000)] {
                let (bucket, rate) = (Bucket::new(), rate(per_second, 2));
                assert_eq!(bucket.take(rate, 5, begun), 2);
                assert_eq!(bucket.take(rate, 5, begun + distance - 3), 0);
                assert_eq!(bucket.take(rate, 5, begun + distance + 2), 1);
            }
        }
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
            // Asked again and again at moments that fit no grid, for more than there can be.
            let passed: u64 = (1..=10_000).map(|turn| bucket.take(rate, u64::MAX, turn * MS)).sum();
            assert_eq!(passed, 10 * per_second);
        }
        // One by one as well, at a rate whose distance is not a whole number of nanoseconds.
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

    /// The numbers by which a second can be cut into whole nanoseconds: there shares are nanoseconds, and nothing is
    /// rounded at all.
    fn whole_rate() -> impl Strategy<Value = u64> {
        (0_u32..10, 0_u32..10).prop_map(|(twos, fives)| 2_u64.pow(twos) * 5_u64.pow(fives))
    }

    /// The moment of the call, and its count.
    fn any_steps() -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::vec((prop_oneof![0_u64..50, 0_u64..200_000_000], 0_u64..10), 1..60)
    }

    proptest! {
        /// Against a plain bucket that fills steadily, in 10⁻⁹ of a token.
        #[test]
        fn it_is_a_bucket_of_tokens(
            per_second in whole_rate(),
            burst in 1_u64..40,
            steps in any_steps(),
        ) {
            let (bucket, rate) = (Bucket::new(), rate(per_second, burst));
            let full = u128::from(burst) * 1_000_000_000;
            let (mut now, mut level) = (0_u64, full);
            for (step, count) in steps {
                now += step;
                level = (level + u128::from(step) * u128::from(per_second)).min(full);
                let granted = u128::from(count).min(level / 1_000_000_000);
                level -= granted * 1_000_000_000;
                prop_assert_eq!(u128::from(bucket.take(rate, count, now)), granted);
            }
        }

        /// At any rate, and over any time: no more passes than was promised.
        #[test]
        fn no_time_sees_more_than_the_burst_and_the_rate(
            per_second in 1_u64..=1_000_000_000,
            burst in 1_u64..40,
            steps in any_steps(),
        ) {
            let (bucket, rate) = (Bucket::new(), rate(per_second, burst));
            let mut now = 0_u64;
            let mut passed = Vec::new();
            for (step, count) in steps {
                now += step;
                passed.push((now, bucket.take(rate, count, now)));
            }
            for first in 0..passed.len() {
                let mut sum = 0;
                for (at, granted) in &passed[first..] {
                    sum += granted;
                    let time = u128::from(at - passed[first].0) + 2;
                    let most = u128::from(burst) + time * u128::from(per_second) / 1_000_000_000;
                    prop_assert!(u128::from(sum) <= most, "{} over {} ns", sum, time);
                }
            }
        }
    }
}
