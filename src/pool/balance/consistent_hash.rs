//! Consistent hashing: a client's key falls on an entry of a Maglev table, and the entry's member serves it. No table of
//! clients, and the same answer on every node.
//!
//! If that member is down, full, tried or over its bound, further entries are looked at, derived from the hash alone
//! (`maglev::rehash`), and after `STEPS` of them all members in order of name. The table knows nothing of up and down:
//! a client whose member is up stays there, whatever happens to the others. Slow start does not change the table.
//!
//! Bounded load: a member may carry `percent` of its share by weight of all sessions of the tier's members that are
//! up, counting the one to be placed, rounded up and never below 1. Somebody is always below; so that only limits and
//! tries can make everybody refuse, and then the bound is ignored.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::members::{Ask, Members};
use super::super::{PickKey, narrow, widen};
use super::maglev::{CLIENT_KEY, Table, hash, rehash};
use crate::addr::ClientAddr;
use crate::config::{Hash, HashKey};

pub struct ConsistentHash {
    key: HashKey,
    bounded_load: Option<u32>,
    table: Arc<Table>,
    /// Rank in the table → position.
    positions: Vec<u32>,
}

/// Entries looked at before all members in order. With half of the members down, one key in 2^32 gets further.
const STEPS: u64 = 32;

/// Tries to take a slot below the bound while others take slots too.
const TRIES: usize = 4;

/// Sessions and weight of all members that are up.
#[derive(Clone, Copy)]
struct Total {
    sessions: u64,
    weight: u64,
}

impl ConsistentHash {
    pub fn build(config: Hash, members: &Members, previous: Option<&ConsistentHash>) -> Self {
        let listed: Vec<(Arc<str>, u32)> = (0..members.len())
            .map(|position| members.backend(position))
            .map(|backend| (Arc::clone(&backend.name), backend.weight))
            .collect();
        let table = match previous {
            Some(previous) if previous.table.is_of(&listed, config.table_size) => {
                Arc::clone(&previous.table)
            }
            _ => Arc::new(Table::build(listed, config.table_size)),
        };
        // The table is sorted by name, and holds all but those of weight 0.
        let mut positions: Vec<u32> = (0..members.len())
            .filter(|position| members.backend(*position).weight > 0)
            .map(narrow)
            .collect();
        positions.sort_unstable_by_key(|position| &members.backend(widen(*position)).name);
        debug_assert_eq!(positions.len(), table.members().len());
        ConsistentHash { key: config.key, bounded_load: config.bounded_load, table, positions }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let hash = hash_of(ask.key, self.key);
        if let Some(percent) = self.bounded_load {
            let total = Total::of(members, ask);
            let take = |position| take_below(members, ask, position, total, percent);
            if let Some(position) = self.walk(hash, take) {
                return Some(position);
            }
        }
        self.walk(hash, |position| members.take(position, ask))
    }

    /// The first candidate that `take` takes.
    fn walk(&self, hash: u64, take: impl Fn(usize) -> bool) -> Option<usize> {
        let first = self.position(hash)?;
        if take(first) {
            return Some(first);
        }
        for step in 1..=STEPS {
            let position = self.position(rehash(hash, step))?;
            if take(position) {
                return Some(position);
            }
        }
        let start = hash % u64::from(narrow(self.positions.len()));
        let (before, after) = self.positions.split_at(usize::try_from(start).ok()?);
        after.iter().chain(before).map(|position| widen(*position)).find(|position| take(*position))
    }

    fn position(&self, hash: u64) -> Option<usize> {
        Some(widen(self.positions[widen(self.table.rank(hash)?)]))
    }
}

impl Total {
    fn of(members: &Members, ask: &Ask) -> Total {
        let mut total = Total { sessions: 0, weight: 0 };
        members.visit_from(0, |_, hot| {
            let weight = u64::from(hot.weight(ask.weights));
            if weight > 0 {
                total.sessions += u64::from(hot.in_flight.load(Relaxed));
                total.weight += weight;
            }
        });
        total
    }

    /// What a member of this weight may carry.
    fn capacity(self, weight: u64, percent: u32) -> u64 {
        let all = u128::from(self.sessions + 1) * u128::from(percent) * u128::from(weight);
        let whole = u128::from(self.weight.max(1)) * 100;
        u64::try_from(all.div_ceil(whole)).unwrap_or(u64::MAX).max(1)
    }
}

fn take_below(members: &Members, ask: &Ask, position: usize, total: Total, percent: u32) -> bool {
    if !members.is_usable(position, ask) {
        return false;
    }
    let hot = members.hot(position);
    let capacity = total.capacity(hot.weight(ask.weights).into(), percent);
    for _ in 0..TRIES {
        let seen = hot.in_flight.load(Relaxed);
        if u64::from(seen) >= capacity || hot.is_full() {
            return false;
        }
        if hot.take_at(seen) {
            return true;
        }
    }
    false
}

/// The key's bytes: 4 or 16 of the address, in `client_address` followed by the port, big-endian. Clients of a unix
/// socket have no address and are all one.
fn hash_of(key: &PickKey, kind: HashKey) -> u64 {
    let ClientAddr::Inet(client) = key.client else { return hash(CLIENT_KEY, b"unix") };
    let mut bytes = [0; 18];
    let length = match client.ip() {
        std::net::IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            4
        }
        std::net::IpAddr::V6(ip) => {
            bytes[..16].copy_from_slice(&ip.octets());
            16
        }
    };
    let length = match kind {
        HashKey::ClientIp => length,
        HashKey::ClientAddress => {
            bytes[length..length + 2].copy_from_slice(&client.port().to_be_bytes());
            length + 2
        }
    };
    hash(CLIENT_KEY, &bytes[..length])
}
