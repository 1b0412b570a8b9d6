//! Routes over real sockets: by what a TLS client asks for, by network and port; the very bytes reach the backend, and
//! nobody waits for bytes that do not matter.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{Config, NamePattern, OnRefuse, Pool, Route};
use maitred::data::wire::postgres;

use crate::balancer::{self, Balancer, loopback};
use crate::hello::hello;
use crate::server::{Conduct, Server};

struct Routed {
    balancer: Balancer,
    backends: [TcpListener; 2],
}

/// `route` leads to the second backend, everything else to the first.
fn routed(route: Route) -> (Config, [TcpListener; 2]) {
    let (own, own_address) = loopback();
    let (other, other_address) = loopback();
    let mut config = balancer::config(&[own_address]);
    let pool = Pool {
        name: "other".into(),
        backends: vec![balancer::backend(other_address)],
        ..Pool::clone(&config.pools[0])
    };
    config.pools.push(Arc::new(pool));
    let route = Route { pool: Some("other".into()), ..route };
    balancer::listener(&mut config).routes = vec![route];
    (config, [own, other])
}

fn start(route: Route) -> Routed {
    let (config, backends) = routed(route);
    Routed { balancer: Balancer::start(config), backends }
}

fn named(names: &[NamePattern]) -> Route {
    Route { server_name: names.to_vec(), ..Route::default() }
}

fn exact(name: &str) -> NamePattern {
    NamePattern::Exact(name.to_owned())
}

impl Routed {
    /// Sends `bytes` in pieces and ends; which backend got a connection, and what came there.
    fn send(&self, bytes: &[u8], each: usize) -> (usize, Vec<u8>) {
        let mut client = TcpStream::connect(self.balancer.address()).unwrap();
        client.set_nodelay(true).unwrap();
        for piece in bytes.chunks(each) {
            client.write_all(piece).unwrap();
            // So that they are segments of their own.
            std::thread::sleep(Duration::from_micros(100));
        }
        client.shutdown(Shutdown::Write).unwrap();
        let (index, mut stream) = self.accept();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        (index, got)
    }

    fn accept(&self) -> (usize, TcpStream) {
        let mut accepted = None;
        balancer::wait_for("one of the backends to be reached", || {
            for (index, backend) in self.backends.iter().enumerate() {
                backend.set_nonblocking(true).unwrap();
                if let Ok((stream, _)) = backend.accept() {
                    stream.set_nonblocking(false).unwrap();
                    accepted = Some((index, stream));
                }
            }
            accepted.is_some()
        });
        accepted.unwrap()
    }
}

#[test]
fn the_name_decides_and_the_backend_gets_the_very_bytes() {
    let routed =
        start(named(&[exact("db1.example.com"), NamePattern::Below("pg.example.com".into())]));
    for (name, expected) in [
        (Some("DB1.example.com"), 1),
        (Some("a.b.pg.example.com."), 1),
        (Some("pg.example.com"), 0),
        (Some("db2.example.com"), 0),
        (None, 0),
    ] {
        for (record_length, each) in [(16_384, 2_000), (16_384, 100), (60, 500), (1, 10_000)] {
            let bytes = [hello(name, &["h2"], record_length).as_slice(), b"and more"].concat();
            assert_eq!(
                routed.send(&bytes, each),
                (expected, bytes),
                "{name:?} {record_length} {each}"
            );
        }
    }
    let records = routed.balancer.endings(20);
    assert_eq!(records[0].server_name.as_deref(), Some("db1.example.com"));
    assert_eq!(records[0].pool.as_deref(), Some("other"));
    assert!(records.iter().all(|it| it.reason == CloseReason::ClientClosed));
}

#[test]
fn the_protocol_decides() {
    let routed = start(Route { alpn: vec![b"postgresql".to_vec()], ..Route::default() });
    let bytes = hello(Some("a"), &["h2", "postgresql"], 16_384);
    assert_eq!(routed.send(&bytes, 5_000), (1, bytes));
    let bytes = hello(Some("a"), &["h2"], 16_384);
    assert_eq!(routed.send(&bytes, 5_000), (0, bytes));
}

#[test]
fn who_speaks_no_tls_goes_on_at_the_first_byte_that_tells() {
    let routed = start(named(&[exact("a")]));
    for bytes in [b"G".as_slice(), b"\x16\x02", b"\0\0\0\x54\0\x03\0\0user\0me\0\0"] {
        let mut client = TcpStream::connect(routed.balancer.address()).unwrap();
        client.write_all(bytes).unwrap();
        let (index, mut stream) = routed.accept();
        assert_eq!(index, 0);
        let mut got = vec![0; bytes.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
    }
}

#[test]
fn without_a_pool_for_it_a_session_is_closed() {
    let (mut config, _backends) = routed(named(&[exact("a")]));
    balancer::listener(&mut config).pool = None;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(&hello(Some("b"), &[], 16_384)).unwrap();
    // What it is told is in `refusals`.
    client.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoRoute));
}

#[test]
fn a_hello_that_lies_is_refused() {
    let (mut config, _backends) = routed(named(&[exact("a")]));
    balancer::listener(&mut config).on_refuse = OnRefuse::Reset;
    balancer::listener(&mut config).preread_size = 2_048;
    let balancer = Balancer::start(config);
    for bytes in [
        hello(Some("a..b"), &[], 16_384),
        hello(Some("a"), &[], 16_384)[..4].iter().copied().chain([0, 9]).collect(),
        hello(Some(&"a".repeat(900)), &[], 16_384),
        // In very small records it is longer than may be looked at.
        hello(Some("a"), &[], 1),
    ] {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        let _ = client.write_all(&bytes);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    for record in balancer.endings(4) {
        assert_eq!((record.stage, record.reason), (Stage::Preread, CloseReason::BadClientHello));
        assert!(record.cause.is_some());
    }
}

#[test]
fn a_client_that_waits_for_the_server_is_let_go_in_time_and_reset_or_left_is_seen() {
    let (mut config, _backends) = routed(named(&[exact("a")]));
    balancer::listener(&mut config).timeouts.preread = Duration::from_millis(200);
    let balancer = Balancer::start(config);
    let mut silent = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let reset = TcpStream::connect(balancer.address()).unwrap();
    maitred::sys::socket::reset_on_close(&reset);
    drop(reset);
    let mut left = TcpStream::connect(balancer.address()).unwrap();
    left.write_all(b"\x16\x03").unwrap();
    drop(left);
    let mut reasons: Vec<_> = balancer.endings(3).iter().map(|it| (it.stage, it.reason)).collect();
    reasons.sort_by_key(|(_, reason)| reason.as_str());
    assert_eq!(
        reasons,
        [
            (Stage::Preread, CloseReason::ClientClosed),
            (Stage::Preread, CloseReason::ClientReset),
            (Stage::Preread, CloseReason::PrereadTimeout)
        ]
    );
}

#[test]
fn network_and_port_need_no_bytes() {
    let server = Server::start(Conduct::Say(&["b"]));
    let (mut config, _backends) =
        routed(Route { client: vec!["127.0.0.0/8".parse().unwrap()], ..Route::default() });
    Arc::make_mut(&mut config.pools[1]).backends = vec![balancer::backend(server.address)];
    // Asks for bytes, but only of others.
    balancer::listener(&mut config)
        .routes
        .insert(0, Route { client: vec!["192.0.2.0/24".parse().unwrap()], ..named(&[exact("a")]) });
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(crate::server::first_byte(&mut client), Some('b'), "a server that speaks first");
}

/// What a PostgreSQL client and its server say before TLS.
#[test]
fn a_postgresql_client_is_answered_and_its_backend_asked() {
    let routed = start(named(&[exact("db1")]));
    for asks_for_gss in [false, true] {
        let mut client = TcpStream::connect(routed.balancer.address()).unwrap();
        let mut answer = [0];
        if asks_for_gss {
            client.write_all(&[0, 0, 0, 8, 4, 210, 22, 48]).unwrap();
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [b'N']);
        }
        client.write_all(&postgres::TLS_REQUEST).unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [b'S']);
        let bytes = hello(Some("db1"), &[], 16_384);
        client.write_all(&bytes).unwrap();
        let (index, mut stream) = routed.accept();
        assert_eq!(index, 1);
        let mut asked = [0; 8];
        stream.read_exact(&mut asked).unwrap();
        assert_eq!(asked, postgres::TLS_REQUEST);
        stream.set_nonblocking(true).unwrap();
        // Not a byte of the client's before the answer: that there is none shows nowhere.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        stream.set_nonblocking(false).unwrap();
        stream.write_all(b"Sserver").unwrap();
        let mut got = vec![0; bytes.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);
        let mut said = [0; 6];
        client.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"server", "its answer is not the client's");
    }
}

#[test]
fn a_backend_without_tls_fails_the_attempt_and_a_promise_must_be_kept() {
    let routed = start(named(&[exact("db1")]));
    let mut client = TcpStream::connect(routed.balancer.address()).unwrap();
    client.write_all(&postgres::TLS_REQUEST).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(&hello(Some("db1"), &[], 16_384)).unwrap();
    let (_, mut stream) = routed.accept();
    stream.write_all(b"N").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let mut client = TcpStream::connect(routed.balancer.address()).unwrap();
    client.write_all(&postgres::TLS_REQUEST).unwrap();
    client.read_exact(&mut [0]).unwrap();
    client.write_all(b"no TLS").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let endings: Vec<_> =
        routed.balancer.endings(2).iter().map(|it| (it.stage, it.reason)).collect();
    assert_eq!(
        endings,
        [(Stage::Connect, CloseReason::TlsFailed), (Stage::Preread, CloseReason::BadClientHello)]
    );
}

#[test]
fn a_name_behind_a_proxy_header_is_told_to_the_backend() {
    use maitred::config::{ProxyTlvs, ProxyVersion};
    use maitred::data::wire::proxy_protocol::{Ends, v1, v2};
    let (mut config, backends) = routed(named(&[exact("db1")]));
    balancer::listener(&mut config).proxy_protocol = crate::proxy_protocol::trusted("127.0.0.1/32");
    let pool = Arc::make_mut(&mut config.pools[1]);
    pool.send_proxy_protocol = Some(ProxyVersion::V2);
    pool.send_proxy_tlvs = ProxyTlvs { authority: true, ..ProxyTlvs::default() };
    let routed = Routed { balancer: Balancer::start(config), backends };
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let ends = Ends { client: end("[2001:db8::7]:7"), local: end("[2001:db8::1]:5432") };
    let bytes = hello(Some("db1"), &[], 16_384);
    let sent = [v1::write(Some(ends)), bytes.clone()].concat();
    let told =
        v2::write(Some(ends), v2::Extras { authority: Some("db1"), ..v2::Extras::default() });
    assert_eq!(routed.send(&sent, 300), (1, [told, bytes].concat()));
}

/// Everyone here comes from one address; who asks for the same server gets to the same backend.
#[test]
fn a_pool_may_hash_the_server_name() {
    use maitred::config::{Balance, HashKey};
    let (own, own_address) = loopback();
    let (other, other_address) = loopback();
    let mut config = balancer::config(&[own_address, other_address]);
    let pool = balancer::pool(&mut config);
    pool.balance = Balance::ConsistentHash;
    pool.hash.key = HashKey::ServerName;
    let routed = Routed { balancer: Balancer::start(config), backends: [own, other] };
    let reached = |name: Option<&str>| {
        let bytes = hello(name, &[], 16_384);
        let (index, got) = routed.send(&bytes, 700);
        assert_eq!(got, bytes);
        index
    };
    let names: Vec<String> = (0..16).map(|number| format!("db{number}.example.com")).collect();
    let first: Vec<usize> = names.iter().map(|name| reached(Some(name))).collect();
    let again: Vec<usize> = names.iter().map(|name| reached(Some(&name.to_uppercase()))).collect();
    assert_eq!(first, again);
    assert!(first.contains(&0) && first.contains(&1), "{first:?}");
    let nameless = reached(None);
    assert_eq!(nameless, reached(None));
    let plain = routed.send(b"no TLS", 6);
    assert_eq!(plain, (nameless, b"no TLS".to_vec()), "both are steered by their address");
}

/// At the largest `preread_size` with the buffers the kernel chooses, and at any with the least that may be configured.
#[test]
fn a_hello_as_long_as_may_be_fits_into_the_clients_buffer_however_it_is_cut() {
    for (most, buffer) in [(16_384, Some(16_384)), (65_536, Some(65_536)), (65_536, None)] {
        let (mut config, backends) = routed(named(&[exact("a")]));
        let listener = balancer::listener(&mut config);
        listener.preread_size = most;
        listener.socket_buffers =
            buffer.map(|client| maitred::config::SocketBuffers { client, backend: client });
        let routed = Routed { balancer: Balancer::start(config), backends };
        let long = hello(Some("a"), &vec!["h2"; (most - 1_600) / 3], 16_384);
        assert!((most - 256..most).contains(&long.len()), "{}", long.len());
        for each in [16_384, most / 1_000] {
            assert_eq!(routed.send(&long, each), (1, long.clone()), "{each} {buffer:?}");
        }
    }
}
