//! Least latency: the smallest cost × (sessions + 1) / weight, where cost is the moving average of connect and first-byte
//! times (`latency.rs`). Few members are all compared, of many the better of two drawn by weight.
//!
//! A member without any sample costs nothing while it has no session, so that it is tried at once, and a second per
//! session while it has some, so that it is not flooded before the first answer is in. When nobody has samples
//! this is least connections.

use std::sync::atomic::Ordering::Relaxed;

use super::super::members::{Ask, Members};
use super::chance;
use super::draw::Draw;
use super::two_choices::draw_two;

pub struct LeastLatency {
    draw: Draw,
}

/// Up to this many members all are compared.
const FEW: usize = 8;

/// In microseconds: of a member that has sessions but no sample.
const UNKNOWN_COST: f64 = 1e6;

impl LeastLatency {
    pub fn build(members: &Members) -> LeastLatency {
        LeastLatency { draw: Draw::new(&members.configured_weights()) }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let chosen = if members.len() <= FEW {
            cheapest(members, ask)
        } else {
            draw_two(&self.draw, members, ask).map(|(first, second)| {
                let second_is_cheaper = score(members, ask, second) < score(members, ask, first);
                if second_is_cheaper { second } else { first }
            })
        };
        if let Some(position) = chosen
            && members.take(position, ask)
        {
            return Some(position);
        }
        // Filled meanwhile, or nearly all of many are down: by sessions alone.
        members.take_lightest(chance::below(members.len()), ask)
    }
}

/// Of equals, the first from a random one on.
fn cheapest(members: &Members, ask: &Ask) -> Option<usize> {
    let start = chance::below(members.len());
    let mut best: Option<(f64, usize)> = None;
    for position in (start..members.len()).chain(0..start) {
        if members.is_usable(position, ask) {
            let score = score(members, ask, position);
            if best.is_none_or(|(least, _)| score < least) {
                best = Some((score, position));
            }
        }
    }
    best.map(|(_, position)| position)
}

fn score(members: &Members, ask: &Ask, position: usize) -> f64 {
    let hot = members.hot(position);
    let sessions = hot.in_flight.load(Relaxed);
    let cost = match members.backend(position).live.latency.microseconds(ask.now) {
        Some(cost) => cost,
        None if sessions == 0 => 0.0,
        None => UNKNOWN_COST,
    };
    cost * (f64::from(sessions) + 1.0) / f64::from(hot.weight(ask.weights).max(1))
}
