//! What a session costs in memory: one whose client never reads, and one that says nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::harness::{
    Maitred, PATIENCE, SHELL, anonymous, free_port, pause, plain, wait_for, within,
};
use crate::hello::hello;
use crate::local::{
    Conduct, backend, backend_apart, complete, connect, exchange, idle_clients, session,
};

/// A client with a small buffer, which it never reads.
fn deaf_client(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    socket
}

fn clients_that_never_read(relay: &str) {
    const CLIENTS: usize = 500;
    let (port, other) = (free_port(), free_port());
    let (flood, echo) = (backend(Conduct::Flood), backend(Conduct::Echo));
    let maitred = Maitred::start(&format!(
        "listeners:
  main: {{bind: \"127.0.0.1:{port}\", pool: main, relay: {relay}}}
  canary: {{bind: \"127.0.0.1:{other}\", pool: canary}}
pools:
  main: {{backends: [\"127.0.0.1:{flood}\"], health: {{probe: none}}}}
  canary: {{backends: [\"127.0.0.1:{echo}\"], health: {{probe: none}}}}
"
    ));
    let mut canary = connect(other);
    exchange(&mut canary).unwrap();
    let before = anonymous(maitred.process.id());
    let clients: Vec<Socket> = (0..CLIENTS).map(|_| deaf_client(port)).collect();
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        let start = Instant::now();
        exchange(&mut canary).unwrap();
        slowest = slowest.max(start.elapsed());
        pause(20);
    }
    let active = maitred.metric("maitred_listener_sessions_active", &[("listener", "main")]);
    assert!(active > CLIENTS as f64 - 0.5, "{active} sessions active");
    let growth = anonymous(maitred.process.id()).saturating_sub(before) / CLIENTS as u64;
    println!("clients that never read, {relay}: {growth} B a session; canary at most {slowest:?}");
    assert!(growth < 128 * 1024);
    assert!(slowest < Duration::from_secs(1));
    drop(clients);
    wait_for("the sessions to end", || {
        maitred.metric("maitred_listener_sessions_active", &[("listener", "main")]) < 0.5
    });
}

#[test]
fn a_client_that_never_reads_costs_a_buffer() {
    clients_that_never_read("auto");
}

#[test]
fn a_client_that_never_reads_costs_a_buffer_when_copied() {
    clients_that_never_read("copy");
}

/// What else a process happens to need meanwhile only adds to the growth, so the least of three measurements is
/// the one nearest to what a session costs.
#[test]
fn an_idle_session_costs_a_kibibyte() {
    // Futures are larger without optimisation.
    let most: u64 = if crate::harness::is_optimized() { 1024 } else { 8192 };
    let mut measured = Vec::new();
    for _ in 0..3 {
        measured.push(idle_session_bytes());
        if measured.last().is_some_and(|each| *each <= most) {
            return;
        }
    }
    panic!("{measured:?} B a session, at most {most} are allowed");
}

/// The growth of anonymous memory by 9 000 idle sessions, per session.
fn idle_session_bytes() -> u64 {
    const SESSIONS: usize = 9000;
    let (port, server) = (free_port(), free_port());
    let _backend = backend_apart(server);
    wait_for("the backend", || session(server).is_ok());
    let maitred = Maitred::start_as(SHELL, "log: {sessions: none}", &plain(port, server));
    // Side by side, so that what grows in large steps has grown.
    let streams: Vec<TcpStream> = (0..300).map(|_| connect(port)).collect();
    for stream in streams {
        complete(stream).unwrap();
    }
    maitred.wait_for_no_session();
    // Scrapes need memory of their own, once: the measurement makes some.
    for _ in 0..50 {
        maitred.metrics();
    }
    let before = anonymous(maitred.process.id());
    let mut clients = idle_clients(port, SESSIONS);
    let sent = maitred.metric("maitred_listener_sent_bytes_total", &[]);
    let all = sent + 4.0 * SESSIONS as f64;
    let are_open = || {
        assert!(
            clients.has_ended().is_none(),
            "the clients failed: are 20 000 descriptors allowed?"
        );
        pause(200);
        maitred.metric("maitred_listener_sent_bytes_total", &[]) > all - 0.5
    };
    assert!(within(3 * PATIENCE, are_open), "waited in vain for {SESSIONS} sessions");
    let active = maitred.metric("maitred_listener_sessions_active", &[]);
    assert!((active - SESSIONS as f64).abs() < 0.5, "{active} sessions active");
    let each = (anonymous(maitred.process.id()) - before) / SESSIONS as u64;
    println!("{SESSIONS} idle sessions: {each} B each");
    each
}

/// Thousands of protocols of one letter: what a client offers is looked at once, and it stays for as long as it likes.
#[test]
fn what_a_client_offers_is_not_kept() {
    const SESSIONS: usize = 500;
    let letters: Vec<String> =
        (0..6000).map(|at| char::from(b'a' + (at % 26) as u8).into()).collect();
    let offers: Vec<&str> = letters.iter().map(String::as_str).collect();
    let each = |offers: &[&str]| {
        let (port, server) = (free_port(), backend(Conduct::Echo));
        let maitred = Maitred::start(&format!(
            "listeners:
  main: {{bind: \"127.0.0.1:{port}\", pool: none, routes: [{{server_name: [\"*\"], pool: main}}]}}
pools:
  main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}
"
        ));
        let text = hello(Some("a.test"), offers, 16_000);
        let open = |count: usize| -> Vec<TcpStream> {
            let open = |_| {
                let mut client = connect(port);
                client.write_all(&text).unwrap();
                // It is there once its echo is.
                client.read_exact(&mut [0; 5]).unwrap();
                client
            };
            (0..count).map(open).collect()
        };
        // What grows in large steps has grown.
        let some = open(100);
        let before = anonymous(maitred.process.id());
        let clients = open(SESSIONS);
        let each = anonymous(maitred.process.id()).saturating_sub(before) / SESSIONS as u64;
        drop((some, clients));
        each
    };
    let (little, much) = (each(&offers[..2]), each(&offers));
    println!(
        "a hello with 2 protocols costs {little} B a session, one with {} {much} B",
        offers.len()
    );
    assert!(much < little + 2048, "{little} B and {much} B a session");
}
