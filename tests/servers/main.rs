//! Tests of the real binary with real servers and clients. They need the packages of those (each test names the
//! one it misses) and root: `cargo test --test servers -- --test-threads 1`. `MAITRED_BINARY` names another binary than the
//! one built with them: what ships.

// A test that meets what it does not expect is to fail on the spot; its numbers are small, and metrics are floats.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod browser;
mod caching_sha2;
mod cluster;
#[path = "../corpus/mod.rs"]
mod corpus;
mod dashboards;
mod descriptors;
mod discovery;
mod dns;
mod failover;
mod flood;
mod harness;
#[path = "../corpus/hello.rs"]
mod hello;
mod judgement;
mod life;
mod logins;
mod local;
mod loris;
mod mariadb;
mod memory;
mod mutated;
mod names;
mod namespace;
mod nginx;
mod postgresql;
mod privileges;
mod probes;
mod promtool;
mod proxied;
mod quic;
mod recipes;
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
mod zones;
