//! Log lines of many senders through maitred to rsyslogd: datagrams that nobody answers.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{Maitred, Process, free_port, program, succeed, wait_for};

const SENDERS: usize = 20;
const LINES: usize = 50;

/// Writes each message, and nothing but it, to `messages`.
fn config(port: u16, dir: &str) -> String {
    format!(
        "global(workDirectory=\"{dir}\")
module(load=\"imudp\")
template(name=\"bare\" type=\"string\" string=\"%msg%\\n\")
ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{dir}/messages\" template=\"bare\") }}
input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"all\")
"
    )
}

#[test]
fn every_line_of_many_senders_arrives_once() {
    let (server, port) = (free_port(), free_port());
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path();
    fs::write(place.join("rsyslog.conf"), config(server, &place.display().to_string())).unwrap();
    let mut rsyslogd = Command::new(program("rsyslogd", "rsyslog"));
    rsyslogd.args(["-n", "-i", "NONE", "-f"]).arg(place.join("rsyslog.conf"));
    let _rsyslogd = Process::start(rsyslogd.stdout(Stdio::null()).stderr(Stdio::null()));
    let arrived = || {
        let text = fs::read_to_string(place.join("messages")).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            *counts.entry(line.trim().to_owned()).or_insert(0) += 1;
        }
        counts
    };
    // Straight to it, until it listens.
    wait_for("rsyslogd", || {
        let _ = succeed(logger(server).arg("are you there"));
        arrived().contains_key("are you there")
    });

    let maitred = Maitred::start(&format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main, flow: {{timeout: 2s}}}}}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}}}
"
    ));
    for sender in 0..SENDERS {
        let line = |number| format!("line {:04}\n", sender * LINES + number);
        let lines: String = (0..LINES).map(line).collect();
        fs::write(place.join("lines"), lines).unwrap();
        // The client waits for no answer: a few at a time, so that the server's queue has room for all.
        succeed(logger(port).arg("--file").arg(place.join("lines")));
        wait_for("the lines of a sender", || arrived().len() > (sender + 1) * LINES);
    }
    maitred.wait_for_no_flow();
    let mut counts = arrived();
    counts.remove("are you there");
    let numbers = (0..SENDERS * LINES).map(|number| (format!("line {number:04}"), 1));
    assert_eq!(counts, numbers.collect::<BTreeMap<String, i32>>());
    let lines = (SENDERS * LINES) as f64;
    for direction in ["from_client", "to_backend"] {
        assert!((maitred.datagrams(direction) - lines).abs() < 0.5, "{direction}");
    }
    assert!(maitred.datagrams("to_client") < 0.5 && maitred.dropped() < 0.5);
    assert!((maitred.closed("flow_expired") - SENDERS as f64).abs() < 0.5, "one flow per sender");
    wait_for("all records", || maitred.records().len() == SENDERS);
    for record in maitred.records() {
        assert_eq!(
            (&record["reason"], &record["protocol"]),
            (&"flow_expired".into(), &"udp".into())
        );
        assert_eq!(record["client_received_bytes"], record["backend_sent_bytes"]);
        assert_eq!(record["client_sent_bytes"], 0);
    }
    println!("syslog: {lines} lines of {SENDERS} senders, each arrived once");
}

fn logger(port: u16) -> Command {
    let mut command = Command::new(program("logger", "bsdutils"));
    command.args(["--udp", "--server", "127.0.0.1", "--port", &port.to_string(), "--tag", "test"]);
    command
}
