//! nginx behind maitred, under wrk and curl: a server is killed and comes back, and bytes are counted exactly.

use std::fs;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{
    Maitred, Process, balanced, free_port, pause, program, succeed, try_get, wait_for,
};

const BODY: usize = 3000;

/// A server on a port, gone when dropped.
struct Nginx {
    port: u16,
    dir: TempDir,
    process: Process,
}

impl Nginx {
    fn start() -> Nginx {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        let place = dir.path().display();
        fs::write(dir.path().join("index.html"), vec![b'x'; BODY]).unwrap();
        // Clients have to connect anew every 50 requests: so they notice who is up.
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {place}/pid; error_log {place}/error.log;
             events {{ worker_connections 1024; }}
             http {{ access_log off; keepalive_requests 50;
                     server {{ listen 127.0.0.1:{port} backlog=1024; root {place}; }} }}"
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let process = Nginx::run(&dir);
        let nginx = Nginx { port, dir, process };
        nginx.wait();
        nginx
    }

    fn run(dir: &TempDir) -> Process {
        let mut command = Command::new(program("nginx", "nginx"));
        command.arg("-p").arg(dir.path()).arg("-c").arg(dir.path().join("nginx.conf"));
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn wait(&self) {
        let address = ([127, 0, 0, 1], self.port).into();
        wait_for("nginx", || try_get(address, "/").is_some_and(|(status, _)| status == 200));
    }

    fn restart(&mut self) {
        self.process = Nginx::run(&self.dir);
        self.wait();
    }
}

/// Three servers, and maitred at a port before them.
fn site() -> (Vec<Nginx>, Maitred, u16) {
    let servers: Vec<Nginx> = (0..3).map(|_| Nginx::start()).collect();
    let ports: Vec<u16> = servers.iter().map(|server| server.port).collect();
    let port = free_port();
    let maitred = Maitred::start(&balanced(port, &ports, "tcp"));
    for name in ["s0", "s1", "s2"] {
        maitred.wait_for_state(name, "up");
    }
    (servers, maitred, port)
}

/// What wrk counted: requests, bytes with headers, and errors of connect, read, write, timeout, status.
struct Counts {
    requests: u64,
    bytes: u64,
    errors: [u64; 5],
}

/// wrk for so many seconds; its figures come from its own summary.
fn wrk(dir: &TempDir, port: u16, clients: u32, seconds: u32) -> Process {
    let script = dir.path().join("summary.lua");
    let text = "done = function(summary, latency, requests)
        local e = summary.errors
        io.write(string.format('COUNTS %d %d %d %d %d %d %d\\n', summary.requests, summary.bytes,
            e.connect, e.read, e.write, e.timeout, e.status))
    end";
    fs::write(&script, text).unwrap();
    let mut command = Command::new(program("wrk", "wrk"));
    command.args(["-t1", &format!("-c{clients}"), &format!("-d{seconds}s"), "-s"]).arg(script);
    command.arg(format!("http://127.0.0.1:{port}/"));
    Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
}

fn counts(wrk: Process) -> Counts {
    let (status, out, err) = wrk.outcome();
    assert!(status.success(), "wrk: {status}\n{out}\n{err}");
    let line = out.lines().find_map(|line| line.strip_prefix("COUNTS ")).unwrap();
    let counts: Vec<u64> = line.split(' ').map(|count| count.parse().unwrap()).collect();
    Counts { requests: counts[0], bytes: counts[1], errors: counts[2..].try_into().unwrap() }
}

#[test]
fn a_killed_server_costs_no_more_than_its_own_sessions() {
    const CLIENTS: u32 = 30;
    let (mut servers, maitred, port) = site();
    let scripts = tempfile::tempdir().unwrap();
    let wrk = wrk(&scripts, port, CLIENTS, 4);
    wait_for("load on s1", || maitred.sessions_total("s1") > 20.0);
    servers[1].process.kill();
    maitred.wait_for_state("s1", "down");
    let at_down = maitred.sessions_total("s1");
    pause(400);
    let (later, other) = (maitred.sessions_total("s1"), maitred.sessions_total("s0"));
    assert!((later - at_down).abs() < 0.5, "new sessions on a server that is down");
    servers[1].restart();
    maitred.wait_for_state("s1", "up");
    wait_for("new sessions on s1", || maitred.sessions_total("s1") > at_down + 20.0);
    assert!(maitred.sessions_total("s0") > other, "the others served on");
    let counts = counts(wrk);
    let [connect, read, write, timeout, status] = counts.errors;
    println!(
        "nginx: {} requests; errors: {connect} connect, {read} read, {write} write, {timeout} timeout",
        counts.requests
    );
    assert_eq!([connect, timeout, status], [0; 3]);
    // wrk meets a reset when it reads or, at times, when it writes.
    assert!(read + write <= u64::from(CLIENTS), "{read} + {write} sessions broke");
    assert!(counts.requests > 1000);
}

#[test]
fn bytes_are_counted_exactly() {
    let (_servers, maitred, port) = site();
    let url = format!("http://127.0.0.1:{port}/");
    let mut received = 0;
    for round in 1..=50 {
        let mut curl = Command::new(program("curl", "curl"));
        curl.args(["-sS", "-w", "%{stderr}%{size_header} %{size_download}\n"]);
        for _ in 0..round % 4 + 1 {
            curl.args(["-o", "/dev/null", &url]);
        }
        let output = crate::harness::output(&mut curl);
        assert!(output.status.success(), "curl: {output:?}");
        let sizes = String::from_utf8(output.stderr).unwrap();
        received += sizes.split_whitespace().map(|it| it.parse::<u64>().unwrap()).sum::<u64>();
    }
    maitred.wait_for_no_session();
    let sent = maitred.metric("maitred_listener_sent_bytes_total", &[]) as u64;
    let from_backends = maitred.metric("maitred_backend_received_bytes_total", &[]) as u64;
    let recorded = |key| maitred.records().iter().map(|it| it[key].as_u64().unwrap()).sum::<u64>();
    println!("curl received {received} bytes, listener_sent_bytes_total {sent}");
    assert_eq!(received, sent);
    assert_eq!(received, from_backends);
    wait_for("all records", || recorded("client_sent_bytes") == received);

    // wrk leaves without reading the last answer of each connection, and does not count it.
    const CLIENTS: u64 = 20;
    let scripts = tempfile::tempdir().unwrap();
    let counts = counts(wrk(&scripts, port, CLIENTS as u32, 2));
    assert_eq!(counts.errors, [0; 5]);
    maitred.wait_for_no_session();
    let sent = maitred.metric("maitred_listener_sent_bytes_total", &[]) as u64 - sent;
    let rest = CLIENTS * (BODY as u64 + 400);
    println!("wrk read {} bytes with headers, listener_sent_bytes_total {sent}", counts.bytes);
    assert!(counts.bytes <= sent && sent <= counts.bytes + rest);
}

/// The server's own page says what maitred's listener gives: nothing is changed on the way.
#[test]
fn a_page_arrives_as_it_is() {
    let (servers, _maitred, port) = site();
    let mut direct = Command::new(program("curl", "curl"));
    direct.args(["-sS", &format!("http://127.0.0.1:{}/", servers[0].port)]);
    let mut balanced = Command::new(program("curl", "curl"));
    balanced.args(["-sS", &format!("http://127.0.0.1:{port}/")]);
    assert_eq!(succeed(&mut direct), succeed(&mut balanced));
}
