//! Round robin by weight: one cursor, shared by all workers, over a schedule of one whole round, so the shares are
//! exact over all workers together.
//!
//! Each step of the cursor is claimed by exactly one pick. If the member of a turn is down or full, the pick claims
//! the next turn, so the others keep their exact shares among themselves. In slow start a member accepts its turn
//! with the probability (weight now / weight configured).
//!
//! The schedule has four bytes per turn and at most 256 turns per member: at most 5 MiB for 5 000 members, 35 MiB for
//! 35 000, and one turn per member when all weights are equal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::members::{Ask, Members};
use super::super::pick::widen;
use super::{chance, turns};

pub struct RoundRobin {
    schedule: Arc<Schedule>,
    /// Turns claimed ever.
    cursor: AtomicU64,
}

struct Schedule {
    weights: Vec<u32>,
    turns: Vec<u32>,
}

/// Turns skipped before one check of all members tells whether going on makes sense.
const STEPS_BEFORE_LOOK: usize = 32;

/// The most turns that are skipped, so that a pick is bounded: then the first free member from there on.
const STEPS: usize = 4_096;

impl RoundRobin {
    pub fn build(members: &Members, previous: Option<&RoundRobin>) -> RoundRobin {
        let weights = members.configured_weights();
        // After a reload the round goes on where it was, so that the reload does not favour the first members.
        let cursor = previous.map_or(0, |previous| previous.cursor.load(Relaxed));
        let schedule = match previous {
            Some(previous) if previous.schedule.weights == weights => {
                Arc::clone(&previous.schedule)
            }
            _ => Arc::new(Schedule { turns: turns::round(&weights), weights }),
        };
        RoundRobin { schedule, cursor: AtomicU64::new(cursor) }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let turns = &self.schedule.turns;
        let mut position = 0;
        for step in 0..turns.len().min(STEPS) {
            if step == STEPS_BEFORE_LOOK && !members.has_usable(ask) {
                return None;
            }
            position = self.claim(turns)?;
            if members.is_usable(position, ask)
                && chance::accepts(members.share(position, ask))
                && members.take(position, ask)
            {
                return Some(position);
            }
        }
        members.take_first(position, ask).ok()
    }

    /// The next turn, which no other pick gets.
    fn claim(&self, turns: &[u32]) -> Option<usize> {
        let length = u64::try_from(turns.len()).ok().filter(|length| *length > 0)?;
        let turn = self.cursor.fetch_add(1, Relaxed) % length;
        Some(widen(turns[usize::try_from(turn).ok()?]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{build, config_of, counts, pick, pool_of, set_state};
    use super::super::super::{Pool, tests};
    use crate::config::Balance::RoundRobin;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    proptest! {
        #[test]
        fn shares_are_exact_over_whole_rounds(weights in prop::collection::vec(0..=256_u32, 1..20)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let pool = pool_of(RoundRobin, &weights);
            prop_assert_eq!(counts(&pool, weights.iter().sum()), weights);
        }

        #[test]
        fn those_that_are_up_keep_exact_shares_among_themselves(
            members in prop::collection::vec((1..=20_u32, any::<bool>()), 2..12)
        ) {
            prop_assume!(members.iter().any(|(_, is_up)| *is_up));
            let pool = pool_of(RoundRobin, &members.iter().map(|(weight, _)| *weight).collect::<Vec<_>>());
            let mut expected = Vec::new();
            for (index, (weight, is_up)) in members.iter().enumerate() {
                if !is_up {
                    set_state(&pool, index, BackendState::Down);
                }
                expected.push(if *is_up { *weight } else { 0 });
            }
            let divisor = |weights: &[u32]| weights.iter().fold(0, |a, b| gcd(a, *b));
            let divisor = divisor(&members.iter().map(|(weight, _)| *weight).collect::<Vec<_>>());
            let picks = expected.iter().sum::<u32>() / divisor;
            let counts: Vec<u32> = counts(&pool, picks).iter().map(|count| count * divisor).collect();
            prop_assert_eq!(counts, expected);
        }
    }

    fn gcd(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { gcd(b, a % b) }
    }

    #[test]
    fn shares_are_exact_over_four_threads() {
        let pool = pool_of(RoundRobin, &[5, 3, 2, 1]);
        let count = |picks: u32| {
            let mut counts = [0_u32; 4];
            (0..picks).for_each(|number| counts[pick(&pool, number).unwrap().index as usize] += 1);
            counts
        };
        let totals = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| count(11 * 500))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .fold([0; 4], |sum, counts| std::array::from_fn(|index| sum[index] + counts[index]))
        });
        assert_eq!(totals, [10_000, 6_000, 4_000, 2_000]);
    }

    #[test]
    fn one_of_many_that_is_up_is_found() {
        let pool = pool_of(RoundRobin, &[256; 3_000].map(|weight: u32| weight));
        (0..3_000).filter(|index| *index != 1_234).for_each(|index| {
            set_state(&pool, index, BackendState::Down);
        });
        assert_eq!(counts(&pool, 10)[1_234], 10);
    }

    #[test]
    fn slow_start_takes_its_part_of_the_turns() {
        let mut config = config_of(RoundRobin, &[1, 1]);
        config.slow_start = Some(Duration::from_secs(1_000_000));
        let pool = build(config);
        set_state(&pool, 0, BackendState::Down);
        set_state(&pool, 0, BackendState::Up);
        let share = f64::from(counts(&pool, 20_000)[0]) / 20_000.0;
        // A tenth of its turns: 0.1 / 1.1 of all.
        assert!((share - 0.0909).abs() < 0.015, "{share}");
    }

    #[test]
    fn a_reload_goes_on_in_the_round() {
        let config = config_of(RoundRobin, &[1; 4]);
        let before = build(config.clone());
        assert_eq!([0, 1].map(|number| pick(&before, number).unwrap().index), [0, 1]);
        let after = Pool::build(Arc::new(config), Some(&before), 2);
        assert_eq!([2, 3].map(|number| tests::pick(&after, number).unwrap().index), [2, 3]);
    }
}
