//! Tests of the real binary with real servers and clients. They need the packages of those (each test names the
//! one it misses) and root: `cargo test --release --test servers -- --test-threads 2`.

// A test that meets what it does not expect is to fail on the spot; its numbers are small, and metrics are floats.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod browser;
// The integration tests use more of it.
#[allow(dead_code)]
#[path = "../it/balancer.rs"]
mod balancer;
#[path = "../corpus/mod.rs"]
mod corpus;
mod dashboards;
mod descriptors;
mod discovery;
mod dns;
mod flood;
mod harness;
#[path = "../corpus/hello.rs"]
mod hello;
mod judgement;
mod life;
mod local;
mod loris;
mod mariadb;
mod memory;
mod mutated;
mod names;
mod namespace;
mod nginx;
// The same as there, but of what ships, and of far more sessions.
#[path = "../it/oracle.rs"]
mod oracle;
mod postgresql;
mod privileges;
mod promtool;
mod proxied;
mod quic;
mod redis;
mod scrape;
mod source_ports;
mod status_page;
mod storm;
mod syscalls;
mod syslog;
mod systemd;
mod tls;
mod udp_exact;
mod udp_workers;
