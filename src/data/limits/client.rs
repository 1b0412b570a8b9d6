//! Tables by client: how many sessions or flows each has, and what is left of its rates. Both are bounded whatever
//! clients do, and neither knows a clock or a listener. Used when a session or a flow begins (a flow keeps its
//! bucket), never for each byte.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::rate::Bucket;
use crate::sys::keyed::Keyed;

/// What counts as one client: an IPv4 address, or an IPv6 /64, which belongs to one household or one machine as a
/// whole. IPv4-mapped addresses are IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientNet {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
}

impl ClientNet {
    pub fn of(ip: IpAddr) -> ClientNet {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ClientNet::V4(ip.to_bits()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                ClientNet::V6(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

/// A new key in each process: clients choose their addresses, and must not be able to choose their buckets.
type Table<V> = DashMap<ClientNet, V, Keyed>;

/// Open sessions or flows of each client that has any. As large as the number of clients with something open, which
/// the other limits bound.
#[derive(Debug, Default)]
pub struct Clients(Arc<Table<u64>>);

/// One session or flow of its client; given back on drop.
#[derive(Debug)]
pub struct ClientPermit {
    /// `None`: kept.
    table: Option<Arc<Table<u64>>>,
    net: ClientNet,
}

impl Clients {
    /// One more of at most `limit`, in one step: exact over all threads. `None`: the client has reached the limit.
    pub fn enter(&self, net: ClientNet, limit: u64) -> Option<ClientPermit> {
        match self.0.entry(net) {
            Entry::Occupied(mut open) => {
                if *open.get() >= limit {
                    return None;
                }
                *open.get_mut() += 1;
            }
            Entry::Vacant(_) if limit == 0 => return None,
            Entry::Vacant(place) => {
                place.insert(1);
            }
        }
        Some(ClientPermit { table: Some(Arc::clone(&self.0)), net })
    }

    /// Clients with anything open.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl Clients {
    /// Gives back one place whose permit was kept.
    pub fn leave(&self, net: ClientNet) {
        leave(&self.0, net);
    }
}

impl ClientPermit {
    /// The caller must call `Clients::leave` later to give the place back: sessions have no room for a permit.
    pub fn keep(mut self) {
        self.table = None;
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if let Some(table) = &self.table {
            leave(table, self.net);
        }
    }
}

fn leave(table: &Table<u64>, net: ClientNet) {
    let Entry::Occupied(mut open) = table.entry(net) else {
        debug_assert!(false, "whoever leaves is in the table");
        return;
    };
    *open.get_mut() -= 1;
    if *open.get() == 0 {
        open.remove();
    }
}

/// The most entries of one table: some 6 MB.
const MAX_BUCKETS: usize = 65_536;

/// Between two sweeps, in nanoseconds. A sweep looks at every entry, about a millisecond of work.
const SWEEP_PAUSE_NS: u64 = 100_000_000;

/// A bucket for each client.
///
/// A client whose bucket is full again is the same as one that never came, so such clients are swept out when the
/// table is full. If none can go, a new client gets no bucket and is not limited on its own; the listener's own rate
/// still applies. The alternatives are worse. Sender addresses of datagrams cost nothing to forge: if clients without
/// a bucket were refused, a flood of forged ones would lock out every real client; if buckets in use were thrown out,
/// it would lift their limits; if the table grew, it would use up the memory.
#[derive(Debug, Default)]
pub struct ClientRates {
    table: Table<Arc<Bucket>>,
    /// Entries, including those about to be made: the table's own count takes every lock.
    count: AtomicUsize,
    next_sweep_ns: AtomicU64,
    unlimited: AtomicU64,
}

impl ClientRates {
    /// The client's bucket; a new one is full. `None`: the table is full of clients whose buckets are in use.
    /// `now_ns` is on the clock with which the buckets are used.
    pub fn bucket(&self, net: ClientNet, now_ns: u64) -> Option<Arc<Bucket>> {
        if let Some(bucket) = self.table.get(&net) {
            return Some(Arc::clone(&bucket));
        }
        if !self.reserve() {
            self.sweep(now_ns);
            if !self.reserve() {
                self.unlimited.fetch_add(1, Relaxed);
                return None;
            }
        }
        match self.table.entry(net) {
            Entry::Occupied(other) => {
                // Another thread was faster; its reservation counts for the entry.
                self.count.fetch_sub(1, Relaxed);
                Some(Arc::clone(other.get()))
            }
            Entry::Vacant(place) => Some(Arc::clone(&place.insert(Arc::new(Bucket::new())))),
        }
    }

    /// How often a client got `None`, since the start.
    pub fn unlimited(&self) -> u64 {
        self.unlimited.load(Relaxed)
    }

    /// Clients with a bucket.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    fn reserve(&self) -> bool {
        let taken = |count| (count < MAX_BUCKETS).then_some(count + 1);
        self.count.fetch_update(Relaxed, Relaxed, taken).is_ok()
    }

    /// Throws out clients whose buckets are full again, at most once per pause.
    fn sweep(&self, now_ns: u64) {
        let due = |next| (next <= now_ns).then_some(now_ns.saturating_add(SWEEP_PAUSE_NS));
        if self.next_sweep_ns.fetch_update(Relaxed, Relaxed, due).is_err() {
            return;
        }
        self.table.retain(|_, bucket| {
            // It can no longer be found in the table; a holder of it may be about to take from it.
            let stays = Arc::strong_count(bucket) > 1 || !bucket.is_full(now_ns);
            if !stays {
                self.count.fetch_sub(1, Relaxed);
            }
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rate;

    const MS: u64 = 1_000_000;
    const SLOW: Rate = Rate { per_second: 1, burst: 1 };

    fn net(number: u32) -> ClientNet {
        ClientNet::V4(number)
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let of = |text: &str| ClientNet::of(text.parse().unwrap());
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_eq!(of("192.0.2.7"), of("::ffff:192.0.2.7"));
        assert_eq!(of("2001:db8::7"), of("2001:db8::ffff:0:0:9"));
        assert_ne!(of("2001:db8::7"), of("2001:db8:0:1::7"));
        assert_ne!(of("0.0.0.5"), of("0:0:0:5::"));
    }

    #[test]
    fn each_client_has_its_own_limit_and_gets_its_places_back() {
        let clients = Clients::default();
        let first = clients.enter(net(1), 2).unwrap();
        let second = clients.enter(net(1), 2).unwrap();
        assert!(clients.enter(net(1), 2).is_none());
        assert!(clients.enter(net(2), 0).is_none());
        let other = clients.enter(net(2), 1).unwrap();
        assert_eq!(clients.count(), 2);
        drop(first);
        let third = clients.enter(net(1), 2).unwrap();
        assert!(clients.enter(net(1), 2).is_none());
        third.keep();
        drop((second, other));
        assert_eq!(clients.count(), 1);
        clients.leave(net(1));
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn no_client_has_more_than_its_limit_over_threads() {
        let clients = Clients::default();
        let open = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(permit) = clients.enter(net(1), 3) else { continue };
                        assert!(open.fetch_add(1, Relaxed) < 3);
                        open.fetch_sub(1, Relaxed);
                        drop(permit);
                    }
                });
            }
        });
        assert_eq!(clients.count(), 0);
    }

    #[test]
    fn a_client_keeps_its_bucket() {
        let rates = ClientRates::default();
        let bucket = rates.bucket(net(1), 0).unwrap();
        assert_eq!(bucket.take(SLOW, 5, 0), 1);
        assert!(Arc::ptr_eq(&bucket, &rates.bucket(net(1), MS).unwrap()));
        assert!(!Arc::ptr_eq(&bucket, &rates.bucket(net(2), MS).unwrap()));
        assert_eq!(rates.count(), 2);
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_the_table_nor_frees_those_who_are_in_it() {
        let rates = ClientRates::default();
        let held = rates.bucket(net(u32::MAX), 0).unwrap();
        let mut told = 0;
        for number in 0..1_000_000 {
            // A microsecond apart: ten sweeps fall into it, and none finds a client whose bucket is full again.
            let now_ns = u64::from(number) * 1_000;
            let bucket = rates.bucket(net(number), now_ns);
            told += u64::from(bucket.is_none());
            if let Some(bucket) = bucket {
                assert_eq!(bucket.take(SLOW, 1, now_ns), 1);
            }
            assert!(rates.count() <= MAX_BUCKETS);
        }
        assert_eq!(rates.table.len(), MAX_BUCKETS);
        assert_eq!(told, rates.unlimited());
        assert_eq!(told, 1_000_000 - (MAX_BUCKETS as u64 - 1));
        // The first one came a second ago, and may have one more.
        assert_eq!(rates.bucket(net(0), 1_000 * MS).unwrap().take(SLOW, 5, 1_000 * MS), 1);
        // When all have been silent for long enough, a new client finds room; a bucket that is held stays.
        assert!(rates.bucket(net(2_000_000), 5_000 * MS).is_some());
        assert_eq!(rates.count(), 2);
        assert!(Arc::ptr_eq(&held, &rates.bucket(net(u32::MAX), 5_000 * MS).unwrap()));
    }

    #[test]
    fn it_sweeps_at_most_once_in_a_pause() {
        let rates = ClientRates::default();
        let mut held: Vec<_> =
            (0..65_536).map(|number| rates.bucket(net(number), 0).unwrap()).collect();
        let newcomer = net(70_000);
        assert!(rates.bucket(newcomer, 0).is_none());
        held.clear();
        assert!(rates.bucket(newcomer, 99 * MS).is_none());
        assert!(rates.bucket(newcomer, 100 * MS).is_some());
        assert_eq!((rates.count(), rates.unlimited()), (1, 2));
    }

    #[test]
    fn the_count_is_right_after_a_rush_of_threads() {
        let rates = ClientRates::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let rates = &rates;
                scope.spawn(move || {
                    for turn in 0..100_000_u32 {
                        // Half of them shared by all, half of them its own.
                        let number = if turn % 2 == 0 { turn } else { turn | (thread + 1) << 20 };
                        if let Some(bucket) = rates.bucket(net(number), u64::from(turn) * MS) {
                            bucket.take(SLOW, 1, u64::from(turn) * MS);
                        }
                        assert!(rates.count() <= MAX_BUCKETS);
                    }
                });
            }
        });
        assert_eq!(rates.count(), rates.table.len());
    }
}
