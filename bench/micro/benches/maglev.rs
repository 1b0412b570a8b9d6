//! Building the table of consistent hashing, which a reload that changes a pool's members has to do.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::data::pool::balance::maglev::Table;

/// Weights are 1 to `heaviest`.
fn members(count: u32, heaviest: u32) -> Vec<(Arc<str>, u32)> {
    let member = |number| (format!("backend-{number}").into(), number % heaviest + 1);
    (0..count).map(member).collect()
}

fn tables(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("maglev 65537");
    for (name, heaviest) in [("of equal weights", 1), ("of weights 1 to 4", 4)] {
        for count in [10, 1_000] {
            let listed = members(count, heaviest);
            group.bench_function(BenchmarkId::new(name, count), |bencher| {
                let build = |listed| black_box(Table::build(listed, 65_537));
                bencher.iter_batched(|| listed.clone(), build, BatchSize::LargeInput);
            });
        }
    }
}

criterion_group!(benches, tables);
criterion_main!(benches);
