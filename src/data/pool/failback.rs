//! `failback`: which tier serves once a lower one is up again. Pure: from what is known of each tier, and which one served,
//! to the one that serves. Time is passed in.

use std::time::{Duration, Instant};

use crate::config::Failback;

/// What is known of one tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierNow {
    pub number: u32,
    /// A backend of it takes new sessions.
    pub takes: bool,
    /// Since when a backend of it has been up without a pause, and takes sessions.
    pub up_since: Option<Instant>,
    /// An operator let it serve again.
    pub is_let: bool,
}

/// How long a tier waits that is up and could serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    ForAHand,
    For(Duration),
}

/// `tiers`: lowest first. `serving`: the one that served until now; `None`: no session was taken yet, so that nothing is
/// kept from the lowest. While none takes sessions, it stays as it was.
pub fn serves(
    failback: Failback,
    tiers: &[TierNow],
    serving: Option<u32>,
    now: Instant,
) -> Option<u32> {
    let lowest = tiers.iter().find(|tier| tier.takes).map(|tier| tier.number);
    let (Some(lowest), Some(before)) = (lowest, serving) else { return lowest.or(serving) };
    let takes = tiers.iter().any(|tier| tier.number == before && tier.takes);
    if !takes {
        return Some(lowest);
    }
    let lower = tiers.iter().take_while(|tier| tier.number < before);
    let returns = |tier: &&TierNow| tier.takes && wait(failback, tier, now).is_none();
    Some(lower.into_iter().find(returns).map_or(before, |tier| tier.number))
}

/// Why a lower tier than the one that serves waits; `None`: it need not.
pub fn wait(failback: Failback, tier: &TierNow, now: Instant) -> Option<Wait> {
    match failback {
        Failback::Immediate => None,
        _ if tier.is_let => None,
        Failback::Manual => Some(Wait::ForAHand),
        Failback::After(time) => {
            let up = tier.up_since.map(|since| now.saturating_duration_since(since));
            let left = time.saturating_sub(up.unwrap_or_default());
            (!left.is_zero()).then_some(Wait::For(left))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AFTER: Failback = Failback::After(Duration::from_secs(300));

    fn tier(number: u32, takes: bool, up_since: Option<Instant>, is_let: bool) -> TierNow {
        TierNow { number, takes, up_since, is_let }
    }

    #[test]
    fn the_tier_that_serves_goes_on_until_the_lower_one_may_return() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let both = |is_let| [tier(0, true, Some(start), is_let), tier(1, true, Some(start), false)];
        assert_eq!(serves(Failback::Immediate, &both(false), Some(1), start), Some(0));
        assert_eq!(serves(Failback::Manual, &both(false), Some(1), later(1 << 30)), Some(1));
        assert_eq!(serves(Failback::Manual, &both(true), Some(1), start), Some(0));
        assert_eq!(serves(AFTER, &both(false), Some(1), later(299)), Some(1));
        assert_eq!(serves(AFTER, &both(false), Some(1), later(300)), Some(0));
        assert_eq!(serves(AFTER, &both(true), Some(1), start), Some(0), "a hand may be quicker");
        for failback in [Failback::Immediate, Failback::Manual, AFTER] {
            assert_eq!(serves(failback, &both(false), Some(0), start), Some(0));
            assert_eq!(serves(failback, &both(false), None, start), Some(0), "no session yet");
            let mut tiers = both(false);
            tiers[1].takes = false;
            assert_eq!(
                serves(failback, &tiers, Some(1), start),
                Some(0),
                "none is up in the other"
            );
            tiers[0].takes = false;
            assert_eq!(serves(failback, &tiers, Some(1), start), Some(1), "as it was");
            assert_eq!(serves(failback, &both(false)[..1], Some(1), start), Some(0), "it is gone");
        }
    }

    #[test]
    fn of_several_lower_tiers_the_lowest_that_may_returns() {
        let start = Instant::now();
        let now = start + Duration::from_secs(400);
        let late = Some(start + Duration::from_secs(200));
        let tiers = [
            tier(0, true, late, false),
            tier(1, true, Some(start), false),
            tier(2, true, Some(start), false),
        ];
        assert_eq!(serves(AFTER, &tiers, Some(2), now), Some(1));
        assert_eq!(wait(AFTER, &tiers[0], now), Some(Wait::For(Duration::from_secs(100))));
        assert_eq!(wait(Failback::Manual, &tiers[0], now), Some(Wait::ForAHand));
    }

    proptest! {
        /// Whatever happened: as long as any tier takes sessions, the one that serves does; a tier above another that
        /// takes sessions serves only if it served before; and one that served gives way only to a lower one.
        #[test]
        fn somebody_serves_whenever_anybody_can(
            tiers in prop::collection::btree_map(0..6_u32, (any::<bool>(), any::<bool>(), 0..600_u64), 0..6),
            serving in prop::option::of(0..6_u32),
            which in 0..3_usize,
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(600);
            let failback = [Failback::Immediate, Failback::Manual, AFTER][which];
            let tiers: Vec<TierNow> = tiers.into_iter().map(|(number, (takes, is_let, since))| {
                let since = takes.then(|| start + Duration::from_secs(since));
                tier(number, takes, since, is_let)
            }).collect();
            let chosen = serves(failback, &tiers, serving, now);
            let takes = |number| tiers.iter().any(|it| Some(it.number) == number && it.takes);
            let lowest = tiers.iter().find(|it| it.takes).map(|it| it.number);
            if lowest.is_none() {
                prop_assert_eq!(chosen, serving);
                return Ok(());
            }
            prop_assert!(takes(chosen));
            if takes(serving) {
                prop_assert!(chosen <= serving);
                let kept_out = tiers.iter().filter(|it| it.takes && Some(it.number) < chosen);
                for it in kept_out {
                    prop_assert!(wait(failback, it, now).is_some());
                }
            } else {
                prop_assert_eq!(chosen, lowest);
            }
        }
    }
}
