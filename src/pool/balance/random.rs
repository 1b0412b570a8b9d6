//! Random by weight. In slow start a member accepts a draw with the probability (weight now / weight configured). If too
//! many draws hit members that are down, one pass over all draws exactly among those that are usable.

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
