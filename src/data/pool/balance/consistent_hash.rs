//! Consistent hashing: a client's key falls on an entry of a Maglev table, and the entry's member serves it. No table
//! of clients, and the same answer on every node.
//!
//! If that member is down, full, tried or over its bound, further entries are tried, derived from the hash alone
//! (`maglev::rehash`), and after `STEPS` of them all members in order of name. The table knows nothing of up and
//! down: a client whose member is up stays there, whatever happens to the others. Slow start does not change the
//! table.
//!
//! Bounded load: a member may carry `percent` of its share by weight of all sessions on the tier's members that are
//! up, counting the one to be placed, rounded up and never below 1. Some member is always below its bound. So only
//! limits and tried backends can leave no member, and then the bound is ignored. The sum of all sessions is tallied
//! (`tally.rs`), so that a bound costs about as much among a thousand members as among ten.

use std::sync::Arc;

use super::super::members::{Ask, Members};
use super::super::pick::{PickKey, narrow, widen};
use super::super::tally::{Tally, Total};
use super::maglev::{CLIENT_KEY, Table, hash, rehash};
use crate::border::addr::ClientAddr;
use crate::config::{Hash, HashKey};

pub struct ConsistentHash {
    key: HashKey,
    bounded_load: Option<BoundedLoad>,
    table: Arc<Table>,
    /// Rank in the table → position.
    positions: Vec<u32>,
}

/// Entries that are tried before all members in order. With half of the members down, one key in 2^32 gets further.
const STEPS: u64 = 32;

/// Tries to take a slot below the bound while others take slots, too.
const TRIES: usize = 4;

struct BoundedLoad {
    percent: u32,
    tally: Tally,
}

/// How far members may be filled by the session to be placed.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// `percent` of all sessions, in hundredths.
    sessions: u64,
    /// Of all members that are up, times a hundred.
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
        // The table is sorted by name, and has all members except those of weight 0.
        let mut positions: Vec<u32> = (0..members.len())
            .filter(|position| members.backend(*position).weight > 0)
            .map(narrow)
            .collect();
        positions.sort_unstable_by_key(|position| &members.backend(widen(*position)).name);
        debug_assert_eq!(positions.len(), table.members().len());
        let bounded_load = config
            .bounded_load
            .map(|percent| BoundedLoad { percent, tally: Tally::begin(members) });
        ConsistentHash { key: config.key, bounded_load, table, positions }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let hash = hash_of(ask.key, self.key);
        if let Some(BoundedLoad { percent, tally }) = &self.bounded_load {
            let bound = Bound::new(tally.total(ask.weights), *percent);
            let take = |position| take_below(members, ask, position, bound);
            if let Some(position) = self.walk(hash, take) {
                return Some(position);
            }
        }
        self.walk(hash, |position| members.take(position, ask))
    }

    /// The first candidate that `take` accepts.
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

impl Bound {
    fn new(total: Total, percent: u32) -> Bound {
        Bound {
            sessions: (total.sessions + 1).saturating_mul(percent.into()),
            weight: total.weight.max(1).saturating_mul(100),
        }
    }

    /// Whether a member with this many sessions may have one more, that is, has less than its share rounded up.
    /// Compared by cross-multiplication: a division of this width would cost more than the rest of the pick.
    fn allows(self, sessions: u32, weight: u32) -> bool {
        let (filled, share) = (u128::from(sessions), u128::from(weight));
        sessions == 0 || filled * u128::from(self.weight) < share * u128::from(self.sessions)
    }
}

fn take_below(members: &Members, ask: &Ask, position: usize, bound: Bound) -> bool {
    let hot = members.hot(position);
    for _ in 0..TRIES {
        let seen = hot.load();
        let weight = hot.weight_of(seen, ask.weights);
        if !bound.allows(seen.sessions(), weight) || !members.is_usable(position, ask) {
            return false;
        }
        if members.take_at(position, seen) {
            return true;
        }
    }
    false
}

/// The key's bytes: the server name, if it is the key and known; else 4 or 16 bytes of the address, in
/// `client_address` followed by the port, big-endian. Clients of a unix socket have no address and are all one.
fn hash_of(key: &PickKey<'_>, kind: HashKey) -> u64 {
    if let (HashKey::ServerName, Some(name)) = (kind, key.server_name) {
        return hash(CLIENT_KEY, name.as_bytes());
    }
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
        HashKey::ClientIp | HashKey::ServerName => length,
        HashKey::ClientAddress => {
            bytes[length..length + 2].copy_from_slice(&client.port().to_be_bytes());
            length + 2
        }
    };
    hash(CLIENT_KEY, &bytes[..length])
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{
        build, client, config_of, counts, pick, pool_of, sessions, set_state,
    };
    use super::super::super::{Pool, Tried};
    use super::super::Picker;
    use super::*;
    use crate::config::Balance::{self, IpHash};
    use proptest::prelude::*;
    use std::time::Instant;

    fn owner(pool: &Pool, number: u32) -> Arc<str> {
        Arc::clone(&pick(pool, number).unwrap().backend().name)
    }

    fn key(text: &str) -> PickKey<'static> {
        PickKey::new(ClientAddr::new(text.parse().unwrap()))
    }

    /// Changing these moves clients of every installation between backends: never without a new major version.
    #[test]
    fn keys_hash_the_same_on_every_node_and_version() {
        let named = PickKey { server_name: Some("db1.example.com"), ..key("192.0.2.1:80") };
        let hashes = [
            hash_of(&key("192.0.2.1:80"), HashKey::ClientIp),
            hash_of(&key("192.0.2.1:80"), HashKey::ClientAddress),
            hash_of(&key("[2001:db8::1]:80"), HashKey::ClientIp),
            hash_of(&PickKey::new(ClientAddr::Unix), HashKey::ClientIp),
            hash_of(&named, HashKey::ServerName),
            hash_of(&key("192.0.2.1:80"), HashKey::ServerName),
        ];
        assert_eq!(
            hashes,
            [
                17_186_789_189_777_086_047,
                4_661_080_387_723_288_839,
                15_288_895_082_542_418_935,
                16_818_293_917_536_457_168,
                18_134_403_148_761_321_354,
                17_186_789_189_777_086_047,
            ]
        );
        let pool = pool_of(IpHash, &[1, 2, 3, 4]);
        let picks: Vec<u32> = (0..16).map(|number| pick(&pool, number).unwrap().index).collect();
        assert_eq!(picks, [2, 3, 3, 0, 2, 1, 3, 3, 2, 1, 1, 3, 3, 2, 3, 0]);
    }

    #[test]
    fn the_port_counts_in_client_address_only() {
        let spread = |kind| {
            let hashes = (1..100).map(|port| hash_of(&key(&format!("192.0.2.1:{port}")), kind));
            hashes.collect::<std::collections::HashSet<u64>>().len()
        };
        assert_eq!(spread(HashKey::ClientIp), 1);
        assert_eq!(spread(HashKey::ClientAddress), 99);
        // A mapped address is the same client.
        let mapped = key("[::ffff:192.0.2.1]:80");
        assert_eq!(
            hash_of(&mapped, HashKey::ClientIp),
            hash_of(&key("192.0.2.1:80"), HashKey::ClientIp)
        );
    }

    #[test]
    fn ip_hash_is_consistent_hash_on_the_address() {
        let mut config = config_of(IpHash, &[1; 9]);
        config.hash.key = HashKey::ClientAddress;
        let (ip_hash, hash) = (build(config), pool_of(Balance::ConsistentHash, &[1; 9]));
        assert!((0..200).all(|number| owner(&ip_hash, number) == owner(&hash, number)));
    }

    #[test]
    fn shares_follow_weights() {
        let pool = pool_of(IpHash, &[1, 2, 0, 5]);
        let counts = counts(&pool, 16_000);
        assert_eq!(counts[2], 0);
        for (count, due) in counts.iter().zip([2_000_u32, 4_000, 0, 10_000]) {
            assert!(count.abs_diff(due) <= 400, "{count} of {due}");
        }
    }

    #[test]
    fn the_load_of_one_that_is_down_is_shared_by_the_others() {
        let pool = pool_of(IpHash, &[1; 10]);
        set_state(&pool, 4, BackendState::Down);
        for (index, count) in counts(&pool, 9_000).into_iter().enumerate() {
            let due = if index == 4 { 0 } else { 1_000 };
            assert!(count.abs_diff(due) <= 200, "{count} of {due}");
        }
    }

    #[test]
    fn the_one_of_many_that_is_up_is_found() {
        let pool = pool_of(IpHash, &[1; 500]);
        (0..500).filter(|index| *index != 321).for_each(|index| {
            set_state(&pool, index, BackendState::Down);
        });
        assert_eq!(counts(&pool, 100)[321], 100);
    }

    #[test]
    fn the_table_is_kept_over_a_reload_that_does_not_touch_it() {
        let config = config_of(IpHash, &[1, 2, 3]);
        let before = build(config.clone());
        let table = |pool: &Pool| match &pool.tiers[0].picker {
            Picker::ConsistentHash(picker) => Arc::clone(&picker.table),
            _ => panic!("another algorithm"),
        };
        let mut shuffled = config.clone();
        shuffled.backends.reverse();
        shuffled.backends[0].max_sessions = Some(5);
        let after = Pool::build(Arc::new(shuffled), Some(&before), 2);
        assert!(Arc::ptr_eq(&table(&before), &table(&after)));
        assert!((0..200).all(|number| owner(&before, number) == owner(&after, number)));
        let mut heavier = config;
        heavier.backends[0].weight = 9;
        let other = Pool::build(Arc::new(heavier), Some(&after), 2);
        assert!(!Arc::ptr_eq(&table(&after), &table(&other)));
    }

    #[test]
    fn one_hot_client_spreads_under_a_bound() {
        let mut config = config_of(IpHash, &[1; 10]);
        config.hash.bounded_load = Some(125);
        let pool = build(config);
        let permits: Vec<_> = (0..1_000).map(|_| pick(&pool, 5).unwrap()).collect();
        let counts = sessions(&pool);
        assert!(counts.iter().all(|count| *count <= 125), "{counts:?}");
        assert_eq!(counts.iter().max(), Some(&125));
        drop(permits);
        assert_eq!(sessions(&pool), [0; 10]);
    }

    #[test]
    fn the_bound_gives_way_to_tries() {
        let mut config = config_of(IpHash, &[1, 1]);
        config.hash.bounded_load = Some(100);
        let pool = build(config);
        let first = pick(&pool, 1).unwrap();
        let mut tried = Tried::default();
        tried.push(1 - first.index);
        let second = pool.pick(&client(1), &tried, Instant::now()).unwrap();
        assert_eq!(second.index, first.index);
    }

    /// What a member may carry, as the documentation of the key defines it: with a division.
    fn capacity(total: Total, weight: u32, percent: u32) -> u64 {
        let all = u128::from(total.sessions + 1) * u128::from(percent) * u128::from(weight);
        u64::try_from(all.div_ceil(u128::from(total.weight.max(1)) * 100)).unwrap().max(1)
    }

    #[test]
    fn the_bound_is_a_share_by_weight_rounded_up_and_never_nought() {
        let total = Total { sessions: 99, weight: 10 };
        assert_eq!(capacity(total, 1, 125), 13);
        let bound = Bound::new(total, 125);
        assert!(bound.allows(12, 1) && !bound.allows(13, 1));
        assert!(bound.allows(62, 5) && !bound.allows(63, 5));
        let empty = Bound::new(Total { sessions: 0, weight: 1_000 }, 101);
        assert!(empty.allows(0, 1) && !empty.allows(1, 1));
    }

    proptest! {
        #[test]
        fn the_bound_is_the_capacity(
            sessions in 0..1_u64 << 40, all in 1..1_u64 << 40, weight in 1..1_u32 << 24, percent in 101..=10_000_u32,
        ) {
            let total = Total { sessions, weight: all.max(weight.into()) };
            let (bound, capacity) = (Bound::new(total, percent), capacity(total, weight, percent));
            for count in capacity.saturating_sub(2)..capacity + 2 {
                let Ok(filled) = u32::try_from(count) else { continue };
                prop_assert_eq!(bound.allows(filled, weight), count < capacity);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn clients_of_a_live_backend_never_move(
            weights in prop::collection::vec(1..=10_u32, 2..20), seed in any::<u32>(), down in any::<u32>()
        ) {
            let pool = pool_of(IpHash, &weights);
            let clients: Vec<u32> = (0..300).map(|number| seed.wrapping_add(number * 7_919)).collect();
            let before: Vec<u32> = clients.iter().map(|n| pick(&pool, *n).unwrap().index).collect();
            let is_down = |index: usize| index > 0 && down >> (index % 32) & 1 == 1;
            (0..weights.len()).filter(|index| is_down(*index)).for_each(|index| {
                set_state(&pool, index, BackendState::Down);
            });
            for (number, before) in clients.iter().zip(before) {
                let after = pick(&pool, *number).unwrap().index;
                prop_assert!(!is_down(after as usize));
                prop_assert!(is_down(before as usize) || after == before);
            }
        }

        #[test]
        fn no_bound_is_ever_passed(
            weights in prop::collection::vec(1..=8_u32, 2..12),
            percent in 100..200_u32,
            clients in prop::collection::vec(0..12_u32, 1..300),
        ) {
            let mut config = config_of(IpHash, &weights);
            config.hash.bounded_load = Some(percent);
            let pool = build(config);
            let total: u32 = weights.iter().sum();
            let mut permits = Vec::new();
            for number in clients {
                permits.push(pick(&pool, number).unwrap());
                for (count, weight) in sessions(&pool).into_iter().zip(&weights) {
                    let all = u32::try_from(permits.len()).unwrap() * percent * weight;
                    prop_assert!(count <= all.div_ceil(100 * total).max(1));
                }
            }
        }
    }
}
