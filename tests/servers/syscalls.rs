//! System calls of the real binary, counted rather than timed: what a round trip and what a connection cost the kernel.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Maitred, Process, SHELL, free_port, program, wait_for};
use crate::local::{Conduct, backend, connect, exchange, session};

/// One line of the summary.
struct Calls {
    name: String,
    calls: f64,
    errors: f64,
}

/// One worker, and a pool with these further settings.
fn start(port: u16, listener: &str, pool: &str) -> Maitred {
    let server = backend(Conduct::Echo);
    Maitred::start_as(
        SHELL,
        "log: {sessions: none}\nprocess: {workers: 1}",
        &format!(
            "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main{listener}}}}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}{pool}}}}}
"
        ),
    )
}

/// The calls of all of maitred's threads meanwhile.
fn counted(maitred: &Maitred, work: impl FnOnce()) -> Vec<Calls> {
    let id = maitred.process.id();
    let summary = maitred.dir.path().join("calls");
    let mut command = Command::new(program("strace", "strace"));
    command.args(["-f", "-q", "-c", "-p", &id.to_string(), "-o"]).arg(&summary);
    let mut tracer = Process::start(command.stderr(Stdio::null()));
    wait_for("the tracer", || threads(id).iter().all(is_traced));
    work();
    maitred_is_at_rest(id);
    tracer.signal(Signal::INT);
    tracer.end();
    let calls = parse(&fs::read_to_string(summary).unwrap());
    assert!(!calls.is_empty(), "the tracer counted nothing");
    calls
}

fn threads(id: u32) -> Vec<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    tasks.map(|task| task.unwrap().path().join("status")).collect()
}

fn is_traced(status: &PathBuf) -> bool {
    let status = fs::read_to_string(status).unwrap();
    status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}

/// Nothing of the work is left to be done: all threads sleep, and have for a look or two.
fn maitred_is_at_rest(id: u32) {
    let mut looks = 0;
    wait_for("maitred to be at rest", || {
        let sleeps = |status: &PathBuf| fs::read_to_string(status).unwrap().contains("\nState:\tS");
        looks = if threads(id).iter().all(sleeps) { looks + 1 } else { 0 };
        looks > 10
    });
}

/// `% time  seconds  usecs/call  calls  [errors]  name`, between rules and above the total.
fn parse(summary: &str) -> Vec<Calls> {
    let lines = summary.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let name = (*fields.last()?).to_owned();
        let (calls, errors) = (number(3)?, if fields.len() > 5 { number(4)? } else { 0.0 });
        (name != "total").then_some(Calls { name, calls, errors })
    });
    lines.collect()
}

/// How often for each of `times`; calls of these names only, if there are any.
fn per(calls: &[Calls], names: &[&str], times: usize) -> f64 {
    let meant = calls.iter().filter(|it| names.is_empty() || names.contains(&it.name.as_str()));
    meant.map(|it| it.calls).sum::<f64>() / times as f64
}

fn print(what: &str, calls: &[Calls], times: usize) {
    println!("{what}: {:.2} system calls each", per(calls, &[], times));
    for it in calls.iter().filter(|it| it.calls * 100.0 > times as f64) {
        let (calls, errors) = (it.calls / times as f64, it.errors / times as f64);
        println!("  {calls:.2} {}, {errors:.3} of them failed", it.name);
    }
}

/// All clients have a message on its way, always.
#[test]
fn a_round_trip_costs_four_and_a_half() {
    const CLIENTS: usize = 64;
    const ROUNDS: usize = 150;
    let port = free_port();
    let maitred = start(port, "", "");
    let mut streams: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(port)).collect();
    for stream in &mut streams {
        exchange(stream).unwrap();
        stream.write_all(b"ping").unwrap();
    }
    let calls = counted(&maitred, || {
        for _ in 0..ROUNDS {
            for stream in &mut streams {
                stream.read_exact(&mut [0; 4]).unwrap();
                stream.write_all(b"ping").unwrap();
            }
        }
    });
    print("a round trip", &calls, CLIENTS * ROUNDS);
    assert!(per(&calls, &[], CLIENTS * ROUNDS) <= 4.5);
    let moving = ["read", "readv", "recv", "recvfrom", "recvmsg", "send", "sendmsg", "sendto"];
    let moving = moving.iter().chain(&["splice", "write", "writev"]);
    for it in calls.iter().filter(|it| moving.clone().any(|name| *name == it.name)) {
        // Of the control plane's there are a few.
        let is_rare = it.calls < 100.0;
        assert!(is_rare || it.errors < it.calls / 100.0, "{} of {} failed", it.errors, it.name);
    }
}

/// Whole sessions, one client after the other on each of so many threads.
fn a_connection_costs(most: f64, listener: &str, pool: &str) {
    const THREADS: usize = 16;
    const EACH: usize = 100;
    let port = free_port();
    let maitred = start(port, listener, pool);
    session(port).unwrap();
    maitred.wait_for_no_session();
    let calls = counted(&maitred, || {
        let threads = (0..THREADS)
            .map(|_| std::thread::spawn(move || (0..EACH).for_each(|_| session(port).unwrap())));
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    });
    print(&format!("a connection{listener}{pool}"), &calls, THREADS * EACH);
    assert!(per(&calls, &["epoll_ctl"], THREADS * EACH) <= 4.05, "epoll_ctl");
    assert!(per(&calls, &[], THREADS * EACH) <= most);
}

#[test]
fn a_plain_connection_costs_twenty() {
    a_connection_costs(20.0, ", keepalive: none", ", source_ports: kernel");
}

#[test]
fn a_connection_with_keepalive_and_a_port_of_ours_costs_twenty_six() {
    a_connection_costs(26.0, "", ", source_ports: own");
}
