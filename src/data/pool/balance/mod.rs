//! The algorithms that pick one member of a tier. Each returns a position on which it has taken a slot, or none if it
//! found no member within its bounds; the tier then takes any free one, or says why there is none.
//!
//! Common rules: members that are full, tried or of weight 0 are never picked; a slot is taken by compare-exchange,
//! so limits are exact over all workers; no locks, no allocation, and every loop is bounded.

pub mod chance;
pub mod consistent_hash;
pub mod draw;
pub mod first_available;
pub mod least_connections;
pub mod least_latency;
pub mod maglev;
pub mod random;
pub mod round_robin;
pub mod turns;
pub mod two_choices;

use super::members::{Ask, Members};
use crate::config::{self, Balance};
use consistent_hash::ConsistentHash;
use first_available::FirstAvailable;
use least_connections::LeastConnections;
use least_latency::LeastLatency;
use random::Random;
use round_robin::RoundRobin;
use two_choices::TwoChoices;

pub enum Picker {
    ConsistentHash(ConsistentHash),
    FirstAvailable(FirstAvailable),
    LeastConnections(LeastConnections),
    LeastLatency(LeastLatency),
    Random(Random),
    RoundRobin(RoundRobin),
    TwoChoices(TwoChoices),
}

impl Picker {
    /// `previous` is the picker of the same tier before a reload: what was costly to build is reused if it is the
    /// same.
    pub fn build(config: &config::Pool, members: &Members, previous: Option<&Picker>) -> Picker {
        let hash = |hash: config::Hash| {
            let previous = match previous {
                Some(Picker::ConsistentHash(previous)) => Some(previous),
                _ => None,
            };
            Picker::ConsistentHash(ConsistentHash::build(hash, members, previous))
        };
        match config.balance {
            Balance::ConsistentHash => hash(config.hash),
            Balance::IpHash => hash(config::Hash { key: config::HashKey::ClientIp, ..config.hash }),
            Balance::FirstAvailable => Picker::FirstAvailable(FirstAvailable),
            Balance::LeastConnections => Picker::LeastConnections(LeastConnections::default()),
            Balance::LeastLatency => Picker::LeastLatency(LeastLatency::build(members)),
            Balance::Random => Picker::Random(Random::build(members)),
            Balance::TwoChoices => Picker::TwoChoices(TwoChoices::build(members)),
            Balance::RoundRobin => {
                let previous = match previous {
                    Some(Picker::RoundRobin(previous)) => Some(previous),
                    _ => None,
                };
                Picker::RoundRobin(RoundRobin::build(members, previous))
            }
        }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        match self {
            Picker::ConsistentHash(picker) => picker.pick(members, ask),
            Picker::FirstAvailable(picker) => picker.pick(members, ask),
            Picker::LeastConnections(picker) => picker.pick(members, ask),
            Picker::LeastLatency(picker) => picker.pick(members, ask),
            Picker::Random(picker) => picker.pick(members, ask),
            Picker::RoundRobin(picker) => picker.pick(members, ask),
            Picker::TwoChoices(picker) => picker.pick(members, ask),
        }
    }
}
