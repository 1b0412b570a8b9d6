//! What probes cost that log in: 500 databases, each probed every two seconds. The servers are few, and have many addresses.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PASSWORD};
use crate::failover::times;
use crate::harness::{Maitred, free_port, is_optimized, pause, thread_time, wait_for};

const COUNT: usize = 500;

fn config(port: u16, probe: &str, more: &str) -> String {
    let address = |number: usize| {
        let (third, fourth) = (number / 200 + 1, number % 200 + 1);
        format!("\"127.0.{third}.{fourth}:{port}\"")
    };
    let backends: Vec<String> = (0..COUNT).map(address).collect();
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{}\", pool: main}}}}
pools:
  main:
    backends: [{}]
    health: {{probe: {{{probe}}}, interval: 2s, timeout: 1s, {more}}}
",
        free_port(),
        backends.join(", ")
    )
}

/// Percent of a core, and the most and the fewest probes that ended in a tenth of a second.
fn measure(what: &str, port: u16, probe: &str, more: &str) {
    let maitred = Maitred::start(&config(port, probe, more));
    let up = || maitred.metric("maitred_pool_backends", &[("state", "up")]);
    wait_for("all databases to be up", || up() > COUNT as f64 - 0.5);
    let passed = || maitred.metric("maitred_probe_duration_seconds_count", &[]);
    // One whole round, so that each has its time; then ten seconds are measured.
    let begun = passed();
    wait_for("a round", || passed() > begun + COUNT as f64);
    let probes_so_far = passed();
    let before = (thread_time(maitred.process.id(), "health"), Instant::now());
    // Only time passes: the scrapes that a finer look would need cost more than the probes.
    pause(if times() > 1 { 10_000 } else { 2_000 });
    let busy = thread_time(maitred.process.id(), "health") - before.0;
    let seconds = before.1.elapsed().as_secs_f64();
    let probes = passed() - probes_so_far;
    let share = busy.as_secs_f64() / seconds * 100.0;
    println!(
        "{what}: {share:.2} % of a core, {:.0} probes a second, {:.0} µs each",
        probes / seconds,
        busy.as_secs_f64() / probes * 1e6
    );
    let expected = COUNT as f64 / 2.0 * seconds;
    assert!(probes > 0.8 * expected, "{probes} probes in {seconds} s");
    let slots = spread(&passed);
    let (most, mean) =
        (slots.iter().max().unwrap(), slots.iter().sum::<u32>() / slots.len() as u32);
    println!("{what}: {mean} probes in a tenth of a second, {most} at most");
    if is_optimized() {
        assert!(*most <= 4 * mean.max(1), "a burst: {slots:?}");
    }
    let metrics = maitred.metrics();
    let all = metrics.value("maitred_probes_total", &[]);
    let fine = metrics.value("maitred_probes_total", &[("result", "passed")]);
    assert!((all - fine).abs() < 0.5, "{all} probes, {fine} passed");
}

/// How many probes ended in each tenth of three seconds.
fn spread(passed: &dyn Fn() -> f64) -> Vec<u32> {
    let (mut slots, mut last) = (Vec::new(), passed());
    let mut next = Instant::now();
    for _ in 0..30 {
        next += Duration::from_millis(100);
        // The grid of the measurement.
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = passed();
        slots.push((now - last) as u32);
        last = now;
    }
    slots
}

#[test]
fn five_hundred_databases() {
    let more = ["max_connections=700", "shared_buffers=16MB"];
    let cluster = Cluster::start_at(&["0.0.0.0"], "host all all all scram-sha-256", &more);
    let port = cluster.servers[0].port;
    let postgres = format!("postgres: {{user: postgres, password: \"{PASSWORD}\", role: primary}}");
    measure("postgres, fresh", port, &postgres, "connection: fresh");
    measure("postgres, kept", port, &postgres, "connection: kept");
    drop(cluster);
    if times() == 1 {
        return;
    }
    let dir = crate::mariadb::folder();
    let port = free_port();
    let more = ["--bind-address=0.0.0.0", "--max-connections=700"];
    let _server = crate::mariadb::start_with(&dir.path().join("data"), port, &more);
    crate::mariadb::ask(port, "create user probe identified by 'a secret'");
    let mysql = "mysql: {user: probe, password: \"a secret\", role: primary}";
    measure("mysql, fresh", port, mysql, "connection: fresh");
    measure("mysql, kept", port, mysql, "connection: kept");
    let port = free_port();
    let more = ["--bind", "0.0.0.0", "--requirepass", "a secret"];
    let _server = crate::redis::start_with(port, &more);
    wait_for("Redis", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let redis = "redis: {password: \"a secret\", role: primary}";
    measure("redis, fresh", port, redis, "connection: fresh");
    measure("redis, kept", port, redis, "connection: kept");
}
