//! The order of turns that are dealt by weight, as evenly as whole turns can be: used by round robin and to fill the
//! hash table.
//!
//! A member of weight w should have its k-th turn in the middle of the k-th of w equal parts of the round, at (k + ½)
//! / w; turns are dealt in the order of these times. Members of equal weight are one group, which has the turns of
//! all of them and gives them out in order. So the heap has at most one entry per different weight (256), however
//! many members there are, and a turn costs the logarithm of that. The classic smooth weighted round robin looks at
//! every member for every turn: 5 000 members of weights up to 256 have 640 000 turns, too many for that.
//!
//! Each member has exactly its weight in turns per round. The order depends only on the weights and the order of
//! members, never on chance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::pick::narrow;

/// An endless sequence of members, round after round; ends at once if no member has weight.
pub struct Turns {
    groups: Vec<Group>,
    next: BinaryHeap<Reverse<(u64, usize)>>,
}

struct Group {
    members: Vec<u32>,
    /// Of all its members together.
    weight: u64,
    turn: u64,
}

impl Group {
    /// The time of its turn: rounds, in 2^32ths.
    fn time(&self) -> u64 {
        ((2 * self.turn + 1) << 31) / self.weight
    }
}

impl Turns {
    pub fn new(weights: &[u32]) -> Turns {
        let mut by_weight: BTreeMap<Reverse<u32>, Vec<u32>> = BTreeMap::new();
        for (member, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            by_weight.entry(Reverse(*weight)).or_default().push(narrow(member));
        }
        let groups: Vec<Group> = by_weight
            .into_iter()
            .map(|(Reverse(weight), members)| {
                let weight = u64::from(weight) * u64::from(narrow(members.len()));
                Group { members, weight, turn: 0 }
            })
            .collect();
        let next = groups
            .iter()
            .enumerate()
            .map(|(index, group)| Reverse((group.time(), index)))
            .collect();
        Turns { groups, next }
    }
}

impl Iterator for Turns {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut first = self.next.peek_mut()?;
        let Reverse((_, index)) = *first;
        let group = &mut self.groups[index];
        let count = u64::from(narrow(group.members.len()));
        let member = group.members[usize::try_from(group.turn % count).ok()?];
        group.turn += 1;
        *first = Reverse((group.time(), index));
        Some(member)
    }
}

/// One whole round, with the weights in their lowest terms: at most 256 turns per member, four bytes each.
pub fn round(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
    let lowest: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
    let length = lowest.iter().copied().map(super::super::pick::widen).sum();
    Turns::new(&lowest).take(length).collect()
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn turns_are_spread_over_the_round() {
        assert_eq!(round(&[5, 1, 1]), [0, 1, 0, 0, 0, 2, 0]);
        assert_eq!(round(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(round(&[2, 4]), [1, 0, 1]);
        assert_eq!(round(&[0, 7]), [1]);
        assert!(round(&[0, 0]).is_empty());
        assert!(round(&[]).is_empty());
    }

    #[test]
    fn a_long_round_of_many_weights_is_complete() {
        let weights: Vec<u32> = (0..5_000).map(|member| member % 256 + 1).collect();
        let total: u32 = weights.iter().sum();
        assert_eq!(narrow(round(&weights).len()), total);
    }

    proptest! {
        #[test]
        fn every_member_has_its_weight_in_turns(weights in prop::collection::vec(0..=256_u32, 1..60)) {
            let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
            let mut counts = vec![0; weights.len()];
            for member in round(&weights) {
                counts[member as usize] += divisor;
            }
            prop_assert_eq!(counts, weights);
        }

        /// No member is ever further from its due share than half a turn and the rounding of the others.
        #[test]
        fn no_stretch_starves_or_floods(weights in prop::collection::vec(1..=256_u32, 2..20)) {
            let total: u32 = weights.iter().sum();
            let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
            let mut counts = vec![0_f64; weights.len()];
            for (turn, member) in round(&weights).into_iter().enumerate() {
                counts[member as usize] += 1.0;
                for (count, weight) in counts.iter().zip(&weights) {
                    let share = f64::from(*weight) / f64::from(total);
                    let due = (turn + 1) as f64 * share;
                    let bound = 1.5 + share * weights.len() as f64 / 2.0;
                    prop_assert!((count - due).abs() <= bound, "{count} of {due}, {weights:?}, {divisor}");
                }
            }
        }
    }
}
