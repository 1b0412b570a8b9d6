//! The table of UDP flows: finding a datagram's flow and counting the datagram, and a flow's beginning and end.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::data::udp::flow::Rules;
use maitred::data::udp::flow_table::FlowTable;

/// The client's address and the one it dialled.
type Key = (SocketAddr, SocketAddr);

/// Of a flow's socket and permits, so much lies in the table.
type Item = [u64; 8];

const RULES: Rules = Rules { timeout_ms: 60_000, requests: None, responses: None };

fn key(number: u32) -> Key {
    let client = SocketAddr::from((number.wrapping_mul(0x9e37_79b9).to_be_bytes(), 40_000));
    (client, SocketAddr::from(([198, 51, 100, 1], 53)))
}

fn table(flows: u32) -> FlowTable<Key, Item> {
    let mut table = FlowTable::default();
    for number in 0..flows {
        table.begin(key(number), 0, RULES, 0, Item::default());
    }
    table
}

/// Any order in which flows are seldom near the ones before.
fn next(number: u32, flows: u32) -> u32 {
    number.wrapping_add(7_919) % flows
}

fn flows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow table");
    for flows in [1, 4_096, 100_000] {
        let mut table = table(flows);
        let (mut number, mut now_ms) = (0, 0);
        group.bench_function(BenchmarkId::new("find, count a datagram", flows), |bencher| {
            bencher.iter(|| {
                number = next(number, flows);
                now_ms += 1;
                let id = table.find(&key(number))?;
                Some(black_box(table.request(id, 1, now_ms)))
            });
        });
        group.bench_function(BenchmarkId::new("find nobody", flows), |bencher| {
            bencher.iter(|| {
                number = next(number, flows);
                black_box(table.find(&key(number + flows)))
            });
        });
        group.bench_function(BenchmarkId::new("begin and end one more", flows), |bencher| {
            bencher.iter(|| {
                number = next(number, flows);
                let id = table.begin(key(number + flows), 0, RULES, now_ms, Item::default());
                black_box(table.end(id))
            });
        });
    }
}

criterion_group!(benches, flows);
criterion_main!(benches);
