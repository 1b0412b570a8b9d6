//! One pick: choosing the backend, taking its slot and giving it back, for each algorithm and several sizes of pools.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::config::Balance;

const ALGORITHMS: [(&str, Balance, Option<u32>); 9] = [
    ("consistent_hash", Balance::ConsistentHash, None),
    ("consistent_hash bounded 125%", Balance::ConsistentHash, Some(125)),
    ("first_available", Balance::FirstAvailable, None),
    ("ip_hash", Balance::IpHash, None),
    ("least_connections", Balance::LeastConnections, None),
    ("least_latency", Balance::LeastLatency, None),
    ("random", Balance::Random, None),
    ("round_robin", Balance::RoundRobin, None),
    ("two_choices", Balance::TwoChoices, None),
];

fn picks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for (name, balance, bounded_load) in ALGORITHMS {
        let sizes: &[u16] = match balance {
            Balance::LeastConnections => &[10, 100, 1_000, 5_000],
            _ => &[10, 100, 1_000],
        };
        for size in sizes {
            // What is not asked for is not built.
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let pool = micro::pool(balance, *size, bounded_load);
                let now = micro::observe(&pool);
                let held = micro::fill(&pool, now);
                let mut number = 0_u32;
                bencher.iter(|| {
                    number = number.wrapping_add(1);
                    black_box(micro::pick(&pool, number, now))
                });
                drop(held);
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
