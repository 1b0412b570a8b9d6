//! A database loses its primary under load, in every way it can: killed, frozen, cut off, demoted. What clients see: those
//! on the old primary are let go within `fall` × `interval` + `timeout`, no write reaches a server that is read-only, and
//! those who connect meanwhile wait and are served.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Cluster, PASSWORD, client};
use crate::harness::{Maitred, Process, free_port, output, succeed, wait_for, within};
use crate::namespace;

const INTERVAL: u64 = 500;
const TIMEOUT: u64 = 500;
const FALL: u64 = 2;

/// When every client of the old primary must have been let go, in milliseconds; a little for a busy machine.
const LET_GO: u64 = FALL * (INTERVAL + INTERVAL / 10) + TIMEOUT + 1_500;

const ADDRESSES: [&str; 3] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
const HBA: &str = "host all all all scram-sha-256";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Killed,
    Frozen,
    CutOff,
    Demoted,
}

/// How often each fault is made; `scripts/check --long` asks for more.
fn times() -> usize {
    std::env::var("MAITRED_FAILOVERS").map_or(1, |it| it.parse().unwrap())
}

fn config(write: u16, read: u16, cluster: &Cluster) -> String {
    let backends: Vec<String> = ADDRESSES
        .iter()
        .zip(cluster.ports())
        .enumerate()
        .map(|(number, (address, port))| {
            format!("{{address: \"{address}:{port}\", name: s{number}}}")
        })
        .collect();
    let backends = backends.join(", ");
    let health = |role: &str| {
        format!(
            "{{probe: {{postgres: {{user: postgres, password: \"{PASSWORD}\", role: {role}}}}}, \
             interval: {INTERVAL}ms, timeout: {TIMEOUT}ms, rise: 1, fall: {FALL}, start: down}}"
        )
    };
    format!(
        "listeners:
  write: {{bind: \"127.0.0.1:{write}\", pool: writers}}
  read: {{bind: \"127.0.0.1:{read}\", pool: readers}}
pools:
  writers:
    backends: [{backends}]
    health: {}
    connect: {{timeout: 1s}}
    on_down: reset
    when_none_up: {{hold: {{for: 30s, max: 1000}}}}
  readers:
    backends: [{backends}]
    health: {}
    connect: {{timeout: 1s}}
    on_down: reset
    when_none_up: {{hold: {{for: 30s, max: 1000}}}}
",
        health("primary"),
        health("replica")
    )
}

/// One client that came, wrote a row and left.
struct Write {
    begun: Instant,
    ended: Instant,
    error: Option<String>,
}

/// Clients that each connect, write and leave, one after the other, until they are stopped.
struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(port: u16, count: usize) -> Writers {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let work = |_| {
            let (stop, writes) = (Arc::clone(&stop), Arc::clone(&writes));
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let begun = Instant::now();
                    let mut psql = client("psql", port);
                    psql.args(["-XAtq", "-c", "insert into writes values (1)", "postgres"]);
                    let output = output(psql.env("PGCONNECT_TIMEOUT", "30"));
                    let error = String::from_utf8_lossy(&output.stderr).into_owned();
                    let error = (!output.status.success()).then_some(error);
                    writes.lock().unwrap().push(Write { begun, ended: Instant::now(), error });
                }
            })
        };
        let threads = (0..count).map(work).collect();
        Writers { stop, writes, threads }
    }

    fn written_since(&self, moment: Instant) -> usize {
        let writes = self.writes.lock().unwrap();
        writes.iter().filter(|it| it.begun > moment && it.error.is_none()).count()
    }

    fn stop(self) -> Vec<Write> {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.writes.lock().unwrap())
    }
}

/// Sessions that stay, and write as fast as they can.
fn load(port: u16, dir: &std::path::Path) -> Process {
    let script = dir.join("insert.sql");
    std::fs::write(&script, "insert into writes values (2);\n").unwrap();
    let mut command = client("pgbench", port);
    command.args(["-n", "-c", "6", "-j", "2", "-T", "60", "-f"]).arg(script).arg("postgres");
    Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn iptables(line: &str) {
    for (chain, side) in [("INPUT", "-d"), ("OUTPUT", "-s")] {
        let rule = line.replace("CHAIN", chain).replace("SIDE", side);
        succeed(std::process::Command::new("iptables").args(rule.split(' ')));
    }
}

/// `-w`: two changes at once would disturb each other.
fn cut_off(address: &str) {
    iptables(&format!("-w -I CHAIN SIDE {address} -j DROP"));
}

fn fail_over(fault: Fault) {
    let mut cluster = Cluster::start_at(&ADDRESSES, HBA, &[]);
    cluster.servers[0].must("create table writes (kind int)");
    let (write, read) = (free_port(), free_port());
    let maitred = Maitred::start(&config(write, read, &cluster));
    maitred.wait_for_said("writers", "s0", "state", "up");
    maitred.wait_for_said("readers", "s2", "state", "up");
    let mut load = load(write, cluster.dir.path());
    let writers = Writers::start(write, 3);
    let started = Instant::now();
    wait_for("a flow of writes", || writers.written_since(started) > 20);
    let broke = Instant::now();
    match fault {
        Fault::Killed => cluster.servers[0].process.kill(),
        Fault::Frozen => cluster.servers[0].freeze(Signal::STOP),
        Fault::CutOff => cut_off(ADDRESSES[0]),
        // As every tool does it: the old one first, and cleanly.
        Fault::Demoted => {
            cluster.servers[0].process.signal(Signal::INT);
            cluster.servers[0].process.end();
        }
    }
    let limit = Duration::from_millis(LET_GO);
    assert!(within(limit, || load.has_ended().is_some()), "{fault:?}: sessions are still there");
    let let_go = broke.elapsed();
    let said = load.outcome();
    let aborted = said.2.lines().filter(|line| line.contains("aborted in command")).count();
    assert_eq!(aborted, 6, "{}", said.2);
    maitred.wait_for_said("writers", "s0", "reason", "dead");
    let held = || maitred.metric("maitred_pool_held_sessions", &[("pool", "writers")]);
    wait_for("clients to be held", || held() > 0.5);
    cluster.servers[1].promote();
    let promoted = Instant::now();
    if fault == Fault::Demoted {
        cluster.servers[0].follow_at(ADDRESSES[1], cluster.servers[1].port);
        cluster.servers[0].restart(&[]);
    }
    maitred.wait_for_said("writers", "s1", "state", "up");
    wait_for("writes on the new primary", || writers.written_since(promoted) > 50);
    if fault == Fault::Demoted {
        maitred.wait_for_said("writers", "s0", "reason", "wrong_role");
        maitred.wait_for_said("readers", "s0", "state", "up");
    }
    let writes = writers.stop();
    judge(fault, &writes, (broke, let_go, promoted));
    let since: usize = writes.iter().filter(|it| it.error.is_none() && it.begun > promoted).count();
    let rows: usize =
        cluster.servers[1].must("select count(*) from writes where kind = 1").parse().unwrap();
    assert!(rows >= since, "{rows} rows, and {since} writes since the promotion alone");
    // Readers never noticed, or got another replica.
    assert_eq!(crate::cluster::ask(read, "select pg_is_in_recovery()").as_deref(), Some("t"));
    if fault == Fault::Frozen {
        cluster.servers[0].freeze(Signal::CONT);
    }
}

fn judge(fault: Fault, writes: &[Write], (broke, let_go, promoted): (Instant, Duration, Instant)) {
    let failed: Vec<&Write> = writes.iter().filter(|it| it.error.is_some()).collect();
    for write in &failed {
        let error = write.error.as_deref().unwrap();
        assert!(!error.contains("read-only"), "a write reached a replica: {error}");
        assert!(write.begun < promoted, "{fault:?}: a client that came later failed: {error}");
    }
    // Of each of the three at most two: the one under way, and the one that got a server which was dead already, and was
    // not known to be.
    assert!(failed.len() <= 6, "{fault:?}: {} writes failed", failed.len());
    let longest = writes.iter().filter(|it| it.error.is_none()).map(|it| it.ended - it.begun).max();
    let mut ends: Vec<Instant> =
        writes.iter().filter(|it| it.error.is_none()).map(|it| it.ended).collect();
    ends.sort();
    let gap = ends.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default();
    println!(
        "{fault:?}: sessions let go after {} ms, promoted after {} ms, no write for {} ms, {} of {} writes failed, \
         the longest of the others took {} ms",
        let_go.as_millis(),
        (promoted - broke).as_millis(),
        gap.as_millis(),
        failed.len(),
        writes.len(),
        longest.unwrap_or_default().as_millis()
    );
}

#[test]
fn postgresql_loses_its_primary() {
    namespace::alone("failover::postgresql_loses_its_primary", || {
        for _ in 0..times() {
            for fault in [Fault::Killed, Fault::Frozen, Fault::CutOff, Fault::Demoted] {
                fail_over(fault);
                // A server is where the next one will be.
                let _ = std::process::Command::new("iptables").args(["-w", "-F"]).status();
            }
        }
    });
}

/// Replay is paused while the primary goes on: by the bytes that are left to replay, and by the age of what was replayed.
#[test]
fn a_replica_that_lags_loses_new_sessions_keeps_its_old_ones_and_returns() {
    let cluster = Cluster::start(2, HBA, &[]);
    let (primary, replica) = (&cluster.servers[0], &cluster.servers[1]);
    primary.must("create table filling (text text)");
    let backends = crate::harness::backends(&cluster.ports());
    let health = |max_lag: &str| {
        format!(
            "{{probe: {{postgres: {{user: postgres, password: \"{PASSWORD}\", role: replica, max_lag: {max_lag}}}}}, \
             interval: 100ms, rise: 1, fall: 2, start: down}}"
        )
    };
    let (bytes, time) = (free_port(), free_port());
    let maitred = Maitred::start(&format!(
        "listeners:
  bytes: {{bind: \"127.0.0.1:{bytes}\", pool: bytes}}
  time: {{bind: \"127.0.0.1:{time}\", pool: time}}
pools:
  bytes: {{backends: [{backends}], on_down: reset, health: {}}}
  time: {{backends: [{backends}], on_down: reset, health: {}}}
",
        health("1MiB"),
        health("1s")
    ));
    for pool in ["bytes", "time"] {
        for name in ["s1", "s2"] {
            maitred.wait_for_said(pool, name, "state", "up");
        }
    }
    // Sessions that sleep on both replicas.
    let sleep = |_| {
        let mut psql = client("psql", bytes);
        // The server waits, not this test.
        psql.args(["-XAtq", "-c", "select pg_sleep(8), inet_server_port()", "postgres"]);
        Process::start(psql.stdout(Stdio::piped()).stderr(Stdio::piped()))
    };
    let sleepers: Vec<Process> = (0..4).map(sleep).collect();
    let active = [("pool", "bytes"), ("backend", "s1")];
    let on_replica = || maitred.metric("maitred_backend_sessions_active", &active);
    wait_for("sessions", || on_replica() > 1.5);
    replica.must("select pg_wal_replay_pause()");
    primary.must("insert into filling select repeat('x', 1000) from generate_series(1, 5000)");
    maitred.wait_for_said("bytes", "s1", "reason", "lagging");
    maitred.wait_for_said("time", "s1", "reason", "lagging");
    let why = maitred.said("bytes", "s1", "why");
    assert!(
        why.contains("found it lagging") && why.contains("MiB behind, more than 1MiB"),
        "{why}"
    );
    let why = maitred.said("time", "s1", "why");
    assert!(why.contains(" s behind, more than 1s"), "{why}");
    let port_of = |server: usize| cluster.servers[server].port.to_string();
    for _ in 0..10 {
        let served = crate::cluster::ask(bytes, "select inet_server_port()");
        assert_eq!(served, Some(port_of(2)), "new sessions go to the other one");
    }
    assert!(on_replica() > 1.5, "its sessions stay");
    replica.must("select pg_wal_replay_resume()");
    maitred.wait_for_said("bytes", "s1", "state", "up");
    maitred.wait_for_said("time", "s1", "state", "up");
    for sleeper in sleepers {
        let (status, _, err) = sleeper.outcome();
        assert!(status.success(), "{err}");
    }
    // A replica without a primary cannot tell, and an idle primary makes no lag.
    let lagging =
        maitred.metric("maitred_probes_total", &[("result", "lagging"), ("backend", "s2")]);
    assert!(lagging < 0.5, "{lagging} probes found the other one lagging");
}
