//! Two choices: two different members drawn by weight, and of these the one with fewer sessions per weight. In
//! constant time, nearly as even as least connections. Among so few members that two draws would often miss the best
//! one, all are compared.

use super::super::members::{Ask, Members};
use super::chance;
use super::draw::Draw;
use super::least_connections::LeastConnections;

pub struct TwoChoices {
    draw: Draw,
    /// For few members, and for when draws find no member.
    all: LeastConnections,
}

/// Up to this many members all are compared.
const FEW: usize = 3;

/// The most draws; some hit members that are down, or the same one again. Then all are compared.
const DRAWS: usize = 16;

impl TwoChoices {
    pub fn build(members: &Members) -> TwoChoices {
        let draw = Draw::new(&members.configured_weights());
        TwoChoices { draw, all: LeastConnections::default() }
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
            if members.take_slot(lighter) {
                return Some(lighter);
            }
            if members.take_slot(other) {
                return Some(other);
            }
        }
        self.all.pick(members, ask)
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
        let load = hot.load();
        let sessions = u64::from(load.sessions()) + 1;
        (sessions, u64::from(hot.weight_of(load, ask.weights)))
    };
    let ((this_sessions, this_weight), (that_sessions, that_weight)) = (load(this), load(that));
    this_sessions * that_weight < that_sessions * this_weight
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{counts, pick, pool_of, sessions, set_state};
    use crate::config::Balance::TwoChoices;

    #[test]
    fn held_sessions_are_nearly_even() {
        let pool = pool_of(TwoChoices, &[1; 100]);
        let _permits: Vec<_> = (0..10_000).map(|number| pick(&pool, number).unwrap()).collect();
        let counts = sessions(&pool);
        // ln ln 100 / ln 2 is 2.2; random picks would differ by 30.
        assert!(counts.iter().all(|count| (88..=112).contains(count)), "{counts:?}");
    }

    #[test]
    fn held_sessions_follow_weights() {
        let weights: Vec<u32> = (0..50).map(|number| 1 + number % 5).collect();
        let pool = pool_of(TwoChoices, &weights);
        let _permits: Vec<_> = (0..15_000).map(|number| pick(&pool, number).unwrap()).collect();
        for (count, weight) in sessions(&pool).into_iter().zip(weights) {
            let due = 100 * weight;
            assert!(count.abs_diff(due) <= 15 * weight, "{count} of {due}");
        }
    }

    #[test]
    fn of_three_the_lightest_is_always_picked() {
        let pool = pool_of(TwoChoices, &[1, 1, 1]);
        let _permits: Vec<_> = (0..300).map(|number| pick(&pool, number).unwrap()).collect();
        assert_eq!(sessions(&pool), [100; 3]);
    }

    #[test]
    fn the_few_that_are_up_are_found() {
        let pool = pool_of(TwoChoices, &[1; 1_000]);
        (10..1_000).for_each(|index| assert!(set_state(&pool, index, BackendState::Down)));
        assert!(counts(&pool, 1_000)[..10].iter().all(|count| *count > 40));
    }
}
