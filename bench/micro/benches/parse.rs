//! Bytes to values and back: a whole configuration, the header in front of a datagram, the answer to a DNS probe.

use std::hint::black_box;
use std::net::SocketAddr;

use criterion::{Criterion, criterion_group, criterion_main};
use maitred::config::{DnsRecord, Source, load};
use maitred::data::wire::dns;
use maitred::data::wire::proxy_protocol::datagram::{MAX_HEADER, header};

/// Every key there is.
const REFERENCE: &str = include_str!("../../../conf/reference.yaml");

fn configuration(criterion: &mut Criterion) {
    let sources = [Source { name: "reference.yaml".into(), text: REFERENCE.into() }];
    assert!(load(&sources, &|_| None).is_ok());
    criterion.bench_function("parse/reference.yaml to a checked configuration", |bencher| {
        bencher.iter(|| load(black_box(&sources), &|_| None));
    });
}

fn headers(criterion: &mut Criterion) {
    let four = ["192.0.2.7:40000", "198.51.100.1:53"];
    let six = ["[2001:db8::7]:40000", "[2001:db8:1::1]:53"];
    for (family, addresses) in [("IPv4", four), ("IPv6", six)] {
        let [client, local] = addresses.map(|text| {
            let address: SocketAddr = text.parse().expect("it is written above");
            address
        });
        criterion.bench_function(&format!("parse/PROXY v2 header over {family}"), |bencher| {
            let mut out = [0; MAX_HEADER];
            bencher.iter(|| header(black_box(client), black_box(local), black_box(&mut out)));
        });
    }
}

fn dns_probe(criterion: &mut Criterion) {
    let query = dns::query(0x1234, "probe.example.com", DnsRecord::A as u16);
    let mut reply = query.clone();
    // A response, recursion available, and one address that the question's name points to.
    (reply[2], reply[3], reply[7]) = (0x81, 0x80, 1);
    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    assert_eq!(dns::answer(&query, &reply), dns::Answer::Answered);
    criterion.bench_function("parse/DNS probe: query", |bencher| {
        bencher.iter(|| dns::query(0x1234, black_box("probe.example.com"), DnsRecord::A as u16));
    });
    criterion.bench_function("parse/DNS probe: answer", |bencher| {
        bencher.iter(|| dns::answer(black_box(&query), black_box(&reply)));
    });
}

criterion_group!(benches, configuration, headers, dns_probe);
criterion_main!(benches);
