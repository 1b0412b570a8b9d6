//! Each datagram that a UDP listener was sent is passed on or counted, whatever happens: a queue that overflows, a
//! source that cannot be answered, a drain.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::{Maitred, SHELL, ended_with, free_port, pause, wait_for};
use crate::local::{ROLE, echo_datagrams};
use crate::namespace::Namespace;

fn udp(port: u16, server: u16) -> String {
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main}}}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}}}
"
    )
}

/// The server stands behind another backend, which is always asked first.
fn behind_first(port: u16, first: &str, server: u16) -> String {
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main}}}}
pools:
  main:
    balance: first_available
    backends: [{{address: \"{first}\", name: first}}, \"127.0.0.1:{server}\"]
    health: {{probe: none}}
    passive: none
"
    )
}

fn client(port: u16) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn ask(client: &UdpSocket, text: &[u8]) -> bool {
    client.send(text).unwrap();
    client.recv(&mut [0; 64]).is_ok()
}

fn dropped(maitred: &Maitred, reason: &str) -> f64 {
    maitred.metric("maitred_udp_dropped_total", &[("reason", reason)])
}

#[test]
fn what_did_not_fit_into_the_kernels_queue_is_counted() {
    let (server, _heard) = echo_datagrams();
    let port = free_port();
    let maitred = Maitred::start(&udp(port, server));
    let client = client(port);
    assert!(ask(&client, b"before"));
    maitred.process.signal(Signal::STOP);
    // More than any queue of ours has room for.
    const SENT: u32 = 40_000;
    for _ in 0..SENT {
        client.send(&[0; 1200]).unwrap();
    }
    maitred.process.signal(Signal::CONT);
    wait_for("the queue to be empty", || {
        // The kernel tells of the lost ones beside the next that fits.
        client.send(b"after").unwrap();
        dropped(&maitred, "receive_buffer") > 0.0
    });
    pause(300);
    let metrics = maitred.metrics();
    let from_client = metrics.value("maitred_udp_datagrams_total", &[("direction", "from_client")]);
    let lost = metrics.value("maitred_udp_dropped_total", &[("reason", "receive_buffer")]);
    let to_backend = metrics.value("maitred_udp_datagrams_total", &[("direction", "to_backend")]);
    let after = from_client + lost - f64::from(SENT) - 1.0;
    println!(
        "udp: of {SENT} datagrams {lost} did not fit; {from_client} came, {to_backend} went on"
    );
    assert!((1.0..2000.0).contains(&after), "{after} datagrams after the burst");
    let not_passed = metrics.value("maitred_udp_dropped_total", &[("reason", "send_buffer")]);
    assert!((from_client - to_backend - not_passed).abs() < 0.5);
}

#[test]
fn a_source_that_cannot_be_answered_is_not_served() {
    let (server, heard) = echo_datagrams();
    let port = free_port();
    let maitred = Maitred::start(&udp(port, server));
    // No socket has port 0; a forger writes the header himself. Checksum 0: none.
    let forger = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap();
    let mut packet = vec![0, 0];
    packet.extend(port.to_be_bytes());
    packet.extend([0, 12, 0, 0]);
    packet.extend(b"zero");
    let to = SocketAddr::from(([127, 0, 0, 1], 0));
    forger.send_to(&packet, &to.into()).unwrap();
    wait_for("it to be counted", || dropped(&maitred, "invalid_source") > 0.5);
    // A backend's address: its answer would be a question to us.
    packet[..2].copy_from_slice(&server.to_be_bytes());
    forger.send_to(&packet, &to.into()).unwrap();
    wait_for("it to be counted", || dropped(&maitred, "loop") > 0.5);
    // Our own.
    packet[..2].copy_from_slice(&port.to_be_bytes());
    forger.send_to(&packet, &to.into()).unwrap();
    wait_for("it to be counted", || dropped(&maitred, "loop") > 1.5);
    assert!(ask(&client(port), b"still there"));
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[test]
fn a_drain_serves_flows_to_its_deadline_and_lets_nobody_in() {
    let (server, _heard) = echo_datagrams();
    let port = free_port();
    let shutdown = "process: {shutdown: {timeout: 800ms}}\nlog: {sessions: all, format: json}";
    let mut maitred = Maitred::start_as(SHELL, shutdown, &udp(port, server));
    let known = client(port);
    assert!(ask(&known, b"before"));
    maitred.process.signal(Signal::TERM);
    let begun = Instant::now();
    wait_for("nobody to be let in", || {
        // Each time another one: whoever was let in before the signal took effect stays.
        let newcomer = client(port);
        newcomer.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        !ask(&newcomer, b"new")
    });
    assert!(ask(&known, b"during"));
    assert!(begun.elapsed() < Duration::from_millis(700));
    assert!(ended_with(maitred.process.end(), 0));
    assert!(begun.elapsed() >= Duration::from_millis(750));
    let records = maitred.records();
    assert!(records.iter().any(|it| it["reason"] == "drained" && it["stage"] == "relay"));
    assert!(records.iter().any(|it| it["reason"] == "drained" && it["stage"] == "admit"));
    assert!(records.iter().all(|it| it["protocol"] == "udp"));
}

/// Nobody answers the ARP requests for the first backend. After a few the kernel says so, as a router would by ICMP.
#[test]
fn a_first_datagram_for_an_unreachable_host_goes_to_another() {
    const TEST: &str = "udp_exact::a_first_datagram_for_an_unreachable_host_goes_to_another";
    const INSIDE: &str = "on the lonely wire";
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        let (server, _heard) = echo_datagrams();
        let port = free_port();
        let maitred = Maitred::start(&behind_first(port, "192.0.2.7:9", server));
        assert!(ask(&client(port), b"is anybody there"));
        let labels = [("backend", "first"), ("reason", "unreachable")];
        assert!(maitred.metric("maitred_backend_connect_failures_total", &labels) > 0.5);
        return;
    }
    let namespace = Namespace::new();
    namespace.shell(
        "ip link add wire type veth peer name end && ip address add 192.0.2.1/24 dev wire \
         && ip link set wire up && ip link set end up",
    );
    namespace.run_again(TEST, INSIDE, 60);
}

/// Which of its addresses a host sends from and to makes no difference, if it listens on all.
#[test]
fn another_address_of_ours_is_not_served_on_a_port_of_ours() {
    const TEST: &str = "udp_exact::another_address_of_ours_is_not_served_on_a_port_of_ours";
    const INSIDE: &str = "at two addresses";
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        let (server, _heard) = echo_datagrams();
        let port = free_port();
        let everywhere =
            udp(port, server).replace(&format!("127.0.0.1:{port}"), &format!(":{port}"));
        let maitred = Maitred::start(&everywhere);
        for (own, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let (own, other): (IpAddr, IpAddr) = (own.parse().unwrap(), other.parse().unwrap());
            let forger = Socket::new(Domain::for_address((own, 0).into()), Type::DGRAM, None);
            let forger = forger.unwrap();
            forger.set_reuse_port(true).unwrap();
            forger.bind(&SocketAddr::from((own, port)).into()).unwrap();
            forger.send_to(b"loop", &SocketAddr::from((other, port)).into()).unwrap();
            drop(forger);
            let client = UdpSocket::bind((own, 0)).unwrap();
            client.connect((other, port)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert!(ask(&client, b"from another port"));
        }
        assert!((dropped(&maitred, "loop") - 2.0).abs() < 0.5);
        return;
    }
    let namespace = Namespace::new();
    namespace.shell(
        "for ip in 192.0.2.1 192.0.2.2 2001:db8::1 2001:db8::2; do ip address add $ip dev lo; done",
    );
    namespace.run_again(TEST, INSIDE, 60);
}

/// With so few ports to choose from, the kernel soon gives a flow the one on which its backend does not listen.
#[test]
fn a_flow_does_not_answer_itself_when_nobody_listens() {
    const TEST: &str = "udp_exact::a_flow_does_not_answer_itself_when_nobody_listens";
    const INSIDE: &str = "with two ports";
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        let port = free_port();
        let maitred = Maitred::start(&udp(port, 40_000));
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap();
        for own in 20_000..20_030 {
            let client = UdpSocket::bind(("127.0.0.1", own)).unwrap();
            client.connect(("127.0.0.1", port)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            assert!(!ask(&client, b"is anybody there"), "nobody is");
        }
        assert!(maitred.dropped() > 29.5);
        return;
    }
    Namespace::new().run_again(TEST, INSIDE, 60);
}

/// A filter of this host lets nothing out to the first backend: the kernel says so at once, not by ICMP.
#[test]
fn a_first_datagram_that_may_not_leave_goes_to_another() {
    const TEST: &str = "udp_exact::a_first_datagram_that_may_not_leave_goes_to_another";
    const INSIDE: &str = "behind the filter";
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        let (server, _heard) = echo_datagrams();
        let port = free_port();
        let maitred = Maitred::start(&behind_first(port, "127.0.0.7:9", server));
        let client = client(port);
        assert!(ask(&client, b"one") && ask(&client, b"two"));
        let metrics = maitred.metrics();
        let passed = |it| metrics.value("maitred_udp_datagrams_total", &[("direction", it)]);
        assert_eq!([passed("from_client"), passed("to_backend")].map(f64::round), [2.0, 2.0]);
        assert!(maitred.dropped() < 0.5 && maitred.metric("maitred_udp_flows_total", &[]) < 1.5);
        return;
    }
    let namespace = Namespace::new();
    namespace.shell("iptables -A OUTPUT -p udp -d 127.0.0.7 -j DROP");
    namespace.run_again(TEST, INSIDE, 60);
}

#[test]
fn without_flows_a_drain_ends_at_once() {
    let (server, _heard) = echo_datagrams();
    let mut maitred = Maitred::start(&udp(free_port(), server));
    maitred.process.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(ended_with(maitred.process.end(), 0));
    assert!(begun.elapsed() < Duration::from_secs(5));
}
