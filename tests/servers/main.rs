//! Tests of the real binary with real servers and clients. They need the packages of those (each test names the
//! one it misses) and root: `cargo test --release --test servers -- --test-threads 2`.

// A test that meets what it does not expect is to fail on the spot; its numbers are small.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod harness;
mod life;
mod mariadb;
mod nginx;
mod postgresql;
mod promtool;
mod redis;
