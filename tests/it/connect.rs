//! Connecting: attempts, their failures, and a client that leaves or half-closes meanwhile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, OnRefuse};
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, loopback, wait_for};

/// An address where connections are neither refused nor made: its queue is full. Keep the sockets.
struct BlackHole {
    address: SocketAddr,
    listener: TcpListener,
    _fill: Vec<socket2::Socket>,
}

fn black_hole() -> BlackHole {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let listener: TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let fill = (0..4).map(|_| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address.into());
        socket
    });
    let fill = fill.collect();
    // The handshakes that fill the queue show nowhere when they are done.
    std::thread::sleep(Duration::from_millis(50));
    BlackHole { address, listener, _fill: fill }
}

/// An address where nobody listens, and nobody else can while the socket is kept.
fn refusing() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

fn first_available(backends: &[SocketAddr]) -> config::Config {
    let mut config = balancer::config(backends);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    config
}

#[test]
fn a_refused_attempt_goes_to_the_next_backend_with_the_bytes_sent_meanwhile() {
    let (backend, address) = loopback();
    let (_bound, refusing) = refusing();
    let balancer = Balancer::start(first_available(&[refusing, address]));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"hello").unwrap();
    let (mut server, _) = backend.accept().unwrap();
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    drop((client, server));
    let record = &balancer.endings(1)[0];
    assert_eq!((record.tried, record.reason), (1, CloseReason::ClientClosed));
}

#[test]
fn a_silent_backend_costs_its_time_and_the_next_gets_the_bytes_once() {
    let hole = black_hole();
    let (backend, address) = loopback();
    let mut config = first_available(&[hole.address, address]);
    balancer::pool(&mut config).connect.timeout = Duration::from_millis(300);
    let balancer = Balancer::start(config);
    let start = Instant::now();
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"once").unwrap();
    let (mut server, _) = backend.accept().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(290));
    client.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"once");
    drop((client, server));
    assert_eq!(balancer.endings(1)[0].tried, 1);
}

#[test]
fn failures_are_told_apart() {
    let (_bound, refusing) = refusing();
    let hole = black_hole();
    for (address, reason) in [
        (refusing, CloseReason::ConnectRefused),
        (hole.address, CloseReason::ConnectTimeout),
        // A blackhole of the kernel's own: TEST-NET has no route from loopback alone.
        ("255.255.255.255:1".parse().unwrap(), CloseReason::ConnectUnreachable),
    ] {
        let mut config = balancer::config(&[address]);
        balancer::pool(&mut config).connect.timeout = Duration::from_millis(200);
        let balancer = Balancer::start(config);
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "a clean end, as on_refuse: close says");
        assert_eq!(balancer.ending(), (Stage::Connect, reason));
    }
}

#[test]
fn on_refuse_reset_resets_also_after_failed_attempts() {
    let (_bound, refusing) = refusing();
    let mut config = balancer::config(&[refusing]);
    balancer::listener(&mut config).on_refuse = OnRefuse::Reset;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(balancer.ending(), (Stage::Connect, CloseReason::ConnectRefused));
}

#[test]
fn a_client_that_is_refused_sees_an_end_though_it_sent_bytes() {
    let mut config = balancer::config(&[]);
    balancer::pool(&mut config).backends.clear();
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(&[1; 1000]).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
}

/// Long attempts: what ends them here is the client.
fn long_attempt(leave: impl FnOnce(TcpStream)) -> (Stage, CloseReason) {
    let hole = black_hole();
    let mut config = balancer::config(&[hole.address]);
    balancer::pool(&mut config).connect.timeout = Duration::from_secs(30);
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(balancer.address()).unwrap();
    wait_for("the session to begin", || balancer.supervisor().plane.open_sessions() == 1);
    // Its SYN is on its way to nobody: there is nothing to see.
    std::thread::sleep(Duration::from_millis(50));
    let left = Instant::now();
    leave(client);
    let ending = balancer.ending();
    assert!(left.elapsed() < Duration::from_secs(2), "at once");
    let failures = &balancer.supervisor().plane.snapshot.load().pools["main"].backends[0];
    assert_eq!(failures.live.connect_failures.timeout.value(), 0, "not the backend's fault");
    ending
}

#[test]
fn a_reset_by_the_client_cancels_the_attempt() {
    let ending = long_attempt(|client| {
        reset_on_close(&client);
    });
    assert_eq!(ending, (Stage::Connect, CloseReason::ClientReset));
}

#[test]
fn a_reset_behind_unread_bytes_cancels_the_attempt() {
    let ending = long_attempt(|mut client| {
        client.write_all(b"bytes").unwrap();
        // So that the balancer sees the one before the other.
        std::thread::sleep(Duration::from_millis(50));
        reset_on_close(&client);
    });
    assert_eq!(ending, (Stage::Connect, CloseReason::ClientReset));
}

#[test]
fn a_reset_after_a_half_close_cancels_the_attempt() {
    let ending = long_attempt(|mut client| {
        client.write_all(b"bytes").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        // So that the balancer sees the one before the other.
        std::thread::sleep(Duration::from_millis(50));
        reset_on_close(&client);
    });
    assert_eq!(ending, (Stage::Connect, CloseReason::ClientReset));
}

/// `nc -N host port </dev/null` says nothing, and wants to hear what the server says.
#[test]
fn an_end_while_connecting_is_a_half_close_with_or_without_bytes_before_it() {
    for question in [&b"question"[..], b""] {
        half_closed_while_connecting(question);
    }
}

fn half_closed_while_connecting(question: &[u8]) {
    let hole = black_hole();
    let mut config = balancer::config(&[hole.address]);
    balancer::pool(&mut config).connect.timeout = Duration::from_secs(30);
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(question).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // Long enough for a wrong end to show.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(balancer.supervisor().plane.open_sessions(), 1, "still connecting");
    // The queue empties: the SYN tried again is answered.
    hole.listener.set_nonblocking(true).unwrap();
    let mut answered = false;
    wait_for("the backend to get the question", || {
        if let Ok((mut server, _)) = hole.listener.accept() {
            server.set_nonblocking(false).unwrap();
            server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut bytes = Vec::new();
            if server.read_to_end(&mut bytes).is_ok() && bytes == question {
                server.write_all(b"answer").unwrap();
                answered = true;
            }
        }
        answered
    });
    let mut bytes = Vec::new();
    client.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"answer");
}
