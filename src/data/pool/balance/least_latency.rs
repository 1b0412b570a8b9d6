//! Least latency: the smallest cost × (sessions + 1) / weight, where cost is the moving average of connect and
//! first-byte times (`latency.rs`). Few members are all compared; of many, the better of two drawn by weight.
//!
//! A member without any sample costs nothing while it has no session, so that it is tried at once, and a second per
//! session while it has some, so that it is not flooded before the first answer has arrived. If no member has
//! samples, this is least connections.

use super::super::latency::milliseconds;
use super::super::members::{Ask, Members};
use super::draw::Draw;
use super::least_connections::{LeastConnections, Rotation};
use super::two_choices::draw_two;

pub struct LeastLatency {
    draw: Draw,
    /// For equals among few members.
    rotation: Rotation,
    /// For when draws find no member.
    all: LeastConnections,
}

/// Up to this many members all are compared.
const FEW: usize = 8;

/// In microseconds: for a member that has sessions but no sample.
const UNKNOWN_COST: f64 = 1e6;

impl LeastLatency {
    pub fn build(members: &Members) -> LeastLatency {
        LeastLatency {
            draw: Draw::new(&members.configured_weights()),
            rotation: Rotation::default(),
            all: LeastConnections::default(),
        }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let time = milliseconds(ask.now);
        let score = |position| score(members, ask, position, time);
        let are_few = members.len() <= FEW;
        let chosen = if are_few {
            cheapest(members, ask, self.rotation.start(members), score)
        } else {
            draw_two(&self.draw, members, ask).map(|(first, second)| {
                let second_is_cheaper = score(second).is_below(score(first));
                if second_is_cheaper { second } else { first }
            })
        };
        if let Some(position) = chosen
            && members.take_slot(position)
        {
            // A word that all workers write; with many members it is not read.
            if are_few {
                self.rotation.picked(position);
            }
            return Some(position);
        }
        // Filled meanwhile, or nearly all of many are down: by sessions alone.
        self.all.pick(members, ask)
    }
}

/// Among equals, the first from `start` on.
fn cheapest(
    members: &Members,
    ask: &Ask,
    start: usize,
    score: impl Fn(usize) -> Score,
) -> Option<usize> {
    let mut best: Option<(Score, usize)> = None;
    for position in (start..members.len()).chain(0..start) {
        if members.is_usable(position, ask) {
            let score = score(position);
            if best.is_none_or(|(least, _)| score.is_below(least)) {
                best = Some((score, position));
            }
        }
    }
    best.map(|(_, position)| position)
}

/// A fraction, compared by cross-multiplication: this saves two divisions.
#[derive(Clone, Copy)]
struct Score {
    cost: f64,
    weight: f64,
}

impl Score {
    fn is_below(self, other: Score) -> bool {
        self.cost * other.weight < other.cost * self.weight
    }
}

fn score(members: &Members, ask: &Ask, position: usize, time: u32) -> Score {
    let hot = members.hot(position);
    let load = hot.load();
    let sessions = load.sessions();
    let cost = match members.latency(position).microseconds(time) {
        Some(cost) => cost,
        None if sessions == 0 => 0.0,
        None => UNKNOWN_COST,
    };
    Score {
        cost: cost * (f64::from(sessions) + 1.0),
        weight: f64::from(hot.weight_of(load, ask.weights).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{client, counts, pick, pool_of, sessions};
    use super::super::super::{Pool, Tried};
    use crate::config::Balance::LeastLatency;
    use std::time::{Duration, Instant};

    fn observe(pool: &Pool, milliseconds: &[u64], now: Instant) {
        for (backend, sample) in pool.backends.iter().zip(milliseconds) {
            backend.observe_latency(Duration::from_millis(*sample), now);
        }
    }

    #[test]
    fn the_quickest_is_picked_until_its_sessions_outweigh_that() {
        let pool = pool_of(LeastLatency, &[1, 1, 1]);
        let now = Instant::now();
        observe(&pool, &[40, 10, 21], now);
        let _permits: Vec<_> = (0..7)
            .map(|number| pool.pick(&client(number), &Tried::default(), now).unwrap())
            .collect();
        assert_eq!(sessions(&pool), [1, 4, 2]);
    }

    #[test]
    fn a_new_one_is_tried_but_not_flooded() {
        let pool = pool_of(LeastLatency, &[1, 1, 1]);
        let now = Instant::now();
        observe(&pool, &[1, 1], now);
        let _permits: Vec<_> = (0..20).map(|number| pick(&pool, number).unwrap()).collect();
        assert_eq!(sessions(&pool)[2], 1);
    }

    #[test]
    fn a_slow_one_is_tried_again_after_silence() {
        let pool = pool_of(LeastLatency, &[1, 1]);
        let now = Instant::now();
        observe(&pool, &[500, 1], now);
        let later = now + Duration::from_secs(120);
        pool.backends[1].observe_latency(Duration::from_millis(1), later);
        assert_eq!(pool.pick(&client(1), &Tried::default(), later).unwrap().index, 0);
    }

    #[test]
    fn without_samples_held_sessions_follow_weights() {
        let pool = pool_of(LeastLatency, &[1, 2, 3]);
        let _permits: Vec<_> = (0..60).map(|number| pick(&pool, number).unwrap()).collect();
        for (count, due) in sessions(&pool).into_iter().zip([10_u32, 20, 30]) {
            assert!(count.abs_diff(due) <= 1, "{count} of {due}");
        }
    }

    #[test]
    fn of_many_the_slow_half_is_mostly_left_alone() {
        let pool = pool_of(LeastLatency, &[1; 40]);
        let samples: Vec<u64> = (0..40).map(|number| if number < 20 { 1 } else { 1_000 }).collect();
        observe(&pool, &samples, Instant::now());
        let counts = counts(&pool, 10_000);
        let slow: u32 = counts[20..].iter().sum();
        // Only when both draws are slow: a quarter less a little.
        assert!((2_000..2_900).contains(&slow), "{slow}");
    }
}
