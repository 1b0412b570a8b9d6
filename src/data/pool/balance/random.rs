//! Random by weight. In slow start a member accepts a draw with the probability (weight now / weight configured). If
//! too many draws hit members that are down, one pass over all members draws exactly among the usable ones.

use super::super::members::{Ask, Members};
use super::chance;
use super::draw::Draw;

pub struct Random {
    draw: Draw,
}

/// Draws before the pass over all.
const DRAWS: usize = 16;

/// Passes; each further one means that the drawn member was filled meanwhile.
const PASSES: usize = 4;

impl Random {
    pub fn build(members: &Members) -> Random {
        Random { draw: Draw::new(&members.configured_weights()) }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        for _ in 0..DRAWS {
            let Some(position) = self.draw.draw(chance::word()) else { break };
            if members.is_usable(position, ask)
                && chance::accepts(members.share(position, ask))
                && members.take(position, ask)
            {
                return Some(position);
            }
        }
        for _ in 0..PASSES {
            let position = draw_usable(members, ask)?;
            if members.take(position, ask) {
                return Some(position);
            }
        }
        None
    }
}

/// One pass: each usable member replaces the one drawn so far with the probability (its weight / all weight so far).
fn draw_usable(members: &Members, ask: &Ask) -> Option<usize> {
    let (mut total, mut drawn) = (0_u32, None);
    for position in (0..members.len()).filter(|position| members.is_usable(*position, ask)) {
        let weight = members.hot(position).weight(ask.weights);
        total = total.saturating_add(weight);
        if chance::accepts((weight, total)) {
            drawn = Some(position);
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{counts, pool_of, set_state};
    use crate::config::Balance::Random;

    /// Six standard deviations of a binomial count; a miss is one in five hundred million.
    fn assert_near(count: u32, picks: u32, share: f64) {
        let picks = f64::from(picks);
        let bound = 6.0 * (picks * share * (1.0 - share)).sqrt();
        let off = (f64::from(count) - picks * share).abs();
        assert!(off <= bound, "{count} of {picks}, due {share}");
    }

    #[test]
    fn shares_follow_weights() {
        let pool = pool_of(Random, &[1, 2, 0, 5, 12]);
        let counts = counts(&pool, 40_000);
        for (count, share) in counts.iter().zip([0.05, 0.1, 0.0, 0.25, 0.6]) {
            assert_near(*count, 40_000, share);
        }
    }

    #[test]
    fn shares_of_the_few_that_are_up_follow_weights() {
        let pool = pool_of(Random, &[[1; 500], [3; 500]].concat());
        (0..1_000).filter(|index| ![3, 700].contains(index)).for_each(|index| {
            set_state(&pool, index, BackendState::Down);
        });
        let counts = counts(&pool, 4_000);
        assert_near(counts[3], 4_000, 0.25);
        assert_near(counts[700], 4_000, 0.75);
    }
}
