//! Source ports of backend connections, against the real kernel: each test in a network of its own with few ports.
//! Backends have addresses outside of 127.0.0.0/8, where the kernel by itself is more generous than elsewhere, and
//! clients have ports outside of the range, as those have that come from elsewhere.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::harness::{Maitred, SHELL, free_port, wait_for};
use crate::local::{Conduct, ROLE, backend_at};
use crate::namespace::Namespace;

const INSIDE: &str = "in a network of its own";
/// An address of the test's network.
const SERVER: [u8; 4] = [192, 0, 2, 2];

/// Runs `inside` in a network with these ports, made so by `shell`.
fn apart(test: &str, (first, last): (u16, u16), shell: &str, inside: fn()) {
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        return inside();
    }
    let namespace = Namespace::new();
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    namespace.shell(&format!(
        "echo {first} {last} > {range} && ip address add 192.0.2.2/32 dev lo && {shell}"
    ));
    namespace.run_again(&format!("source_ports::{test}"), INSIDE, 60);
}

/// A listener, and a pool of these backends with these further settings; nobody probes.
fn config(port: u16, backends: &[SocketAddr], pool: &str) -> String {
    let backends = backends
        .iter()
        .enumerate()
        .map(|(index, address)| format!("{{address: \"{address}\", name: s{index}}}"));
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main, on_refuse: close}}}}
pools: {{main: {{backends: [{}], health: {{probe: none}}, {pool}}}}}
",
        backends.collect::<Vec<_>>().join(", ")
    )
}

fn start(workers: u8, rest: &str) -> Maitred {
    let more = format!("log: {{sessions: none}}\nprocess: {{workers: {workers}}}");
    Maitred::start_as(SHELL, &more, rest)
}

/// A backend of the test's own process.
fn teller(conduct: Conduct) -> SocketAddr {
    let address = SocketAddr::from((SERVER, free_port()));
    backend_at(address, conduct);
    address
}

/// A connection from a port that is used once.
fn client(port: u16) -> io::Result<TcpStream> {
    static NEXT: AtomicU16 = AtomicU16::new(1024);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = SocketAddr::from(([127, 1, 0, 1], NEXT.fetch_add(1, Relaxed)));
    assert!(source.port() < 40_000, "clients run out of ports");
    socket.bind(&source.into())?;
    // Far below the time that maitred has to connect: who waits for that fails.
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket.into())
}

/// Asks the backend where the connection to it comes from.
fn ask(stream: &mut TcpStream) -> io::Result<SocketAddr> {
    stream.write_all(b"?")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let line = line.trim();
    line.parse().map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, line.to_owned()))
}

/// A whole session; the client closes first.
fn session(port: u16) -> io::Result<SocketAddr> {
    let mut stream = client(port)?;
    let from = ask(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0; 8])? {
        0 => Ok(from),
        count => Err(io::Error::other(format!("{count} bytes after the end"))),
    }
}

/// A session that stays open.
fn held(port: u16) -> (TcpStream, SocketAddr) {
    let mut stream = client(port).unwrap();
    let from = ask(&mut stream).unwrap();
    (stream, from)
}

/// So many sessions by four clients at once, none failing.
fn sessions(port: u16, count: usize) {
    let threads = (0..4).map(|_| {
        std::thread::spawn(move || {
            for number in 0..count / 4 {
                session(port).unwrap_or_else(|error| panic!("session {number}: {error}"));
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

/// So many further clients are turned away with a clean end, at once, and the backend is not blamed.
fn are_refused(maitred: &Maitred, port: u16, count: usize) {
    let before = exhausted(maitred);
    for _ in 0..count {
        let error = session(port).expect_err("no port is left");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
    let count = count as f64;
    let metrics = maitred.metrics();
    let failures = |labels: &[_]| metrics.value("maitred_backend_connect_failures_total", labels);
    assert_eq!(failures(&[("reason", "no_source_port")]), count);
    assert_eq!(failures(&[]), count);
    assert_eq!(maitred.closed("no_source_port"), count);
    assert_eq!(exhausted(maitred) - before, count);
    assert_eq!(maitred.state("s0"), "up");
}

fn exhausted(maitred: &Maitred) -> f64 {
    maitred.metric("maitred_source_ports_exhausted_total", &[])
}

fn in_use(maitred: &Maitred) -> f64 {
    maitred.metric("maitred_source_ports_in_use", &[])
}

fn wait_for_no_port_in_use(maitred: &Maitred) {
    wait_for("all ports to be given back", || in_use(maitred) < 0.5);
}

fn nothing_failed(maitred: &Maitred) {
    assert_eq!(exhausted(maitred), 0.0);
    assert_eq!(maitred.metric("maitred_backend_connect_failures_total", &[]), 0.0);
}

fn is_own(from: SocketAddr) -> bool {
    from.port() % 2 == 1
}

#[test]
fn ports_do_not_run_out() {
    apart("ports_do_not_run_out", (40_000, 41_999), "true", || {
        let port = free_port();
        let maitred = start(1, &config(port, &[teller(Conduct::Tell)], "source_ports: auto"));
        sessions(port, 30_000);
        nothing_failed(&maitred);
        wait_for_no_port_in_use(&maitred);
    });
}

#[test]
fn without_timestamps_here_ports_rest() {
    ports_rest_without_timestamps("without_timestamps_here_ports_rest", true);
}

#[test]
fn without_timestamps_there_ports_rest() {
    ports_rest_without_timestamps("without_timestamps_there_ports_rest", false);
}

/// 200 ports of our own, then the kernel's 200; but only sessions that the client closes first need a new one each.
fn ports_rest_without_timestamps(test: &str, off_here: bool) {
    const PORTS: usize = 400;
    let tell = SocketAddr::from((SERVER, 18_001));
    let tell_and_close = SocketAddr::from((SERVER, 18_002));
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        wait_for("the backends", || TcpStream::connect(tell_and_close).is_ok());
        let (port, other) = (free_port(), free_port());
        let maitred = start(1, &format!(
            "listeners:
  main: {{bind: \"127.0.0.1:{port}\", pool: main, on_refuse: close}}
  other: {{bind: \"127.0.0.1:{other}\", pool: other}}
pools:
  main: {{backends: [{{address: \"{tell}\", name: s0}}], health: {{probe: none}}, source_ports: own}}
  other: {{backends: [\"{tell_and_close}\"], health: {{probe: none}}, source_ports: own}}
"
        ));
        for _ in 0..3 * PORTS {
            let mut stream = client(other).unwrap();
            assert!(is_own(ask(&mut stream).unwrap()), "the backend closes first");
            assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
        }
        for _ in 0..3 * PORTS {
            let (stream, from) = held(port);
            assert!(is_own(from), "reset by the client");
            Socket::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        let ports: Vec<u16> = (0..PORTS).map(|_| session(port).unwrap().port()).collect();
        assert!(ports[..PORTS / 2].iter().all(|port| port % 2 == 1), "our own come first");
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), PORTS, "none is used twice");
        nothing_failed(&maitred);
        are_refused(&maitred, port, 50);
        wait_for_no_port_in_use(&maitred);
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect(&there);
    here.shell("echo 40000 40399 > /proc/sys/net/ipv4/ip_local_port_range");
    let without = if off_here { &here } else { &there };
    without.shell("echo 0 > /proc/sys/net/ipv4/tcp_timestamps");
    let _backends = there.start(&format!("tell {tell} {tell_and_close}"));
    here.run_again(&format!("source_ports::{test}"), INSIDE, 60);
}

#[test]
fn backends_share_ports() {
    apart("backends_share_ports", (40_000, 41_999), "true", || {
        let port = free_port();
        let backends: Vec<_> = (0..4).map(|_| teller(Conduct::Tell)).collect();
        let maitred = start(1, &config(port, &backends, "source_ports: own"));
        let held: Vec<_> = (0..6000).map(|_| held(port)).collect();
        let ports: BTreeSet<u16> = held.iter().map(|(_, from)| from.port()).collect();
        assert!(ports.len() <= 2000);
        assert_eq!(held.iter().filter(|(_, from)| is_own(*from)).count(), 4000);
        assert_eq!(in_use(&maitred), 4000.0);
        nothing_failed(&maitred);
        drop(held);
        wait_for_no_port_in_use(&maitred);
    });
}

#[test]
fn sources_take_turns_and_stand_in_for_each_other() {
    let addresses = "ip address add 192.0.2.11/32 dev lo && ip address add 192.0.2.12/32 dev lo";
    let test = "sources_take_turns_and_stand_in_for_each_other";
    apart(test, (40_000, 40_199), addresses, || {
        let port = free_port();
        let pool = "source_ports: own, source: [\"192.0.2.11\", \"192.0.2.12\"]";
        let maitred = start(1, &config(port, &[teller(Conduct::Tell)], pool));
        let of_first = |count: usize| {
            let first = std::net::IpAddr::from([192, 0, 2, 11]);
            (0..count).filter(|_| session(port).unwrap().ip() == first).count()
        };
        assert_eq!(of_first(50), 25);
        let others: Vec<Socket> = (40_000..40_200)
            .map(|port| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_reuse_address(true).unwrap();
                socket.bind(&SocketAddr::from(([192, 0, 2, 11], port)).into()).unwrap();
                socket.listen(1).unwrap();
                socket
            })
            .collect();
        assert_eq!(of_first(100), 0);
        // They are in the way of whoever asks for the metrics as well.
        drop(others);
        nothing_failed(&maitred);
    });
}

#[test]
fn workers_share_the_ports_of_ipv6_but_no_reserved_one() {
    let shell = "ip address add 2001:db8::2/128 dev lo nodad \
                 && echo 40001-40020 > /proc/sys/net/ipv4/ip_local_reserved_ports";
    let test = "workers_share_the_ports_of_ipv6_but_no_reserved_one";
    apart(test, (40_000, 40_399), shell, || {
        let port = free_port();
        let server = SocketAddr::new("2001:db8::2".parse().unwrap(), free_port());
        backend_at(server, Conduct::Tell);
        let maitred = start(2, &config(port, &[server], "source_ports: own"));
        for _ in 0..3 {
            let threads: Vec<_> = (0..2)
                .map(|_| {
                    std::thread::spawn(move || (0..95).map(|_| held(port)).collect::<Vec<_>>())
                })
                .collect();
            let held: Vec<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
            let ports: BTreeSet<u16> = held.iter().map(|(_, from)| from.port()).collect();
            assert_eq!(ports, (40_021..40_400).step_by(2).collect());
            assert_eq!(in_use(&maitred), 190.0);
            drop(held);
            wait_for_no_port_in_use(&maitred);
        }
        sessions(port, 2000);
        nothing_failed(&maitred);
    });
}

#[test]
fn without_ports_clients_are_refused_until_some_come_back() {
    let test = "without_ports_clients_are_refused_until_some_come_back";
    apart(test, (40_000, 40_199), "true", || {
        let port = free_port();
        let pool = "source_ports: own, connect: {timeout: 30s}";
        let maitred = start(1, &config(port, &[teller(Conduct::Tell)], pool));
        let held: Vec<_> = (0..200).map(|_| held(port)).collect();
        assert_eq!(held.iter().map(|(_, from)| from.port()).collect::<BTreeSet<_>>().len(), 200);
        are_refused(&maitred, port, 20);
        assert_eq!(in_use(&maitred), 100.0);
        drop(held);
        wait_for_no_port_in_use(&maitred);
        sessions(port, 400);
        assert_eq!(exhausted(&maitred), 20.0);
    });
}

#[test]
fn other_programs_still_connect() {
    apart("other_programs_still_connect", (40_000, 41_999), "true", || {
        let port = free_port();
        let (ours, another) = (teller(Conduct::Tell), teller(Conduct::Tell));
        let maitred = start(1, &config(port, &[ours], "source_ports: own"));
        sessions(port, 4000);
        let done = Arc::new(AtomicBool::new(false));
        let its_done = Arc::clone(&done);
        let churn = std::thread::spawn(move || {
            while !its_done.load(Relaxed) {
                session(port).unwrap();
            }
        });
        for address in [ours, another] {
            for number in 0..500 {
                let connected = TcpStream::connect(address);
                connected.unwrap_or_else(|error| panic!("{address}, {number}: {error}"));
            }
        }
        done.store(true, Relaxed);
        churn.join().unwrap();
        nothing_failed(&maitred);
    });
}

/// A backend may go on for long after its client's FIN.
#[test]
fn a_half_closed_session_keeps_its_port() {
    apart("a_half_closed_session_keeps_its_port", (40_000, 40_019), "true", || {
        let (port, server) = (free_port(), SocketAddr::from((SERVER, free_port())));
        let listener = TcpListener::bind(server).unwrap();
        let maitred = start(1, &config(port, &[server], "source_ports: own"));
        let begin = || {
            let client = client(port).unwrap();
            let (mut at_backend, from) = listener.accept().unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(at_backend.read(&mut [0; 8]).unwrap(), 0);
            (client, at_backend, from)
        };
        let mut halves: Vec<_> = (0..8).map(|_| begin()).collect();
        for _ in 0..100 {
            let (mut client, at_backend, from) = begin();
            assert!(halves.iter().all(|(_, _, held)| *held != from), "{from} is in use");
            drop(at_backend);
            assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
        }
        assert_eq!(in_use(&maitred), 8.0);
        for (client, at_backend, _) in &mut halves {
            at_backend.write_all(b"late").unwrap();
            client.read_exact(&mut [0; 4]).unwrap();
        }
        drop(halves);
        wait_for_no_port_in_use(&maitred);
        nothing_failed(&maitred);
    });
}

/// The kernel would not mind: the listener has another address.
#[test]
fn a_listener_added_by_a_reload_keeps_its_port() {
    apart("a_listener_added_by_a_reload_keeps_its_port", (40_000, 40_009), "true", || {
        let port = free_port();
        let pool = "source_ports: own, source: [\"192.0.2.2\"]";
        let before = config(port, &[teller(Conduct::Tell)], pool);
        let maitred = start(1, &before);
        let ports = || (0..20).map(|_| session(port).unwrap().port()).collect::<BTreeSet<_>>();
        assert_eq!(ports(), (40_001..40_010).step_by(2).collect());
        let both = format!("bind: [\"127.0.0.1:{port}\", \"127.0.0.1:40005\"]");
        let after = before.replace(&format!("bind: \"127.0.0.1:{port}\""), &both);
        maitred.write_config(&after);
        maitred.process.signal(Signal::HUP);
        wait_for("the reload", || TcpStream::connect(("127.0.0.1", 40_005)).is_ok());
        wait_for_no_port_in_use(&maitred);
        assert_eq!(ports(), [40_001, 40_003, 40_007, 40_009].into());
        nothing_failed(&maitred);
    });
}

/// Nobody listens on a port that the kernel may choose as ours: no connection is one with itself, and the backend can start.
#[test]
fn a_dead_backend_is_not_reached_by_its_own_port() {
    apart("a_dead_backend_is_not_reached_by_its_own_port", (41_000, 41_019), "true", || {
        for (mode, dead) in [("kernel", 41_008), ("own", 41_009), ("auto", 41_009)] {
            let port = free_port();
            let address = SocketAddr::from((SERVER, dead));
            let pool = format!("source_ports: {mode}, passive: none, connect: {{attempts: 1}}");
            let maitred = start(1, &config(port, &[address], &pool));
            for _ in 0..300 {
                let mut client = client(port).unwrap();
                let _ = client.write_all(b"secret");
                assert!(!matches!(client.read(&mut [0; 9]), Ok(1..)), "{mode}: its own bytes");
            }
            let backend = TcpListener::bind(address);
            assert!(backend.is_ok(), "{mode}: {backend:?}");
            drop(maitred);
        }
    });
}
