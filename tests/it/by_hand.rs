//! What is set by hand on the real program, with its own command line: at once, over reloads, until it is lifted.

use std::fs::{self, File};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::admin::ask_socket_with;
use crate::balancer::wait_for;
use crate::server::{Conduct, Server, first_byte, served_by};

/// A balancer in a process of its own.
pub struct Program {
    child: Child,
    dir: TempDir,
}

/// How a subcommand ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Program {
    pub fn start(pools: &str) -> Program {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("maitred.yaml");
        fs::write(&file, text(&dir, pools)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
        command.args(["run", "--config"]).arg(&file).stdin(Stdio::null());
        command.stdout(File::create(dir.path().join("out")).unwrap());
        let program = Program { child: command.spawn().unwrap(), dir };
        wait_for("the admin socket", || program.socket().exists());
        program
    }

    pub fn admin(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    pub fn write(&self, pools: &str) {
        fs::write(self.dir.path().join("maitred.yaml"), text(&self.dir, pools)).unwrap();
    }

    pub fn maitred(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
        command.args(arguments).env("MAITRED_ADMIN", self.admin());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// What a subcommand that must succeed prints.
    pub fn does(&self, arguments: &[&str]) -> String {
        let outcome = self.maitred(arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
        outcome.out
    }

    pub fn show(&self, what: &str) -> Value {
        serde_json::from_str(&self.does(&["show", what, "-o", "json"])).unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.show("listeners")["listeners"][0]["addresses"][0].as_str().unwrap().parse().unwrap()
    }

    pub fn backend(&self, name: &str) -> Value {
        let pools = self.show("pools");
        let backends = pools["pools"][0]["backends"].as_array().unwrap().clone();
        backends.into_iter().find(|backend| backend["name"] == name).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that has ended is as good as killed.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn text(dir: &TempDir, pools: &str) -> String {
    let socket = dir.path().join("admin.sock");
    format!(
        "version: 1\nprocess: {{workers: 2}}\nadmin: {{listen: none, socket: {}}}\n\
         listeners: {{main: {{bind: \"127.0.0.1:0\", pool: main}}}}\npools: {{main: {{{pools}}}}}\n",
        socket.display()
    )
}

/// Two that say who they are and keep the session.
fn two() -> (Server, Server) {
    (Server::start(Conduct::Say(&["a"])), Server::start(Conduct::Say(&["b"])))
}

fn pools(a: &Server, b: &Server, more: &str) -> String {
    format!(
        "balance: round_robin, backends: [{{address: \"{}\", name: a}}, {{address: \"{}\", name: b}}]{more}",
        a.address, b.address
    )
}

/// Who serves the next ten sessions.
fn served(address: SocketAddr) -> String {
    (0..10).filter_map(|_| served_by(address)).collect()
}

#[test]
fn drain_takes_nothing_new_keeps_what_is_open_and_outlives_a_reload() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let address = program.address();
    let mut open: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut firsts: Vec<char> = open.iter_mut().filter_map(first_byte).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, ['a', 'b']);
    let said = program.does(&["backend", "drain", "main", "a"]);
    assert!(said.starts_with("main/a is drain (by hand ("), "{said}");
    assert_eq!(served(address), "bbbbbbbbbb");
    let backend = program.backend("a");
    assert_eq!((&backend["state"], &backend["sessions_active"]), (&"drain".into(), &1.into()));
    let set = &backend["set_by_hand"]["state"];
    assert_eq!((&set["value"], &set["until"]), (&"drain".into(), &Value::Null));
    assert!(set["who"].is_string() && set["since"].is_string());
    program.write(&pools(&a, &b, ", slow_start: 1s"));
    assert!(program.does(&["reload"]).contains("slow_start none → 1s"));
    assert_eq!(served(address), "bbbbbbbbbb");
    // One that left and came back is still drained.
    let alone = format!("backends: [{{address: \"{}\", name: b}}]", b.address);
    program.write(&alone);
    assert!(program.does(&["reload"]).contains("backend a removed"));
    let said = program.maitred(&["backend", "drain", "main", "a"]);
    assert_eq!(said.code, 1, "nobody can be sure what that would be: {said:?}");
    program.write(&pools(&a, &b, ""));
    program.does(&["reload"]);
    assert_eq!(program.backend("a")["state"], "drain");
    assert_eq!(served(address), "bbbbbbbbbb");
    program.does(&["backend", "up", "main", "a"]);
    wait_for("a to serve again", || served(address).contains('a'));
    let backend = program.backend("a");
    assert_eq!(backend["set_by_hand"], Value::Null);
    assert!(
        backend["why"].as_str().unwrap().contains("probe"),
        "what the probes say again: {backend}"
    );
    // Whoever was open all the while still is.
    for stream in &mut open {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock), "{error}");
    }
}

#[test]
fn what_is_set_on_one_that_is_gone_can_be_lifted() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    program.does(&["backend", "drain", "main", "a"]);
    program.write(&format!("backends: [{{address: \"{}\", name: b}}]", b.address));
    program.does(&["reload"]);
    let said = program.does(&["backend", "up", "main", "a"]);
    assert_eq!(said, "main/a does not exist now; what was set by hand is lifted\n");
    program.write(&pools(&a, &b, ""));
    program.does(&["reload"]);
    assert_ne!(program.backend("a")["state"], "drain");
}

/// Nobody writes to it: reading it would be waiting for ever, and with it every signal.
#[test]
fn a_configuration_that_became_a_pipe_is_refused_and_nothing_waits_for_it() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let file = program.dir.path().join("maitred.yaml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let outcome = program.maitred(&["reload"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("it is not a plain file"), "{outcome:?}");
    program.does(&["backend", "drain", "main", "a"]);
    let check = program.maitred(&["check", &file.display().to_string()]);
    assert_eq!(check.code, 1, "{check:?}");
}

#[test]
fn maintenance_ends_sessions_as_on_down_says_and_stops_probes() {
    let (a, b) = two();
    let more = ", on_down: reset, health: {interval: 20ms, timeout: 15ms}";
    let program = Program::start(&pools(&a, &b, more));
    let address = program.address();
    let mut open: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let firsts: Vec<char> = open.iter_mut().filter_map(first_byte).collect();
    let of_a = firsts.iter().position(|byte| *byte == 'a').unwrap();
    program.does(&["backend", "maintenance", "main", "a"]);
    let stream = &mut open[of_a];
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    wait_for("its session to be gone", || program.backend("a")["sessions_active"] == 0);
    // Nobody looks at it: one that dies now is not called down.
    let probes = a.clients.lock().unwrap().len();
    let gone = a.kill();
    assert!(probes > 0);
    assert_eq!(served(address), "bbbbbbbbbb");
    assert_eq!(program.backend("a")["state"], "maintenance");
    program.does(&["backend", "up", "main", "a"]);
    wait_for("the probes to find it dead", || program.backend("a")["state"] == "down");
    drop(gone);
}

/// It may be another one than before; the interval is so long that only a probe at once can tell.
#[test]
fn after_maintenance_a_first_probe_decides_at_once_and_until_then_it_takes_nothing() {
    let (a, b) = two();
    let more = ", health: {interval: 1h, timeout: 5s, start: up}";
    let program = Program::start(&pools(&a, &b, more));
    let address = program.address();
    wait_for("both", || ["a", "b"].iter().all(|it| program.backend(it)["state"] == "up"));
    program.does(&["backend", "maintenance", "main", "a"]);
    program.does(&["backend", "up", "main", "a"]);
    wait_for("a to be back", || program.backend("a")["state"] == "up");
    assert_eq!(served(address).matches('a').count(), 5);
    program.does(&["backend", "maintenance", "main", "a"]);
    let gone = a.kill();
    program.does(&["backend", "up", "main", "a"]);
    assert_eq!(served(address), "bbbbbbbbbb");
    wait_for("a to be found dead", || program.backend("a")["state"] == "down");
    let why = program.backend("a")["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("1 probe failed, last: refused after"), "{why}");
    drop(gone);
}

#[test]
fn after_maintenance_who_starts_down_needs_every_pass() {
    let (a, b) = two();
    let more = ", health: {interval: 1h, timeout: 5s, start: down, rise: 1}";
    let program = Program::start(&pools(&a, &b, more));
    wait_for("both", || ["a", "b"].iter().all(|it| program.backend(it)["state"] == "up"));
    program.write(&pools(&a, &b, &more.replace("rise: 1", "rise: 2")));
    program.does(&["reload"]);
    program.does(&["backend", "maintenance", "main", "a"]);
    program.does(&["backend", "up", "main", "a"]);
    let says = |what: &str| program.backend("a")["why"].as_str().unwrap().contains(what);
    wait_for("a probe", || says("no probe has decided yet, last: passed"));
    assert_eq!(program.backend("a")["state"], "starting");
    assert_eq!(served(program.address()), "bbbbbbbbbb");
}

#[test]
fn who_takes_the_last_one_out_is_warned() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let set = |arguments: &[&str]| program.maitred(&[&["backend"], arguments].concat());
    assert_eq!(set(&["drain", "main", "a"]).err, "");
    let says = "warning: no backend of pool main takes new sessions now\n";
    for last in [&["maintenance", "main", "b"][..], &["weight", "0", "main", "b"]] {
        let outcome = set(last);
        assert_eq!((outcome.code, &*outcome.err), (0, says), "{last:?}");
        assert_eq!(set(&["up", "main", "b"]).err, "");
        wait_for("b", || program.backend("b")["state"] == "up");
    }
    let log = fs::read_to_string(program.dir.path().join("out")).unwrap();
    let warned = log.lines().filter(|line| {
        line.contains("WARN") && line.contains("no backend of pool main takes new sessions now")
    });
    assert_eq!(warned.count(), 2, "{log}");
}

#[test]
fn what_a_hand_sets_is_one_event() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let events = || {
        let (_, events) = crate::admin::ask_socket(&program.socket(), "GET /api/v1/events");
        let of_a = events["events"].as_array().unwrap().iter().filter(|it| it["backend"] == "a");
        of_a.map(|it| it["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    program.does(&["backend", "drain", "main", "a", "--until", "1s"]);
    wait_for("the end of it", || events().iter().any(|event| event.contains("is over")));
    program.does(&["backend", "maintenance", "main", "a"]);
    program.does(&["backend", "drain", "main", "a"]);
    let events = events();
    assert_eq!(events.len(), 4, "{events:?}");
    for (event, says) in events.iter().zip(["drain until", "is over", "maintenance", "drain ("]) {
        assert!(event.contains("by hand") && event.contains(says), "{event}");
    }
}

#[test]
fn a_maintenance_ends_sessions_also_when_a_weight_is_set_with_it() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ", on_down: reset"));
    let address = program.address();
    let mut open: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert!(open.iter_mut().all(|stream| first_byte(stream).is_some()));
    let route = "PATCH /api/v1/pools/main/backends/a";
    let body = r#"{"state": "maintenance", "weight": 7}"#;
    let (status, changed) = ask_socket_with(&program.socket(), route, body);
    assert_eq!(
        (status, &changed["state"], &changed["weight"]),
        (200, &"maintenance".into(), &7.into())
    );
    wait_for("its session to be gone", || program.backend("a")["sessions_active"] == 0);
    assert_eq!(program.backend("b")["sessions_active"], 1);
}

#[test]
fn what_is_set_until_then_is_lifted_then() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    program.does(&["backend", "drain", "main", "a", "--until", "2s"]);
    program.does(&["backend", "weight", "0", "main", "b"]);
    assert_eq!(program.backend("a")["state"], "drain");
    wait_for("the drain to be over", || program.backend("a")["set_by_hand"] == Value::Null);
    assert_ne!(program.backend("a")["state"], "drain");
    assert_eq!(program.backend("b")["weight"], 0, "set without an end");
}

#[test]
fn a_weight_counts_at_once_and_over_reloads_and_up_lifts_it() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let address = program.address();
    program.does(&["backend", "weight", "main", "a", "9"]);
    program.does(&["backend", "weight", "4", "main", "a"]);
    let count = |served: String| served.matches('a').count();
    assert_eq!(count(served(address)), 8);
    program.write(&pools(&a, &b, ", spill: true"));
    let changes = program.does(&["reload"]);
    assert_eq!(changes, "pool main changed: spill false → true\n");
    assert_eq!(count(served(address)), 8);
    program.does(&["backend", "up", "main", "a"]);
    assert_eq!(count(served(address)), 5);
    assert_eq!(program.backend("a")["weight"], 1);
}

#[test]
fn sessions_are_killed_by_id_and_by_what_they_have_in_common() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    let address = program.address();
    let mut open: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
    let firsts: Vec<char> = open.iter_mut().filter_map(first_byte).collect();
    let sessions = program.show("sessions");
    let id = sessions["sessions"][0]["id"].as_u64().unwrap().to_string();
    assert_eq!(program.does(&["sessions", "kill", &id]), "1 killed\n");
    let outcome = program.maitred(&["sessions", "kill", &id]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("no session or flow with this id"), "{outcome:?}");
    let killed = program.does(&["sessions", "kill", "--backend", "b", "--client", "127.0.0.1"]);
    assert!(killed == "2 killed\n" || killed == "1 killed\n", "{killed}");
    wait_for("all of b to be gone", || program.backend("b")["sessions_active"] == 0);
    for (stream, _) in open.iter_mut().zip(firsts).filter(|(_, byte)| *byte == 'b') {
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert_eq!(program.maitred(&["sessions", "kill"]).code, 2, "not everything by mistake");
}

#[test]
fn who_names_something_wrong_is_told_what_to_write() {
    let (a, b) = two();
    let program = Program::start(&pools(&a, &b, ""));
    for (arguments, code, says) in [
        (
            &["backend", "drain", "man", "a"][..],
            1,
            "there is no such pool: man/a; did you mean `main`?",
        ),
        (&["backend", "drain", "main", "c"], 1, "the pool has no such backend: main/c"),
        (&["backend", "weight", "300", "main", "a"], 2, "0..=256"),
        (&["backend", "weight", "main", "a", "lots"], 2, "backend weight N POOL BACKEND"),
        (&["backend", "drain", "main", "a", "--until", "soon"], 2, "or a duration like 30m"),
        (&["show", "pools", "--admin", "nowhere"], 2, "error[E0120]: `nowhere` is not an address"),
        (&["show", "pools", "--admin", "127.0.0.1:1"], 1, "error[E0122]: no maitred answers here"),
    ] {
        let outcome = program.maitred(arguments);
        assert_eq!(outcome.code, code, "{arguments:?}: {outcome:?}");
        assert!(outcome.err.contains(says), "{arguments:?}: {outcome:?}");
    }
    program.write("backends: [], balnce: random");
    let outcome = program.maitred(&["reload"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("did you mean `balance`?"), "{outcome:?}");
}
