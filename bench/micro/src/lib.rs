//! What the benches share: pools and clients to pick for, and how often things are measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred::border::addr::{BackendAddr, ClientAddr};
use maitred::config::{self, Balance};
use maitred::data::pool::{PickKey, Picked, Pool, Tried};

/// Sessions per backend while picks are measured: a pool at work, not an empty one.
pub const SESSIONS: usize = 4;

/// A pool of this many backends, all up, of weights 1 to 4, without limits.
pub fn pool(balance: Balance, backends: u16, bounded_load: Option<u32>) -> Pool {
    let mut pool = config::Pool { balance, ..config::Pool::default() };
    pool.health.probe = config::Probe::None;
    pool.hash.bounded_load = bounded_load;
    pool.backends = (0..backends)
        .map(|number| config::Backend {
            name: format!("backend-{number}").into(),
            address: BackendAddr::Inet(SocketAddr::from(([10, 0, 0, 1], number + 1))),
            weight: u32::from(number % 4) + 1,
            ..config::Backend::default()
        })
        .collect();
    let pool = Pool::build(Arc::new(pool), None, 1);
    pool.activate(Instant::now(), std::time::SystemTime::now());
    pool
}

/// Samples for `least_latency`, of 1 to 8 ms, the oldest ten seconds before the time that is returned.
pub fn observe(pool: &Pool) -> Instant {
    let began = Instant::now();
    for (number, backend) in (0_u64..).zip(&pool.backends) {
        let sample = Duration::from_millis(number * 7 % 8 + 1);
        backend.observe_latency(sample, began + Duration::from_millis(number * 13 % 10_000));
    }
    began + Duration::from_secs(10)
}

/// The sessions that are there while others come and go.
pub fn fill(pool: &Pool, now: Instant) -> Vec<Picked> {
    let sessions = (0_u32..).take(pool.backends.len() * SESSIONS);
    sessions.filter_map(|number| pick(pool, number, now)).collect()
}

/// A pick for one of 2^32 clients.
pub fn pick(pool: &Pool, number: u32, now: Instant) -> Option<Picked> {
    let client = SocketAddr::from((number.wrapping_mul(0x9e37_79b9).to_be_bytes(), 40_000));
    pool.pick(&PickKey::new(ClientAddr::new(client)), &Tried::default(), now).ok()
}
