//! UDP through a balancer inside the process: datagrams whole and in order, replies from the address the client
//! dialled, nobody but the flow's backend heard.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use maitred::border::addr::ListenAddr;
use maitred::border::datagrams::{Direction, Dropped};
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, Protocol};
use maitred::sys::datagram::{self, Parcel};

use crate::balancer::{self, Balancer, wait_for};

/// A UDP socket of a test that does not wait for ever.
pub fn socket(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// One UDP listener on a free port of loopback, one pool over `backends`; two workers, no probes.
pub fn config(backends: &[&UdpSocket]) -> Config {
    let addresses: Vec<SocketAddr> = backends.iter().map(|it| it.local_addr().unwrap()).collect();
    let mut config = balancer::config(&addresses);
    balancer::listener(&mut config).protocol = Protocol::Udp;
    balancer::pool(&mut config).balance = config::Balance::RoundRobin;
    config
}

/// The same with another listener of the same pool, on an address of its own.
pub fn with_second(mut config: Config) -> Config {
    let mut second = (*config.listeners[0]).clone();
    second.name = "second".into();
    second.bind = vec![ListenAddr::Inet("127.0.0.2:0".parse().unwrap())];
    config.listeners.push(Arc::new(second));
    config
}

/// A client that talks to the balancer alone.
pub fn client(balancer: &Balancer) -> UdpSocket {
    let client = socket("127.0.0.1:0");
    client.connect(balancer.address()).unwrap();
    client
}

/// What arrives next, and from whom.
pub fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 70_000];
    let (count, from) = socket.recv_from(&mut buffer).unwrap();
    buffer.truncate(count);
    (buffer, from)
}

/// A question and its answer, by way of `backend`; returns whom the backend saw.
pub fn exchange(client: &UdpSocket, backend: &UdpSocket, text: &[u8]) -> SocketAddr {
    client.send(text).unwrap();
    let (heard, flow) = receive(backend);
    assert_eq!(heard, text);
    backend.send_to(text, flow).unwrap();
    assert_eq!(receive(client).0, text);
    flow
}

/// Waits until this many datagrams were dropped for this reason.
pub fn dropped(balancer: &Balancer, reason: Dropped, count: u64) {
    wait_for(&format!("{count} datagrams dropped: {reason:?}"), || {
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let listeners = snapshot.listeners.values();
        let sum: u64 =
            listeners.map(|it| it.live.datagrams.sum(|cell| cell.dropped(reason).value())).sum();
        assert!(sum <= count, "{sum} datagrams dropped: {reason:?}");
        sum == count
    });
}

pub fn passed(balancer: &Balancer, direction: Direction) -> u64 {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let listeners = snapshot.listeners.values();
    listeners.map(|it| it.live.datagrams.sum(|cell| cell.passed(direction).value())).sum()
}

#[test]
fn datagrams_of_every_size_are_whole_in_both_directions() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    let client = client(&balancer);
    for size in [0, 1, 2, 511, 512, 1472, 1473, 8192, 65_506, 65_507, 0] {
        let text: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0]).collect();
        exchange(&client, &backend, &text);
    }
    assert_eq!(passed(&balancer, Direction::FromClient), 11);
    // The last one is counted after the client has it.
    wait_for("all to be counted", || passed(&balancer, Direction::ToClient) == 11);
    for reason in Dropped::ALL {
        dropped(&balancer, reason, 0);
    }
}

#[test]
fn many_datagrams_stay_in_order_and_a_burst_is_not_merged() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    let client = client(&balancer);
    for round in 0..20_u8 {
        // Sizes that invite coalescing: equal, shorter, empty, longer.
        let sizes = [100, 100, 100, 40, 0, 0, 100, 100, 200, 1, 1, 1, 1, 0];
        for (index, size) in sizes.iter().enumerate() {
            client.send(&vec![round ^ index as u8; *size]).unwrap();
        }
        let mut flow = None;
        for (index, size) in sizes.iter().enumerate() {
            let (heard, from) = receive(&backend);
            assert_eq!(heard, vec![round ^ index as u8; *size]);
            flow = Some(from);
        }
        for (index, size) in sizes.iter().enumerate() {
            backend.send_to(&vec![round ^ index as u8; *size], flow.unwrap()).unwrap();
        }
        for (index, size) in sizes.iter().enumerate() {
            assert_eq!(receive(&client).0, vec![round ^ index as u8; *size]);
        }
    }
}

#[test]
fn a_train_of_datagrams_arrives_as_the_datagrams_it_was() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    let LocalPair { train, address } = LocalPair::to(balancer.address());
    let payload: Vec<u8> = (0..12_100_u32).map(|at| (at / 1200) as u8).collect();
    let parcel = Parcel { segment: Some(1200), ..Parcel::default() };
    datagram::send(&train, &[IoSlice::new(&payload)], &parcel).unwrap();
    let mut flow = None;
    for (index, part) in payload.chunks(1200).enumerate() {
        let (heard, from) = receive(&backend);
        assert_eq!(heard, part, "datagram {index}");
        flow = Some(from);
    }
    // And back: the backend's own train.
    let back = socket2::SockRef::from(&backend);
    back.connect(&flow.unwrap().into()).unwrap();
    let owned = std::os::fd::AsFd::as_fd(&backend).try_clone_to_owned().unwrap();
    datagram::send(&owned, &[IoSlice::new(&payload)], &parcel).unwrap();
    let plain = UdpSocket::from(train);
    plain.set_nonblocking(false).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // This socket takes trains; taken one by one they must be these.
    let mut taken = Vec::new();
    while taken.len() < payload.len() {
        taken.extend(receive(&plain).0);
    }
    assert_eq!(taken, payload);
    wait_for("all counted", || passed(&balancer, Direction::ToClient) == 11);
    assert_eq!(plain.local_addr().unwrap(), address);
}

/// A connected socket that can send trains.
struct LocalPair {
    train: std::os::fd::OwnedFd,
    address: SocketAddr,
}

impl LocalPair {
    fn to(address: SocketAddr) -> LocalPair {
        let train = datagram::connect(address, None, None).unwrap();
        let address = socket2::SockRef::from(&train).local_addr().unwrap().as_socket().unwrap();
        LocalPair { train, address }
    }
}

#[test]
fn replies_leave_from_the_address_and_port_the_client_dialled() {
    let backend = socket("127.0.0.1:0");
    for (bind, dialled) in [
        (ListenAddr::Inet("0.0.0.0:0".parse().unwrap()), vec!["127.0.0.1", "127.0.0.7"]),
        (ListenAddr::Inet("[::]:0".parse().unwrap()), vec!["::1"]),
        (ListenAddr::DualStack(0), vec!["127.0.0.9", "::1", "127.0.0.1"]),
    ] {
        let mut config = config(&[&backend]);
        balancer::listener(&mut config).bind = vec![bind.clone()];
        let balancer = Balancer::start(config);
        let port = balancer.address().port();
        for ip in dialled {
            let family = if ip.contains(':') { "[::1]:0" } else { "127.0.0.1:0" };
            let client = socket(family);
            let to = SocketAddr::new(ip.parse().unwrap(), port);
            client.send_to(b"?", to).unwrap();
            let (_, flow) = receive(&backend);
            backend.send_to(b"!", flow).unwrap();
            let (heard, from) = receive(&client);
            assert_eq!((heard, from), (b"!".to_vec(), to), "{bind}");
        }
    }
}

#[test]
fn one_socket_dialling_two_addresses_has_two_flows() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    balancer::listener(&mut config).bind = vec![ListenAddr::Inet("0.0.0.0:0".parse().unwrap())];
    let balancer = Balancer::start(config);
    let port = balancer.address().port();
    let client = socket("127.0.0.1:0");
    let mut flows = Vec::new();
    for ip in ["127.0.0.2", "127.0.0.3", "127.0.0.2"] {
        client.send_to(b"?", (ip, port)).unwrap();
        flows.push(receive(&backend).1);
    }
    assert_eq!(flows[0], flows[2]);
    assert_ne!(flows[0], flows[1]);
}

#[test]
fn only_the_flows_backend_may_answer() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    let client = client(&balancer);
    let flow = exchange(&client, &backend, b"one");
    let stranger = socket("127.0.0.1:0");
    stranger.send_to(b"spoof", flow).unwrap();
    exchange(&client, &backend, b"two");
    assert_eq!(passed(&balancer, Direction::FromBackend), 2);
}

#[test]
fn a_backend_as_a_client_is_not_served() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    backend.send_to(b"loop", balancer.address()).unwrap();
    dropped(&balancer, Dropped::Loop, 1);
    assert_eq!(balancer.ending(), (Stage::Admit, CloseReason::Denied));
}

#[test]
fn our_own_listener_as_a_client_is_not_served() {
    let backend = socket("127.0.0.1:0");
    let config = with_second(config(&[&backend]));
    let balancer = Balancer::start(config);
    let addresses: Vec<SocketAddr> =
        balancer.supervisor().served().map(|(_, it)| it.local).map(balancer::inet).collect();
    // A raw datagram that claims to come from the other listener: no root here, so the kernel is asked to share.
    let forger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    forger.set_reuse_port(true).unwrap();
    forger.bind(&addresses[0].into()).unwrap();
    forger.send_to(b"loop", &addresses[1].into()).unwrap();
    dropped(&balancer, Dropped::Loop, 1);
}

#[test]
fn tcp_and_udp_may_share_an_address() {
    let backend = socket("127.0.0.1:0");
    let (tcp_backend, tcp_address) = balancer::loopback();
    let port = 20_000 + std::process::id() % 10_000;
    let bind = ListenAddr::Inet(format!("127.0.0.3:{port}").parse().unwrap());
    let mut config = config(&[&backend]);
    balancer::listener(&mut config).bind = vec![bind.clone()];
    let tcp = balancer::config(&[tcp_address]);
    let mut listener = (*tcp.listeners[0]).clone();
    listener.name = "tcp".into();
    listener.bind = vec![bind];
    listener.pool = Some("tcp".into());
    let mut pool = (*tcp.pools[0]).clone();
    pool.name = "tcp".into();
    config.listeners.push(Arc::new(listener));
    config.pools.push(Arc::new(pool));
    let balancer = Balancer::start(config);
    let client = socket("127.0.0.1:0");
    client.connect(balancer.address()).unwrap();
    exchange(&client, &backend, b"datagram");
    let stream = std::net::TcpStream::connect(balancer.address()).unwrap();
    let _accepted = tcp_backend.accept().unwrap();
    drop(stream);
}

#[test]
fn a_broadcast_is_answered_from_an_address_of_ours_whatever_the_wildcard() {
    for bind in [
        ListenAddr::Inet("0.0.0.0:0".parse().unwrap()),
        // IPv4 alone on a host without IPv6.
        ListenAddr::DualStack(0),
    ] {
        let backend = socket("127.0.0.1:0");
        let mut config = config(&[&backend]);
        balancer::listener(&mut config).bind = vec![bind];
        let balancer = Balancer::start(config);
        let client = socket("127.0.0.1:0");
        client.set_broadcast(true).unwrap();
        let port = balancer.address().port();
        for dialled in ["127.255.255.255", "127.0.0.3"] {
            client.send_to(b"who is there?", (dialled, port)).unwrap();
            let (_, flow) = receive(&backend);
            backend.send_to(b"me", flow).unwrap();
            let (text, from) = receive(&client);
            let ours = if dialled == "127.0.0.3" { dialled } else { "127.0.0.1" };
            assert_eq!(
                (text, from),
                (b"me".to_vec(), SocketAddr::new(ours.parse().unwrap(), port))
            );
        }
    }
}
