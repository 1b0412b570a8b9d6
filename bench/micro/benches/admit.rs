//! Who may come in: the checks that every session and every new flow passes before anything is spent on it.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use maitred::config::{Rate, read_nets};
use maitred::data::limits::{Acl, Bucket, ClientNet, ClientRates, Clients};

const PREFIXES: u32 = 10_000;
/// Of each family in a long list.
const HALF: u32 = 50_000;
const CLIENTS: u32 = 100_000;

/// The same spread of addresses in every run.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b9))
}

/// Of /8 to /32, as lists of the net's bad corners have them.
fn prefixes() -> Vec<IpNet> {
    let prefix = |number: u32| {
        let length = u8::try_from(8 + number % 25).unwrap_or(32);
        Ipv4Net::new_assert(address(number), length).trunc().into()
    };
    (0..PREFIXES).map(prefix).collect()
}

fn acl(criterion: &mut Criterion) {
    let lists = [("empty", Vec::new()), ("10000 prefixes", prefixes())];
    for (name, deny) in lists {
        let acl = Acl::new(&[], &deny);
        let mut number = 0_u32;
        criterion.bench_function(&format!("admit/acl, {name}"), |bencher| {
            bencher.iter(|| {
                number = number.wrapping_add(1);
                black_box(acl.allows(IpAddr::V4(address(number.wrapping_mul(31)))))
            });
        });
    }
}

/// As many of each family, as one of the long lists that are for sale has them.
fn long_list() -> Vec<IpNet> {
    let v6 = |number: u32| {
        let length = u8::try_from(20 + number % 45).unwrap_or(64);
        Ipv6Net::new_assert(address_v6(number), length).trunc().into()
    };
    let v4 = |number: u32| {
        let length = u8::try_from(12 + number % 21).unwrap_or(32);
        Ipv4Net::new_assert(address(number), length).trunc().into()
    };
    (0..HALF).map(v4).chain((0..HALF).map(v6)).collect()
}

/// Of 2000::/3.
fn address_v6(number: u32) -> Ipv6Addr {
    let bits = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Ipv6Addr::from_bits(bits >> 3 | 1 << 125)
}

/// 100 000 networks: from a file, into a trie, and looked for.
fn long_acl(criterion: &mut Criterion) {
    let nets = long_list();
    let path = std::env::temp_dir().join(format!("maitred-bench-{}.nets", std::process::id()));
    let lines: String = nets.iter().map(|net| format!("{net}\n")).collect();
    std::fs::write(&path, lines).expect("a temporary file");
    let mut group = criterion.benchmark_group("admit/acl, 100000 prefixes");
    group.sample_size(20);
    group.bench_function("read from a file", |bencher| bencher.iter(|| read_nets(&path)));
    group.bench_function("built", |bencher| bencher.iter(|| Acl::new(&[], &nets)));
    group.sample_size(100);
    let acl = Acl::new(&[], &nets);
    let mut number = 0_u32;
    group.bench_function("an IPv4 client", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            black_box(acl.allows(IpAddr::V4(address(number.wrapping_mul(31)))))
        });
    });
    group.bench_function("an IPv6 client", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            black_box(acl.allows(IpAddr::V6(address_v6(number.wrapping_mul(31)))))
        });
    });
    group.finish();
    // A temporary file that stays is a nuisance, no failure.
    let _ = std::fs::remove_file(path);
}

/// A microsecond between two who ask, and a rate that lets all of them in.
fn rates(criterion: &mut Criterion) {
    let rate = Rate { per_second: 10_000_000, burst: 1_000 };
    let (bucket, mut now_ns) = (Bucket::new(), 0);
    criterion.bench_function("admit/rate", |bencher| {
        bencher.iter(|| {
            now_ns += 1_000;
            black_box(bucket.take(rate, 1, now_ns))
        });
    });
    let rates = ClientRates::default();
    let mut number = 0_u32;
    criterion.bench_function("admit/rate of one of 100000 clients", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % CLIENTS;
            now_ns += 1_000;
            let bucket = rates.bucket(ClientNet::of(IpAddr::V4(address(number))), now_ns)?;
            Some(black_box(bucket.take(rate, 1, now_ns)))
        });
    });
}

fn sessions_per_client(criterion: &mut Criterion) {
    let clients = Clients::default();
    let net = |number| ClientNet::of(IpAddr::V4(address(number)));
    let held: Vec<_> = (0..CLIENTS).map(|number| clients.enter(net(number), 10)).collect();
    let mut number = 0_u32;
    criterion.bench_function("admit/a place of one of 100000 clients, and back", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % CLIENTS;
            black_box(clients.enter(net(number), 10))
        });
    });
    drop(held);
}

criterion_group!(benches, acl, long_acl, rates, sessions_per_client);
criterion_main!(benches);
