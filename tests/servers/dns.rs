//! DNS behind maitred: unbound and Knot answer for the same name, dnsperf asks, and a server is killed and comes back.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Maitred, Process, backends, free_port, program, succeed, wait_for};

const NAME: &str = "www.example.test";

/// A server on a port, gone when dropped.
struct Server {
    port: u16,
    dir: TempDir,
    kind: Kind,
    process: Process,
}

#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Knot,
    Unbound,
}

impl Server {
    fn start(kind: Kind) -> Server {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let place = dir.path().display().to_string();
        let config = match kind {
            Kind::Knot => knot(port, &place),
            Kind::Unbound => unbound(port, &place),
        };
        fs::write(dir.path().join("config"), config).unwrap();
        let zone = "@ 60 SOA ns hostmaster 1 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.53\n";
        fs::write(dir.path().join("zone"), format!("{zone}www 60 A 192.0.2.1\n")).unwrap();
        let process = run(kind, dir.path());
        let server = Server { port, dir, kind, process };
        server.wait();
        server
    }

    fn wait(&self) {
        let questions = questions(self.dir.path());
        let answers = || {
            let said = succeed(&mut dnsperf(self.port, &questions, &["-n", "1", "-t", "1"]));
            figure(&said, "Queries completed:") == 1
        };
        wait_for(&format!("{:?}", self.kind), answers);
    }

    fn restart(&mut self) {
        self.process = run(self.kind, self.dir.path());
        self.wait();
    }
}

/// With the configuration in this folder.
pub fn run(kind: Kind, dir: &Path) -> Process {
    let mut command = match kind {
        Kind::Knot => Command::new(program("knotd", "knot")),
        Kind::Unbound => Command::new(program("unbound", "unbound")),
    };
    if matches!(kind, Kind::Unbound) {
        command.arg("-d");
    }
    command.arg("-c").arg(dir.join("config"));
    Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
}

fn unbound(port: u16, dir: &str) -> String {
    let data = format!("{NAME}. 60 IN A 192.0.2.1");
    unbound_at(&format!("127.0.0.1@{port}"), dir, "example.test.", &[&data])
}

/// Answers from its configuration and asks nobody.
pub fn unbound_at(interface: &str, dir: &str, zone: &str, data: &[&str]) -> String {
    let data: String = data.iter().map(|it| format!("  local-data: \"{it}\"\n")).collect();
    format!(
        "server:
  interface: {interface}
  username: \"\"
  chroot: \"\"
  directory: \"{dir}\"
  pidfile: \"{dir}/pid\"
  use-syslog: no
  logfile: \"{dir}/log\"
  num-threads: 1
  module-config: \"iterator\"
  local-zone: \"{zone}\" static
{data}remote-control:
  control-enable: no
"
    )
}

/// Answers from the zone in this folder.
pub fn knot(port: u16, dir: &str) -> String {
    format!(
        "server:
    rundir: \"{dir}\"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: \"{dir}\"
log:
  - target: stderr
    any: error
zone:
  - domain: example.test
    file: \"{dir}/zone\"
    zonefile-sync: -1
    journal-content: none
"
    )
}

fn questions(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("questions");
    fs::write(&path, format!("{NAME} A\n")).unwrap();
    path
}

fn dnsperf(port: u16, questions: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program("dnsperf", "dnsperf"));
    command.args(["-s", "127.0.0.1", "-p", &port.to_string(), "-d"]).arg(questions).args(more);
    command
}

/// A count out of dnsperf's summary.
fn figure(said: &str, name: &str) -> u64 {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no `{name}` in:\n{said}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Every question is a flow of its own, which its answer completes.
fn config(port: u16, ports: &[u16]) -> String {
    format!(
        "listeners:
  main:
    bind: \"127.0.0.1:{port}\"
    protocol: udp
    pool: main
    flow: {{requests: 1, responses: 1, timeout: 5s}}
pools:
  main:
    balance: round_robin
    backends: [{}]
    health: {{probe: {{dns: {{name: {NAME}, type: A}}}}, interval: 200ms, timeout: 1s, rise: 2, fall: 2}}
",
        backends(ports)
    )
}

fn answered(maitred: &Maitred, backend: &str) -> f64 {
    maitred.metric("maitred_backend_received_bytes_total", &[("backend", backend)])
}

/// Both take questions, and answer.
fn wait_for_answers_of_both(maitred: &Maitred) {
    for backend in ["s0", "s1"] {
        let (sessions, bytes) = (maitred.sessions_total(backend), answered(maitred, backend));
        wait_for(&format!("answers of {backend}"), || {
            maitred.sessions_total(backend) > sessions + 50.0
                && answered(maitred, backend) > bytes + 50.0 * 40.0
        });
    }
}

#[test]
fn a_killed_server_costs_no_question() {
    let mut servers = [Server::start(Kind::Unbound), Server::start(Kind::Knot)];
    let ports = [servers[0].port, servers[1].port];
    let port = free_port();
    let maitred = Maitred::start(&config(port, &ports));
    for backend in ["s0", "s1"] {
        maitred.wait_for_state(backend, "up");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut asking = dnsperf(port, &questions(dir.path()), &["-c", "4", "-Q", "500"]);
    asking.args(["-l", "12", "-t", "3"]);
    let asking = Process::start(asking.stdout(Stdio::piped()).stderr(Stdio::piped()));
    wait_for_answers_of_both(&maitred);
    servers[1].process.kill();
    // Probes say so, or the questions that it refused.
    let is_out = || ["down", "ejected"].contains(&maitred.state("s1").as_str());
    wait_for("the killed server to be out", is_out);
    let (dead, alive) = (answered(&maitred, "s1"), maitred.sessions_total("s0"));
    wait_for("the other one to serve", || maitred.sessions_total("s0") > alive + 100.0);
    assert!((answered(&maitred, "s1") - dead).abs() < 0.5, "answers of a dead server");
    servers[1].restart();
    maitred.wait_for_state("s1", "up");
    wait_for_answers_of_both(&maitred);
    let (status, out, err) = asking.outcome_within(40);
    assert!(status.success(), "dnsperf: {status}\n{out}\n{err}");
    let [sent, lost] = ["Queries sent:", "Queries lost:"].map(|name| figure(&out, name));
    let good = out.lines().find(|line| line.contains("Response codes:")).unwrap();
    println!("dns: {sent} questions, {lost} lost; {}", good.trim());
    assert!(sent > 1000, "{out}");
    assert!(good.contains("NOERROR") && !good.contains("SERVFAIL"), "{out}");
    maitred.wait_for_no_flow();
    let [complete, expired] = ["flow_complete", "flow_expired"].map(|it| maitred.closed(it));
    let labels = [("backend", "s1"), ("reason", "refused")];
    let refused = maitred.metric("maitred_backend_connect_failures_total", &labels);
    println!(
        "dns: {complete} flows completed, {expired} expired; {refused} questions were refused"
    );
    assert!(complete >= (sent - lost) as f64 - 0.5, "{complete} flows completed");
    // What the dying process refuses is asked elsewhere at once; what it takes and says nothing to, once it is out.
    assert!(refused > 0.5, "the killed server refused nothing");
    assert_eq!(lost, 0, "{out}");
}

/// Every question gets the answer to it, whoever gives it: ids and texts are not mixed up, also when many clients ask.
#[test]
fn no_question_is_lost_while_both_servers_live() {
    let servers = [Server::start(Kind::Unbound), Server::start(Kind::Knot)];
    let port = free_port();
    let maitred = Maitred::start(&config(port, &[servers[0].port, servers[1].port]));
    let dir = tempfile::tempdir().unwrap();
    let mut asking = dnsperf(port, &questions(dir.path()), &["-c", "50", "-Q", "1000"]);
    let said = succeed(asking.args(["-l", "3", "-t", "3"]));
    let [sent, lost] = ["Queries sent:", "Queries lost:"].map(|name| figure(&said, name));
    println!("dns: {sent} questions of 50 clients, {lost} lost");
    assert!(sent > 500 && lost == 0, "{said}");
    maitred.wait_for_no_flow();
    let shares = ["s0", "s1"].map(|backend| maitred.sessions_total(backend));
    assert!((shares[0] + shares[1] - sent as f64).abs() < 0.5, "{shares:?} of {sent}");
    assert!((shares[0] - shares[1]).abs() < 0.1 * sent as f64, "taken in turn: {shares:?}");
    assert!(maitred.dropped() < 0.5, "dropped: {}", maitred.dropped());
}
