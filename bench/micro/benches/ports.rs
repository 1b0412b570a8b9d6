//! Handing out source ports ourselves: a lease and its return, without the socket that would be bound to it.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use maitred::border::plane::PortStats;
use maitred::data::tcp::source_ports::{Lease, SourcePorts};
use maitred::sys::port_range::PortRange;

/// Every second port of 28 000: 14 000 are ours.
const RANGE: std::ops::RangeInclusive<u16> = 32_768..=60_767;

/// Leases held meanwhile; the others stand in the order in which they were used.
const HELD: [usize; 2] = [0, 7_000];

fn leases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("source ports");
    let address = SocketAddr::from(([10, 0, 0, 1], 5_432));
    for held in HELD {
        let range = PortRange { range: RANGE, reserved: Default::default() };
        let ports = SourcePorts::new(range, Arc::new(PortStats::default()));
        // Each was in use once, so that the queue has turned.
        let all: Vec<Lease> = (0..14_000).map_while(|_| ports.lease_unconnected(address)).collect();
        assert_eq!(all.len(), 14_000);
        drop(all);
        let leases: Vec<Lease> =
            (0..held).map_while(|_| ports.lease_unconnected(address)).collect();
        group.bench_function(
            BenchmarkId::new("lease and return, 14000 ports, held", held),
            |bencher| {
                bencher.iter(|| black_box(ports.lease_unconnected(address)));
            },
        );
        drop(leases);
    }
}

criterion_group!(benches, leases);
criterion_main!(benches);
