//! Two choices: two different members drawn by weight, and of these the one with fewer sessions per weight. In constant
//! time nearly as even as least connections. Among so few members that two draws would often miss the best one, all are
//! compared.

use std::sync::atomic::Ordering::Relaxed;

use super::super::members::{Ask, Members};
use super::chance;
use super::draw::Draw;

pub struct TwoChoices {
    draw: Draw,
}

/// Up to this many members all are compared.
const FEW: usize = 3;

/// Draws at most; some hit members that are down, or the same one again. Then all are compared.
const DRAWS: usize = 16;

impl TwoChoices {
    pub fn build(members: &Members) -> TwoChoices {
        TwoChoices { draw: Draw::new(&members.configured_weights()) }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        if members.len() > FEW
            && let Some((first, second)) = draw_two(&self.draw, members, ask)
        {
            let (lighter, other) = if is_lighter(members, ask, second, first) {
                (second, first)
            } else {
                (first, second)
            };
            if members.take(lighter, ask) {
                return Some(lighter);
            }
            if members.take(other, ask) {
                return Some(other);
            }
        }
        members.take_lightest(chance::below(members.len()), ask)
    }
}

/// Two different usable members, drawn by weight; none if `DRAWS` draws did not find them.
pub fn draw_two(draw: &Draw, members: &Members, ask: &Ask) -> Option<(usize, usize)> {
    let mut first = None;
    for _ in 0..DRAWS {
        let position = draw.draw(chance::word())?;
        if Some(position) == first || !members.is_usable(position, ask) {
            continue;
        }
        match first {
            Some(first) => return Some((first, position)),
            None => first = Some(position),
        }
    }
    None
}

/// Whether `this` has fewer sessions per weight than `that`, each counting the one to be placed.
fn is_lighter(members: &Members, ask: &Ask, this: usize, that: usize) -> bool {
    let load = |position: usize| {
        let hot = members.hot(position);
        let sessions = u64::from(hot.in_flight.load(Relaxed)) + 1;
        (sessions, u64::from(hot.weight(ask.weights)))
    };
    let ((this_sessions, this_weight), (that_sessions, that_weight)) = (load(this), load(that));
    this_sessions * that_weight < that_sessions * this_weight
}
