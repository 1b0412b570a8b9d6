//! When the same question is asked again: when its answer expires, or soon after a failure. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

/// No name is asked for more often, whatever its TTL.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// And no TTL longer than this is used.
pub const LONGEST: Duration = Duration::from_secs(300);
/// Between two questions while there is no answer, however long that lasts.
const PATIENCE: Duration = Duration::from_secs(5);
/// So that names that were asked for together do not stay together: up to this share of the time is added.
const SPREAD: f64 = 0.1;

/// After an answer with this `ttl`. Each of `wanted` is what one pool wants; `None` = auto. `chance` is drawn from
/// 0…1.
pub fn after_success(ttl: Duration, wanted: &BTreeSet<Option<Duration>>, chance: f64) -> Duration {
    let auto = ttl.clamp(SHORTEST, LONGEST);
    let shortest = wanted.iter().map(|fixed| fixed.unwrap_or(auto)).min();
    spread(shortest.unwrap_or(auto), chance)
}

/// After this many failures in a row.
pub fn after_failure(count: u32, chance: f64) -> Duration {
    let doublings = count.saturating_sub(1).min(8);
    spread((SHORTEST * 2_u32.pow(doublings)).min(PATIENCE), chance)
}

fn spread(time: Duration, chance: f64) -> Duration {
    time + time.mul_f64(SPREAD * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_is_good_for_as_long_as_it_says_within_bounds() {
        let auto = BTreeSet::from([None]);
        for (ttl, expected) in [(0, 1), (1, 1), (30, 30), (300, 300), (u64::from(u32::MAX), 300)] {
            assert_eq!(after_success(seconds(ttl), &auto, 0.0), seconds(expected), "{ttl}");
        }
    }

    #[test]
    fn of_several_pools_the_hastiest_decides() {
        let wanted = BTreeSet::from([None, Some(seconds(7)), Some(seconds(3600))]);
        assert_eq!(after_success(seconds(60), &wanted, 0.0), seconds(7));
        assert_eq!(after_success(seconds(2), &wanted, 0.0), seconds(2));
        let fixed = BTreeSet::from([Some(seconds(3600))]);
        assert_eq!(after_success(seconds(2), &fixed, 0.0), seconds(3600));
    }

    #[test]
    fn who_does_not_answer_is_asked_less_and_less_often_but_never_forgotten() {
        let times: Vec<Duration> = (1..6).map(|count| after_failure(count, 0.0)).collect();
        assert_eq!(times, [1, 2, 4, 5, 5].map(seconds));
    }

    proptest! {
        #[test]
        fn no_question_comes_too_soon_or_never(ttl in any::<u32>(), count in any::<u32>(), chance in 0.0..1.0) {
            let auto = BTreeSet::from([None]);
            let next = after_success(seconds(ttl.into()), &auto, chance);
            prop_assert!((SHORTEST..=LONGEST.mul_f64(1.1)).contains(&next));
            let next = after_failure(count, chance);
            prop_assert!((SHORTEST..=PATIENCE.mul_f64(1.1)).contains(&next));
        }
    }
}
