//! A flood from sources that are not there, in a network of the test's own, while others talk: they go on talking, and
//! maitred stays within its limits.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::harness::{Maitred, PATIENCE, SHELL, anonymous, free_port, wait_for};
use crate::local::ROLE;
use crate::namespace::Namespace;

const TEST: &str = "flood::a_flood_of_false_sources_harms_nobody";
const INSIDE: &str = "in the flood's network";
const SOURCES: u32 = 1_000_000;
/// Fast, but a rate that one CPU can read: what the kernel drops before anybody reads it, no balancer can keep.
const PER_SECOND: u32 = 100_000;
/// Not a loopback address: from one, no answer could leave for the false sources.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const MAX_FLOWS: usize = 2000;
const CLIENTS: usize = 64;
const PINGS_PER_SECOND: u32 = 1000;

#[test]
fn a_flood_of_false_sources_harms_nobody() {
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        return inside();
    }
    let namespace = Namespace::new();
    // Answers to the false sources leave by an interface whose other end listens to nobody: no ICMP comes back.
    namespace.shell(&format!(
        "ip link add sink type veth peer name void && ip link set sink arp off \
         && ip address add {ADDRESS}/32 dev sink && ip link set sink up && ip link set void up \
         && ip route add 10.0.0.0/8 dev sink"
    ));
    let out = namespace.run_again(TEST, INSIDE, 120);
    // The test runner's words may stand before them.
    let figures: Vec<&str> =
        out.lines().filter_map(|line| Some(&line[line.find("flood: ")?..])).collect();
    assert!(figures.len() > 2, "{out}");
    println!("{}", figures.join("\n"));
}

fn inside() {
    let (port, server) = (free_port(), echo());
    let maitred = Maitred::start_as(
        SHELL,
        "log: {sessions: none}",
        &format!(
            "listeners:
  main:
    bind: \"{ADDRESS}:{port}\"
    protocol: udp
    pool: main
    flow: {{max_flows: {MAX_FLOWS}, timeout: 10s}}
pools: {{main: {{backends: [\"127.0.0.1:{server}\"], health: {{probe: none}}}}}}
"
        ),
    );
    let id = maitred.process.id();
    let mut talk = Talk::begin(port);
    let (memory, descriptors) = (anonymous(id), count_descriptors(id));
    let done = Arc::new(AtomicBool::new(false));
    let its_done = Arc::clone(&done);
    let flood = std::thread::spawn(move || {
        let began = Instant::now();
        flood(port);
        its_done.store(true, Relaxed);
        began.elapsed()
    });
    let (mut most_memory, mut most_descriptors) = (memory, descriptors);
    let mut looked = Instant::now();
    while !done.load(Relaxed) {
        talk.on();
        if looked.elapsed() > Duration::from_millis(500) {
            looked = Instant::now();
            most_memory = most_memory.max(anonymous(id));
            most_descriptors = most_descriptors.max(count_descriptors(id));
        }
    }
    let took = flood.join().unwrap();
    let (sent, lost) = talk.end();
    let growth = most_memory.saturating_sub(memory);
    println!("flood: {SOURCES} sources in {took:.1?}; {CLIENTS} clients sent {sent}, lost {lost}");
    println!(
        "flood: memory grew by {growth} B; {descriptors} descriptors, then {most_descriptors}"
    );
    let settled = || {
        let flows = maitred.metric("maitred_udp_flows_total", &[]);
        flows - CLIENTS as f64 + maitred.dropped() >= f64::from(SOURCES) * 0.99
    };
    wait_for("maitred to have counted the flood", settled);
    let metrics = maitred.metrics();
    for line in metrics.0.lines().filter(|line| line.starts_with("maitred_udp_dropped_total")) {
        if !line.ends_with(" 0") {
            println!("flood: {line}");
        }
    }
    assert!(sent > 2 * PINGS_PER_SECOND as usize, "{sent} pings are too few to tell");
    assert!(lost * 1000 < sent, "{lost} of {sent} pings were lost");
    assert!(most_descriptors <= MAX_FLOWS + descriptors + 16, "{most_descriptors} descriptors");
    assert!(growth <= 64 << 20, "memory grew by {growth} B");
    let over = maitred.metric("maitred_udp_dropped_total", &[("reason", "over_limit")]);
    assert!(over > f64::from(SOURCES) * 0.5, "most find the table full: {over}");
    let flows = maitred.metric("maitred_udp_flows_active", &[]);
    assert!(flows <= MAX_FLOWS as f64 + 0.5, "{flows} flows");
    wait_for_flows_to_expire(&maitred);
}

fn wait_for_flows_to_expire(maitred: &Maitred) {
    // Longer than their timeout, which is half of what is waited for otherwise.
    assert!(PATIENCE > Duration::from_secs(15));
    maitred.wait_for_no_flow();
}

fn count_descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

/// A server that sends datagrams back; it lives as long as the test's process.
fn echo() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    // The first datagrams of the flood are let in all at once.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        loop {
            let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
    port
}

/// Clients whose flows are there before the flood: one after the other sends a number, at an even pace.
struct Talk {
    clients: Vec<UdpSocket>,
    next: usize,
    missing: BTreeSet<usize>,
    began: Instant,
}

impl Talk {
    fn begin(port: u16) -> Talk {
        let client = |_| {
            let socket = UdpSocket::bind((ADDRESS, 0)).unwrap();
            socket.connect((ADDRESS, port)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let clients: Vec<UdpSocket> = (0..CLIENTS).map(client).collect();
        let mut talk = Talk { clients, next: 0, missing: BTreeSet::new(), began: Instant::now() };
        while talk.next < 2 * CLIENTS {
            talk.on();
        }
        wait_for("all flows", || talk.hear());
        talk
    }

    /// Sends what is due, and hears what has come.
    fn on(&mut self) {
        let due = self.began.elapsed().as_secs_f64() * f64::from(PINGS_PER_SECOND);
        while (self.next as f64) < due {
            let client = &self.clients[self.next % CLIENTS];
            client.send(&self.next.to_le_bytes()).unwrap();
            self.missing.insert(self.next);
            self.next += 1;
        }
        self.hear();
        // Until the next one is due.
        std::thread::sleep(Duration::from_millis(1));
    }

    /// Whether everything has been answered.
    fn hear(&mut self) -> bool {
        for (index, client) in self.clients.iter().enumerate() {
            let mut answer = [0; 16];
            while let Ok(length) = client.recv(&mut answer) {
                let number = usize::from_le_bytes(answer[..length].try_into().unwrap());
                assert_eq!(number % CLIENTS, index, "another client's answer");
                assert!(self.missing.remove(&number), "{number} was answered twice");
            }
        }
        self.missing.is_empty()
    }

    /// How many were sent, and how many of them were never answered.
    fn end(mut self) -> (usize, usize) {
        let end = Instant::now() + Duration::from_secs(2);
        while !self.hear() && Instant::now() < end {
            // For what is still on its way.
            std::thread::sleep(Duration::from_millis(5));
        }
        (self.next, self.missing.len())
    }
}

/// One datagram of each source, as fast as the pace allows.
fn flood(port: u16) {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)));
    let socket = socket.expect("root may send what it likes");
    socket.set_header_included_v4(true).unwrap();
    let server = SocketAddrV4::new(ADDRESS, port);
    let address = SocketAddr::V4(server).into();
    let began = Instant::now();
    for number in 0..SOURCES {
        if number % 50 == 0 {
            let due = Duration::from_secs(1) * number / PER_SECOND;
            // It is the pace that is wanted.
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        let sent = socket.send_to(&datagram(number, server), &address);
        assert_eq!(sent.unwrap(), 36);
    }
}

/// IPv4 and UDP headers, and eight bytes. The kernel fills in the length and the first checksum; the second may be 0.
fn datagram(number: u32, server: SocketAddrV4) -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[0] = 0x45;
    bytes[8] = 64;
    bytes[9] = 17;
    // A different address for each number, and none that ends in 0.
    bytes[12..16].copy_from_slice(&(0x0a00_0001 + number * 2).to_be_bytes());
    bytes[16..20].copy_from_slice(&server.ip().octets());
    bytes[20..22].copy_from_slice(&(1024 + (number % 60_000) as u16).to_be_bytes());
    bytes[22..24].copy_from_slice(&server.port().to_be_bytes());
    bytes[24..26].copy_from_slice(&16_u16.to_be_bytes());
    bytes[28..32].copy_from_slice(&number.to_be_bytes());
    bytes
}
