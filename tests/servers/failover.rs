//! A database loses its primary under load, in every way it can: killed, frozen, cut off, demoted. What clients see: those
//! on the old primary are let go within `fall` × `interval` + `timeout`, no write reaches a server that is read-only, and
//! those who connect meanwhile wait and are served.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PASSWORD, Postgresql, client};
use crate::harness::{Maitred, PATIENCE, Process, free_port, succeed, wait_for, within};
use crate::mariadb::Pair;
use crate::namespace;
use crate::redis::Trio;

const INTERVAL: u64 = 500;
const TIMEOUT: u64 = 500;
const FALL: u64 = 2;

/// When every client of the old primary must have been let go, in milliseconds; a little for a busy machine.
const LET_GO: u64 = FALL * (INTERVAL + INTERVAL / 10) + TIMEOUT + 1_500;

/// Sessions that stay, and clients that come and go.
const STAYING: usize = 6;
const VISITING: usize = 3;

/// Where the servers of a test are.
pub const ADDRESSES: [&str; 3] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Killed,
    Frozen,
    CutOff,
    Demoted,
}

const FAULTS: [Fault; 4] = [Fault::Killed, Fault::Frozen, Fault::CutOff, Fault::Demoted];

/// Connects, writes, and leaves; what went wrong.
pub type Visit = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Connects and writes until the session breaks; how it did.
pub type Stay = Box<dyn Fn() -> String + Send + Sync>;

/// Servers at `ADDRESSES`; the first is the primary, `s0`, and the second, `s1`, becomes it.
pub trait Database {
    fn name(&self) -> &'static str;
    fn ports(&self) -> Vec<u16>;
    /// Of the configuration.
    fn probe(&self, role: &str) -> String;
    fn visit(&self, port: u16) -> Visit;
    fn stay(&self, port: u16) -> Stay;
    /// The words of a server that takes no writes.
    fn is_refusal(&self, error: &str) -> bool;
    fn kill(&mut self);
    /// And goes on, if not.
    fn freeze(&mut self, is_frozen: bool);
    /// Takes the role from the primary as one does by hand, which ends its sessions, or does not.
    fn demote(&mut self);
    fn promote(&mut self);
    /// The demoted one follows the new primary.
    fn follow(&mut self);
}

/// How often each fault is made; `scripts/check --long` asks for more.
pub fn times() -> usize {
    std::env::var("MAITRED_FAILOVERS").map_or(1, |it| it.parse().unwrap())
}

fn config(write: u16, read: u16, database: &dyn Database) -> String {
    let places = ADDRESSES.iter().zip(database.ports()).enumerate();
    let backend =
        |(number, (address, port))| format!("{{address: \"{address}:{port}\", name: s{number}}}");
    let backends: Vec<String> = places.map(backend).collect();
    let pool = |role: &str| {
        format!(
            "{{backends: [{}], connect: {{timeout: 1s}}, on_down: reset, \
             when_none_up: {{hold: {{for: 30s, max: 1000}}}}, \
             health: {{probe: {}, interval: {INTERVAL}ms, timeout: {TIMEOUT}ms, rise: 1, fall: {FALL}, start: down}}}}",
            backends.join(", "),
            database.probe(role)
        )
    };
    format!(
        "listeners:
  write: {{bind: \"127.0.0.1:{write}\", pool: writers}}
  read: {{bind: \"127.0.0.1:{read}\", pool: readers}}
pools:
  writers: {}
  readers: {}
",
        pool("primary"),
        pool("replica")
    )
}

/// One client that came, wrote and left.
struct Write {
    begun: Instant,
    ended: Instant,
    error: Option<String>,
}

/// Clients that come one after the other, until they are stopped.
pub struct Writers {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<Vec<Write>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(visit: Visit) -> Writers {
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let visit = Arc::new(visit);
        let work = |_| {
            let (stop, writes) = (Arc::clone(&stop), Arc::clone(&writes));
            let visit = Arc::clone(&visit);
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    let begun = Instant::now();
                    let error = visit().err();
                    writes.lock().unwrap().push(Write { begun, ended: Instant::now(), error });
                    // A person's pace, so that the machine is not what is measured.
                    std::thread::sleep(Duration::from_millis(5));
                }
            })
        };
        let threads = (0..VISITING).map(work).collect();
        Writers { stop, writes, threads }
    }

    pub fn written_since(&self, moment: Instant) -> usize {
        let writes = self.writes.lock().unwrap();
        writes.iter().filter(|it| it.begun > moment && it.error.is_none()).count()
    }

    /// More writes that began after this moment; else what the last ones met, and what maitred says.
    pub fn must_go_on(&self, maitred: &Maitred, moment: Instant) {
        if within(PATIENCE, || self.written_since(moment) > 20) {
            return;
        }
        let writes = self.writes.lock().unwrap();
        let errors: Vec<&String> = writes.iter().rev().filter_map(|it| it.error.as_ref()).collect();
        let errors = &errors[..errors.len().min(3)];
        panic!("no more writes: {errors:?}\n{}", maitred.show("pools"));
    }

    /// Stops, and prints what the clients saw.
    pub fn tell(self, what: &str) {
        let writes = self.stop();
        let failed = writes.iter().filter(|it| it.error.is_some()).count();
        let gap = longest_gap(&writes).as_millis();
        println!("{what}: no write for {gap} ms, {failed} of {} writes failed", writes.len());
    }

    fn stop(self) -> Vec<Write> {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.writes.lock().unwrap())
    }
}

fn iptables(line: &str) {
    succeed(Command::new("iptables").arg("-w").args(line.split(' ')));
}

fn cut_off(address: &str) {
    iptables(&format!("-I INPUT -d {address} -j DROP"));
    iptables(&format!("-I OUTPUT -s {address} -j DROP"));
}

fn fail_over(database: &mut dyn Database, fault: Fault) {
    let (write, read) = (free_port(), free_port());
    let maitred = Maitred::start(&config(write, read, database));
    maitred.wait_for_said("writers", "s0", "state", "up");
    maitred.wait_for_said("readers", "s1", "state", "up");
    let stay = Arc::new(database.stay(write));
    let staying = (0..STAYING).map(|_| {
        let stay = Arc::clone(&stay);
        std::thread::spawn(move || stay())
    });
    let staying: Vec<JoinHandle<String>> = staying.collect();
    let writers = Writers::start(database.visit(write));
    let started = Instant::now();
    wait_for("a flow of writes", || writers.written_since(started) > 20);
    let active = || maitred.metric("maitred_backend_sessions_active", &[("pool", "writers")]);
    wait_for("those who stay", || active() > STAYING as f64 - 0.5);
    let broke = Instant::now();
    match fault {
        Fault::Killed => database.kill(),
        Fault::Frozen => database.freeze(true),
        Fault::CutOff => cut_off(ADDRESSES[0]),
        Fault::Demoted => database.demote(),
    }
    let limit = Duration::from_millis(LET_GO);
    let all_left = within(limit, || staying.iter().all(JoinHandle::is_finished));
    let let_go = broke.elapsed();
    assert!(all_left, "{fault:?}: sessions are still there");
    let errors: Vec<String> = staying.into_iter().map(|it| it.join().unwrap()).collect();
    assert!(errors.iter().all(|error| !error.is_empty()), "{errors:?}");
    wait_for("the verdict", || maitred.said("writers", "s0", "state") != "up");
    let verdict = Instant::now();
    let held = || maitred.metric("maitred_pool_held_sessions", &[("pool", "writers")]);
    wait_for("clients to be held", || held() > 0.5);
    database.promote();
    let promoted = Instant::now();
    if fault == Fault::Demoted {
        database.follow();
    }
    maitred.wait_for_said("writers", "s1", "state", "up");
    wait_for("writes on the new primary", || writers.written_since(promoted) > 50);
    if fault == Fault::Demoted {
        maitred.wait_for_said("writers", "s0", "reason", "wrong_role");
        maitred.wait_for_said("readers", "s0", "state", "up");
    }
    let writes = writers.stop();
    let moments = Moments { broke, let_go, verdict, promoted };
    judge(database, fault, &writes, &moments);
    if fault == Fault::Frozen {
        database.freeze(false);
    }
}

fn longest_gap(writes: &[Write]) -> Duration {
    let mut ends: Vec<Instant> =
        writes.iter().filter(|it| it.error.is_none()).map(|it| it.ended).collect();
    ends.sort();
    ends.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

struct Moments {
    broke: Instant,
    let_go: Duration,
    verdict: Instant,
    promoted: Instant,
}

fn judge(database: &dyn Database, fault: Fault, writes: &[Write], moments: &Moments) {
    let Moments { broke, let_go, verdict, promoted } = *moments;
    let failed: Vec<&Write> = writes.iter().filter(|it| it.error.is_some()).collect();
    for write in &failed {
        let error = write.error.as_deref().unwrap();
        let is_late = write.begun > verdict;
        assert!(!is_late, "{fault:?}: a client that came after the verdict failed: {error}");
        // Those who were there while the role was taken from under them are told so, and by the server.
        assert!(fault == Fault::Demoted || !database.is_refusal(error), "{fault:?}: {error}");
    }
    let refused = failed.iter().filter(|it| database.is_refusal(it.error.as_deref().unwrap()));
    let refused = refused.count();
    if fault != Fault::Demoted {
        // Of each at most two: the one under way, and the one that got a server which was dead already, and was not known
        // to be.
        assert!(failed.len() <= 2 * VISITING, "{fault:?}: {} writes failed", failed.len());
    }
    let gap = longest_gap(writes);
    println!(
        "{} {fault:?}: sessions let go after {} ms, promoted after {} ms, no write for {} ms, {} of {} writes failed \
         ({refused} told that it is read-only, before the verdict)",
        database.name(),
        let_go.as_millis(),
        (promoted - broke).as_millis(),
        gap.as_millis(),
        failed.len(),
        writes.len(),
    );
}

/// Each fault, each time with new servers.
fn lose_the_primary<D: Database>(start: impl Fn() -> D) {
    for _ in 0..times() {
        for fault in FAULTS {
            fail_over(&mut start(), fault);
            // The next servers are where these were.
            iptables("-F");
        }
    }
}

#[test]
fn postgresql_loses_its_primary() {
    namespace::alone("failover::postgresql_loses_its_primary", || {
        lose_the_primary(Postgresql::start);
    });
}

#[test]
fn mariadb_loses_its_primary() {
    namespace::alone("failover::mariadb_loses_its_primary", || lose_the_primary(Pair::start));
}

#[test]
fn redis_loses_its_primary() {
    namespace::alone("failover::redis_loses_its_primary", || lose_the_primary(Trio::start));
}

const HBA: &str = "host all all all scram-sha-256";

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
