//! The life of the real binary: signals, reloads under load, exit codes, and a log that nobody reads.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{
    Maitred, SHELL, backends, ended_with, free_port, output, pause, plain, wait_for,
};
use crate::local::{Conduct, backend, connect, exchange, session};

#[test]
fn sigterm_drains_and_then_cuts() {
    let port = free_port();
    let shutdown = "process: {shutdown: {timeout: 700ms}}";
    let mut maitred = Maitred::start_as(SHELL, shutdown, &plain(port, backend(Conduct::Echo)));
    let mut stream = connect(port);
    exchange(&mut stream).unwrap();
    maitred.process.signal(Signal::TERM);
    let begun = Instant::now();
    wait_for("no more accepting", || TcpStream::connect(("127.0.0.1", port)).is_err());
    exchange(&mut stream).unwrap();
    assert!(begun.elapsed() < Duration::from_millis(600), "the session lives while draining");
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "a cut is a reset");
    assert!(begun.elapsed() >= Duration::from_millis(650));
    assert!(ended_with(maitred.process.end(), 0));
    let records = maitred.records();
    let drained = records.iter().filter(|record| record["reason"] == "drained").count();
    assert_eq!(drained, 1, "{records:#?}");
}

#[test]
fn a_drain_ends_with_its_last_session() {
    let port = free_port();
    let mut maitred = Maitred::start(&plain(port, backend(Conduct::Echo)));
    let mut stream = connect(port);
    exchange(&mut stream).unwrap();
    maitred.process.signal(Signal::TERM);
    pause(200);
    exchange(&mut stream).unwrap();
    assert!(maitred.process.has_ended().is_none());
    drop(stream);
    let begun = Instant::now();
    assert!(ended_with(maitred.process.end(), 0));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(maitred.records()[0]["reason"], "client_closed");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let port = free_port();
    let mut maitred = Maitred::start(&plain(port, backend(Conduct::Echo)));
    let mut stream = connect(port);
    exchange(&mut stream).unwrap();
    maitred.process.signal(Signal::TERM);
    wait_for("the drain", || TcpStream::connect(("127.0.0.1", port)).is_err());
    let begun = Instant::now();
    maitred.process.signal(Signal::TERM);
    assert!(ended_with(maitred.process.end(), 0));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let records = maitred.records();
    let drained = records.iter().filter(|record| record["reason"] == "drained").count();
    assert_eq!(drained, 1, "{records:#?}");
}

#[test]
fn a_bad_file_changes_nothing() {
    let port = free_port();
    let maitred = Maitred::start(&plain(port, backend(Conduct::Echo)));
    let mut stream = connect(port);
    exchange(&mut stream).unwrap();
    maitred.write_config("listeners: {main: {bind: \"127.0.0.1:1\", pool: nobody}}\n");
    maitred.process.signal(Signal::HUP);
    wait_for("the refusal", || {
        maitred.metric("maitred_reloads_total", &[("result", "refused")]) > 0.5
    });
    assert!(maitred.metric("maitred_config_last_reload_successful", &[]) < 0.5);
    wait_for("the report in the log", || maitred.log().contains("maitred.yaml:"));
    let log = maitred.log();
    let place = log.split("maitred.yaml:").nth(1).unwrap();
    assert!(place.starts_with(|letter: char| letter.is_ascii_digit()), "no line: {log}");
    exchange(&mut stream).unwrap();
    session(port).unwrap();
    maitred.write_config(&plain(port, backend(Conduct::Echo)));
    maitred.process.signal(Signal::HUP);
    wait_for("the next reload", || {
        maitred.metric("maitred_config_last_reload_successful", &[]) > 0.5
    });
    exchange(&mut stream).unwrap();
}

#[test]
fn a_changed_deny_file_is_in_force_without_a_reload() {
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("deny.nets");
    std::fs::write(&file, "192.0.2.0/24\n").unwrap();
    let config = plain(port, backend(Conduct::Echo));
    let named = format!("pool: main, deny_file: {:?}", file.display().to_string());
    let maitred = Maitred::start(&config.replacen("pool: main", &named, 1));
    let mut early = connect(port);
    exchange(&mut early).unwrap();
    std::fs::write(dir.path().join("new"), "127.0.0.0/8\n").unwrap();
    std::fs::rename(dir.path().join("new"), &file).unwrap();
    wait_for("the file to be read", || session(port).is_err());
    exchange(&mut early).unwrap();
    assert!(maitred.closed("denied") > 0.5);
    let current = || maitred.metric("maitred_access_file_last_read_successful", &[]) > 0.5;
    std::fs::write(&file, "nonsense\n").unwrap();
    wait_for("the metric to say that it is wrong", || !current());
    assert!(session(port).is_err());
    wait_for("the log to say it, too", || maitred.log().contains("deny.nets:1: `nonsense`"));
    std::fs::write(&file, "").unwrap();
    wait_for("the file to be read", || session(port).is_ok());
    assert!(current());
    assert!(maitred.metric("maitred_reloads_total", &[]) < 0.5, "nobody asked for a reload");
}

/// The two files that a reload swaps: the listener `main` is the same in both.
fn variants(port: u16, other: u16, servers: &[u16]) -> [String; 2] {
    let text = |more: &str, options: &str, servers: &[u16]| {
        format!(
            "listeners:
  main: {{bind: \"127.0.0.1:{port}\", pool: main{options}}}
{more}
pools: {{main: {{backends: [{}], health: {{interval: 100ms}}}}}}
",
            backends(servers)
        )
    };
    let more = format!("  more: {{bind: \"127.0.0.1:{other}\", pool: main}}");
    let options = ", backlog: 1000, keepalive: {idle: 30s, interval: 5s, count: 3}";
    [text(&more, options, servers), text("", "", &servers[..2])]
}

#[test]
fn reloads_under_load_cost_no_session() {
    let (port, other) = (free_port(), free_port());
    let servers = [backend(Conduct::Echo), backend(Conduct::Echo), backend(Conduct::Echo)];
    let variants = variants(port, other, &servers);
    let maitred = Maitred::start(&variants[1]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    session(port)?;
                    done.fetch_add(1, Relaxed);
                }
                io::Result::Ok(())
            })
        })
        .collect();
    for round in 0..15 {
        maitred.write_config(&variants[round % 2]);
        maitred.process.signal(Signal::HUP);
        pause(200);
        let is_applied = || {
            let applied = maitred.metric("maitred_reloads_total", &[("result", "applied")]);
            applied > round as f64 + 0.5
        };
        wait_for("the reload", is_applied);
        if round % 2 == 0 {
            session(other).unwrap();
        } else {
            wait_for("the added listener to go", || session(other).is_err());
        }
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.join().unwrap().expect("no session breaks at a reload");
    }
    let done = done.load(Relaxed);
    println!("15 reloads during {done} sessions, none broke");
    assert!(done > 500);
    assert!(maitred.metric("maitred_reloads_total", &[("result", "refused")]) < 0.5);
    wait_for("all sessions to end", || {
        maitred.metric("maitred_listener_sessions_active", &[("listener", "main")]) < 0.5
    });
    let odd = maitred.records();
    let odd: Vec<_> = odd.iter().filter(|record| record["reason"] != "client_closed").collect();
    assert!(odd.is_empty(), "{odd:#?}");
}

#[test]
fn exit_codes_tell_refusal_from_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.yaml");
    std::fs::write(&bad, "version: 1\nlisteners: {main: {bind: nowhere}}\n").unwrap();
    let maitred = || Command::new(crate::harness::binary());
    let refused = output(maitred().args(["run", "--config"]).arg(&bad));
    assert!(ended_with(refused.status, 1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bad.yaml:2:"), "{refused:?}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let arguments = ["--admin", "none", "--backend", "127.0.0.1:1", "--listen"];
    let busy = output(maitred().arg("run").args(arguments).arg(&address));
    assert!(ended_with(busy.status, 1), "{busy:?}");
    assert!(String::from_utf8_lossy(&busy.stderr).contains(&address), "{busy:?}");
    let usage = output(maitred().args(["run", "--no-such-flag"]));
    assert!(ended_with(usage.status, 2), "{usage:?}");
    let usage = output(maitred().arg("no-such-command"));
    assert!(ended_with(usage.status, 2), "{usage:?}");
}

#[test]
fn a_log_that_nobody_reads_stops_no_session() {
    const SESSIONS: u32 = 20_000;
    let port = free_port();
    let dir = tempfile::tempdir().unwrap();
    // The pipe of this child is read by nobody.
    let maitred =
        Maitred::start_to(Stdio::piped(), dir, SHELL, "", &plain(port, backend(Conduct::Echo)));
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut sessions = 0;
    while sessions < SESSIONS && begun.elapsed() < Duration::from_secs(20) {
        let start = Instant::now();
        session(port).unwrap();
        slowest = slowest.max(start.elapsed());
        sessions += 1;
    }
    let dropped = maitred.metric("maitred_log_dropped_total", &[]);
    println!("{sessions} sessions, the slowest {slowest:?}, {dropped} log lines dropped");
    assert!(dropped > 0.5);
    assert!(slowest < Duration::from_secs(1));
}
