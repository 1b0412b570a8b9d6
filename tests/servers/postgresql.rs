//! PostgreSQL behind maitred, under pgbench: a server is killed with all its processes and comes back.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::{
    Maitred, Process, backends, balanced, free_port, output, program, run_as, succeed, user,
    wait_for,
};

use crate::names::certify;

const PACKAGE: &str = "postgresql-15";

/// What pgbench printed, and how many of its clients lost their connection.
struct Bench {
    said: String,
    aborted: usize,
}

fn database_user() -> (u32, u32) {
    user("postgres", PACKAGE)
}

fn start(data: &Path, port: u16) -> Process {
    start_to(Stdio::null(), data, port)
}

fn start_to(log: Stdio, data: &Path, port: u16) -> Process {
    let mut command = run_as(database_user(), &program("postgres", PACKAGE));
    command.arg("-D").arg(data).args(["-p", &port.to_string(), "-c", "fsync=off"]);
    command.args(["-c", "listen_addresses=127.0.0.1", "-c"]);
    command.arg(format!("unix_socket_directories={}", data.parent().unwrap().display()));
    let process = Process::start(command.stdout(Stdio::null()).stderr(log));
    wait_for("PostgreSQL", || {
        let mut psql = client("psql", port);
        output(psql.args(["-c", "select 1", "postgres"])).status.success()
    });
    process
}

fn client(name: &str, port: u16) -> Command {
    let mut command = Command::new(program(name, PACKAGE));
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    command
}

/// Three directories of data with the tables of pgbench in each.
fn databases() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (uid, gid) = database_user();
    chown(dir.path(), Some(uid), Some(gid)).unwrap();
    let first = dir.path().join("s0");
    let mut initdb = run_as(database_user(), &program("initdb", PACKAGE));
    initdb.args(["--no-sync", "-A", "trust", "-U", "postgres", "-D"]).arg(&first);
    succeed(&mut initdb);
    let port = free_port();
    let mut server = start(&first, port);
    succeed(client("pgbench", port).args(["-i", "-q", "-s", "1", "postgres"]));
    server.signal(Signal::INT);
    assert!(server.end().success());
    for name in ["s1", "s2"] {
        succeed(Command::new("cp").arg("-a").arg(&first).arg(dir.path().join(name)));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    dir
}

fn bench(port: u16, arguments: &[&str]) -> Process {
    let mut command = client("pgbench", port);
    command.args(["-n", "-S"]).args(arguments).arg("postgres");
    Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn finish(bench: Process, may_break: bool) -> Bench {
    let (status, out, err) = bench.outcome();
    let said = out + &err;
    assert!(status.success() || may_break, "pgbench: {status}\n{said}");
    let aborted = err.lines().filter(|line| line.contains("aborted in command")).count();
    Bench { said, aborted }
}

/// Each probe is a connection that comes and goes, and not one that broke.
#[test]
fn probes_leave_no_trace_in_the_servers_log() {
    let dir = databases();
    let log = dir.path().join("log");
    let server = free_port();
    let out = fs::File::create(&log).unwrap();
    let _server = start_to(out.into(), &dir.path().join("s0"), server);
    let before = fs::read_to_string(&log).unwrap();
    let maitred = Maitred::start(&balanced(free_port(), &[server], "tcp"));
    wait_for("probes", || maitred.metric("maitred_probes_total", &[("result", "passed")]) > 19.5);
    drop(maitred);
    assert_eq!(fs::read_to_string(&log).unwrap(), before);
}

#[test]
fn a_killed_server_costs_no_more_than_its_own_sessions() {
    let dir = databases();
    let ports = [free_port(), free_port(), free_port()];
    let data = [0, 1, 2].map(|index| dir.path().join(format!("s{index}")));
    let mut servers = [0, 1, 2].map(|index| start(&data[index], ports[index]));
    let port = free_port();
    let probe =
        "{exchange: {send: {hex: \"00 00 00 08 04 d2 16 2f\"}, expect: {regex: \"^[SN]\"}}}";
    let maitred = Maitred::start(&balanced(port, &ports, probe));
    for name in ["s0", "s1", "s2"] {
        maitred.wait_for_state(name, "up");
    }
    let running = bench(port, &["-c", "8", "-T", "4"]);
    let active = || maitred.metric("maitred_backend_sessions_active", &[("backend", "s1")]);
    wait_for("all clients", || maitred.metric("maitred_backend_sessions_active", &[]) > 7.5);
    let on_killed = active() as usize;
    servers[1].kill();
    maitred.wait_for_state("s1", "down");
    servers[1] = start(&data[1], ports[1]);
    maitred.wait_for_state("s1", "up");
    let broken = finish(running, true);
    println!("pgbench during the kill: {} of 8 clients aborted\n{}", broken.aborted, broken.said);
    assert!((1..=3).contains(&on_killed), "{on_killed} of 8 sessions were on s1");
    assert_eq!(broken.aborted, on_killed, "{}", broken.said);
    let before = ["s0", "s1", "s2"].map(|name| maitred.sessions_total(name));
    for arguments in [&["-c", "9", "-t", "300"][..], &["-C", "-c", "6", "-t", "30"][..]] {
        let bench = finish(bench(port, arguments), false);
        assert_eq!(bench.aborted, 0);
        assert!(bench.said.contains("number of failed transactions: 0"), "{}", bench.said);
        println!("pgbench {arguments:?}: {}", bench.said.lines().last().unwrap_or_default());
    }
    for (name, before) in ["s0", "s1", "s2"].into_iter().zip(before) {
        assert!(maitred.sessions_total(name) >= before + 3.0, "{name} got its share");
    }
}

/// Cancels the query of a psql that is connected through maitred, so often, as an impatient user does.
fn cancelled(servers: &[u16], port: u16, mode: &str, times: usize) -> usize {
    let mut cancelled = 0;
    for number in 0..times {
        // The server sleeps, until it is told not to.
        let query = format!("select pg_sleep(60), {number}");
        let mut psql = client("psql", port);
        psql.env("PGSSLMODE", mode).args(["-c", &query, "postgres"]);
        let psql = Process::start(psql.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let running = format!(
            "select 1 from pg_stat_activity where state = 'active' and query = '{query}' and wait_event = 'PgSleep'"
        );
        wait_for("the query to run", || {
            servers.iter().any(|server| {
                let mut ask = client("psql", *server);
                let asked = output(ask.args(["-At", "-c", &running, "postgres"]));
                asked.stdout.starts_with(b"1")
            })
        });
        psql.signal(Signal::INT);
        let (_, _, said) = psql.outcome();
        if said.contains("canceling statement due to user request") {
            cancelled += 1;
        } else {
            println!("{mode}, {number}: {said}");
        }
    }
    cancelled
}

/// CANCELS=100 tries each way so often.
#[test]
fn a_query_is_cancelled_on_whichever_server_it_runs() {
    let dir = databases();
    let ports = [free_port(), free_port()];
    let _servers = [0, 1].map(|index| start(&dir.path().join(format!("s{index}")), ports[index]));
    let times = std::env::var("CANCELS").ok().and_then(|it| it.parse().ok()).unwrap_or(8);
    certify(dir.path(), "db.test");
    let place = dir.path().display();
    let tls = format!(
        "tls: {{certificates: [{{certificate: {place}/db.test.crt, key: {place}/db.test.key}}], alpn: [postgresql]}}"
    );
    let (plain, encrypted) = (free_port(), free_port());
    let maitred = Maitred::start(&format!(
        "listeners:
  plain: {{bind: \"127.0.0.1:{plain}\", pool: main, postgres_cancel: all}}
  encrypted: {{bind: \"127.0.0.1:{encrypted}\", pool: main, postgres_cancel: all, {tls}}}
pools: {{main: {{balance: round_robin, backends: [{}], health: {{probe: none}}}}}}
",
        backends(&ports)
    ));
    for (port, mode) in [(plain, "disable"), (plain, "prefer"), (encrypted, "require")] {
        let cancelled = cancelled(&ports, port, mode, times);
        println!("{mode}: {cancelled} of {times} queries cancelled");
        assert_eq!(cancelled, times, "{mode}");
    }
    let sessions = ["s0", "s1"].map(|server| maitred.sessions_total(server));
    assert!(sessions.iter().all(|count| *count >= times as f64), "both served: {sessions:?}");
}
