//! Seeded simulations of pure cores beside models of them. A failure prints its seed; `MAITRED_SEED=N` runs that one.

// A test that meets what it does not expect is to fail on the spot.
#![allow(clippy::unwrap_used)]

mod flow_model;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use flow_model::{Choices, Run};

const SEEDS: u64 = 1_000;
const STEPS: u32 = 5_000;

struct Seeded(fastrand::Rng);

impl Choices for Seeded {
    fn below(&mut self, bound: u64) -> Option<u64> {
        Some(self.0.u64(..bound))
    }
}

/// Prints the seed if the run below it panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {0}: run it alone with MAITRED_SEED={0}", self.0);
        }
    }
}

fn simulate(seed: u64) -> Run {
    let seed = Seed(seed);
    let mut choices = Seeded(fastrand::Rng::with_seed(seed.0));
    let mut run = Run::default();
    for _ in 0..STEPS {
        run.step(&mut choices);
    }
    run
}

#[test]
fn the_flow_table_does_what_its_model_does() {
    if let Ok(seed) = std::env::var("MAITRED_SEED") {
        simulate(seed.parse().expect("MAITRED_SEED is a number"));
        return;
    }
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= SEEDS {
                return;
            }
            let seen = simulate(seed).seen;
            let reached = [
                seen.begun,
                seen.shed,
                seen.evicted,
                seen.expired,
                seen.completed,
                seen.detached,
                seen.retired,
            ];
            assert!(reached.iter().all(|count| *count > 10), "seed {seed}: {seen:?}");
        }
    };
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
