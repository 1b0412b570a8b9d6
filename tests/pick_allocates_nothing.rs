//! A pick never allocates, whatever the algorithm and whether it finds somebody or not. A binary of its own, because
//! counting needs the global allocator.

// A test that meets what it does not expect is to fail on the spot.
#![allow(clippy::unwrap_used)]
// The allocator interface is unsafe by nature; this one only counts and hands on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use maitred::border::addr::{BackendAddr, ClientAddr};
use maitred::config::{self, Balance};
use maitred::data::pool::backend::BackendState;
use maitred::data::pool::{PickError, PickKey, Pool, Tried};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counter is a plain cell of this thread,
// which itself needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` above, that is, from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn pool(balance: Balance, backends: u16) -> Pool {
    let mut pool = config::Pool { balance, ..config::Pool::default() };
    pool.health.probe = config::Probe::None;
    pool.hash.bounded_load = Some(125);
    pool.backends = (0..backends)
        .map(|number| config::Backend {
            name: format!("b{number}").into(),
            address: BackendAddr::Inet(SocketAddr::from(([10, 0, 0, 1], number + 1))),
            weight: u32::from(number % 7),
            max_sessions: Some(3),
            ..config::Backend::default()
        })
        .collect();
    Pool::build(Arc::new(pool), None, 1)
}

#[test]
fn no_algorithm_allocates() {
    for balance in [
        Balance::ConsistentHash,
        Balance::FirstAvailable,
        Balance::IpHash,
        Balance::LeastConnections,
        Balance::LeastLatency,
        Balance::Random,
        Balance::RoundRobin,
        Balance::TwoChoices,
    ] {
        for backends in [3, 100] {
            let pool = pool(balance, backends);
            let (now, wall) = (Instant::now(), SystemTime::now());
            let mut permits = Vec::with_capacity(1_000);
            let mut end = None;
            let mut tried = Tried::default();
            tried.push(1);
            let before = ALLOCATIONS.get();
            for number in 0..1_000_u32 {
                let client = SocketAddr::from((number.to_be_bytes(), 9));
                match pool.pick(&PickKey::new(ClientAddr::new(client)), &tried, now) {
                    Ok(picked) => {
                        picked.backend().observe_latency(Duration::from_micros(number.into()), now);
                        permits.push(picked);
                    }
                    Err(why) => end = Some(why),
                }
            }
            permits.clear();
            assert_eq!(ALLOCATIONS.get(), before, "{balance:?} of {backends}");
            assert_eq!(end, Some(PickError::AllFull));
            // The counter counts.
            pool.backends[0].set_state(BackendState::Down, "by the test", now, wall);
            assert!(ALLOCATIONS.get() > before);
        }
    }
}
