//! Building the table of consistent hashing, which a reload that changes a pool's members has to do.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::pool::balance::maglev::Table;

fn members(count: u32, weight: fn(u32) -> u32) -> Vec<(Arc<str>, u32)> {
    (0..count).map(|number| (format!("backend-{number}").into(), weight(number))).collect()
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev 65537");
    let weights: [(&str, fn(u32) -> u32); 2] =
        [("of equal weights", |_| 1), ("of weights 1 to 4", |number| number % 4 + 1)];
    for (name, weight) in weights {
        for count in [10, 1_000] {
            let listed = members(count, weight);
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                let build = |listed| black_box(Table::build(listed, 65_537));
                bencher.iter_batched(|| listed.clone(), build, BatchSize::LargeInput);
            });
        }
    }
}

criterion_group!(benches, tables);
criterion_main!(benches);
