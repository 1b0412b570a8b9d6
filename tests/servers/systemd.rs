//! The unit for systemd: how much it leaves open, and whether maitred can live with what it closes.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::UdpSocket;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Maitred, ended_with, free_port, program, succeed, wait_for};
use crate::local::{Conduct, backend, connect, exchange};

const UNIT: &str = "conf/systemd/maitred.service";

#[test]
fn the_unit_leaves_little_open() {
    let mut command = Command::new(program("systemd-analyze", "systemd"));
    // Of 100: below 20 is called OK.
    succeed(command.args(["security", "--offline=true", "--threshold=20", UNIT]));
}

#[test]
fn the_unit_allows_every_system_call_of_a_run() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let allowed = allowed(&unit);
    assert!(
        allowed.contains("epoll_wait") && !allowed.contains("chown") && !allowed.contains("mount")
    );
    let (tcp, udp) = (free_port(), free_port());
    let server = backend(Conduct::Echo);
    let rest = format!(
        "listeners:
  tcp: {{bind: \"127.0.0.1:{tcp}\", pool: main}}
  udp: {{bind: \"127.0.0.1:{udp}\", protocol: udp, pool: udp}}
pools:
  main: {{backends: [\"127.0.0.1:{server}\"]}}
  udp: {{backends: [\"127.0.0.1:9\"]}}
"
    );
    // Where the program's output goes is no business of the tracer's.
    let strace = program("strace", "strace");
    let shell =
        format!("exec {} -f -qq -c -o \"$(dirname \"$3\")/calls\" \"$0\" \"$@\"", strace.display());
    let mut maitred = Maitred::start_as(&shell, "", &rest);
    exchange(&mut connect(tcp)).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", ("127.0.0.1", udp)).unwrap();
    wait_for("the datagram", || maitred.datagrams("from_client") > 0.5);
    maitred.write_config(
        &rest
            .replace("health", "# health")
            .replace("udp: {backends", "more: {backends: []}\n  udp: {backends"),
    );
    let socket = format!("unix:{}", maitred.dir.path().join("admin.sock").display());
    succeed(Command::new(crate::harness::binary()).args(["reload", "--admin", &socket]));
    // The tracer hands the signal on and ends with the traced.
    let traced =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", maitred.process.id())).unwrap();
    let traced = traced.trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(traced).unwrap(), Signal::TERM)
        .unwrap();
    assert!(ended_with(maitred.process.end(), 0));
    let calls = fs::read_to_string(maitred.dir.path().join("calls")).unwrap();
    let made: BTreeSet<&str> = calls
        .lines()
        .filter(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()))
        .filter_map(|line| line.split_whitespace().last())
        .filter(|name| *name != "total")
        .collect();
    assert!(made.len() > 30, "{calls}");
    let refused: Vec<_> = made.iter().filter(|name| !allowed.contains(**name)).collect();
    assert!(refused.is_empty(), "the unit would refuse {refused:?}");
}

/// What `SystemCallFilter` of the unit lets through, by systemd's own lists.
fn allowed(unit: &str) -> BTreeSet<String> {
    let lists = succeed(Command::new(program("systemd-analyze", "systemd")).arg("syscall-filter"));
    let mut sets: HashMap<String, Vec<String>> = HashMap::new();
    let mut current = String::new();
    for line in lists.lines() {
        match line.trim() {
            name if line.starts_with('@') => current = name.to_owned(),
            "" => {}
            comment if comment.starts_with('#') => {}
            call => sets.entry(current.clone()).or_default().push(call.to_owned()),
        }
    }
    let mut allowed = BTreeSet::new();
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let mut calls = Vec::new();
        expand(filter.trim_start_matches('~'), &sets, &mut calls);
        match filter.starts_with('~') {
            true => allowed.retain(|call| !calls.contains(call)),
            false => allowed.extend(calls),
        }
    }
    allowed
}

fn expand(name: &str, sets: &HashMap<String, Vec<String>>, calls: &mut Vec<String>) {
    for member in &sets[name] {
        if member.starts_with('@') {
            expand(member, sets, calls)
        } else {
            calls.push(member.clone())
        }
    }
}
