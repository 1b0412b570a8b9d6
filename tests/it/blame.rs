//! What a client chose is never held against a backend: neither counted as its failure nor a reason to eject it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use maitred::border::addr::{BackendAddr, ListenAddr};
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{
    self, Config, Listener, NamePattern, Passive, Protocol, ProxyVersion, Route,
};
use maitred::data::pool::backend::BackendState;
use maitred::data::wire::postgres;

use crate::balancer::{self, Balancer, wait_for};
use crate::hello::hello;
use crate::server::{Conduct, Server, served_by};
use crate::tls::{Files, NAME};

/// Two failures in a row are enough.
const STRICT: Passive = Passive {
    failures: 2,
    window: Duration::from_secs(60),
    eject_for: Duration::from_secs(600),
    max_ejected: 100,
};

fn strict(backends: &[SocketAddr]) -> Config {
    let mut config = balancer::config(backends);
    balancer::pool(&mut config).passive = Some(STRICT);
    config
}

fn ejected(balancer: &Balancer) -> usize {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let backends = &snapshot.pools["main"].backends;
    backends.iter().filter(|it| it.status().state == BackendState::Ejected).count()
}

/// To servers that know nothing of PostgreSQL, or of its TLS: they hang up, or answer something.
#[test]
fn an_ssl_request_that_the_backends_do_not_know() {
    for conduct in
        [Conduct::Answer("N"), Conduct::Answer("HTTP/1.1 400 Bad Request"), Conduct::Answer("")]
    {
        let servers = [Server::start(conduct), Server::start(conduct)];
        let mut config = strict(&servers.each_ref().map(|it| it.address));
        let pattern = NamePattern::Exact("db1".into());
        let route =
            Route { server_name: vec![pattern], pool: Some("main".into()), ..Route::default() };
        balancer::listener(&mut config).routes = vec![route];
        let balancer = Balancer::start(config);
        for _ in 0..6 {
            let mut client = TcpStream::connect(balancer.address()).unwrap();
            client.write_all(&postgres::TLS_REQUEST).unwrap();
            client.read_exact(&mut [0]).unwrap();
            client.write_all(&hello(Some("db1"), &[], 16_384)).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        for record in balancer.endings(6) {
            assert_eq!((record.stage, record.reason), (Stage::Connect, CloseReason::TlsFailed));
        }
        assert_eq!(ejected(&balancer), 0, "{conduct:?}");
    }
}

/// A backend that does not want this client, of whom it hears in the PROXY header, hangs up on it.
#[test]
fn a_client_that_the_backend_does_not_want() {
    let files = Files::new();
    let servers = [Server::start(Conduct::Answer("")), Server::start(Conduct::Answer(""))];
    let mut config = strict(&servers.each_ref().map(|it| it.address));
    let pool = balancer::pool(&mut config);
    pool.tls = files.client(Some(NAME));
    pool.send_proxy_protocol = Some(ProxyVersion::V2);
    let balancer = Balancer::start(config);
    for _ in 0..6 {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(balancer.endings(6)[0].reason, CloseReason::TlsFailed);
    assert_eq!(ejected(&balancer), 0);
}

/// Two addresses of loopback with the same two ports free, and a server on the first port of the second address.
fn ports() -> (SocketAddr, SocketAddr, Server) {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let second = SocketAddr::new(first.ip(), first.port().wrapping_add(1));
        let there = SocketAddr::from(([127, 0, 0, 2], first.port()));
        let nobody = SocketAddr::from(([127, 0, 0, 2], second.port()));
        let free = [second, nobody].iter().all(|it| TcpListener::bind(it).is_ok());
        if free && TcpListener::bind(there).is_ok() {
            return (first, second, Server::at(there, Conduct::Say(&["a"])));
        }
    }
}

#[test]
fn a_port_on_which_backends_without_their_own_do_not_serve() {
    let (first, second, _server) = ports();
    let mut config = strict(&[]);
    let backend = |ip: [u8; 4]| config::Backend {
        name: format!("{ip:?}").into(),
        address: BackendAddr::InetClientPort(std::net::IpAddr::from(ip).into()),
        ..config::Backend::default()
    };
    balancer::pool(&mut config).backends = vec![backend([127, 0, 0, 2])];
    balancer::pool(&mut config).connect.attempts = 1;
    balancer::listener(&mut config).bind = vec![ListenAddr::Inet(first), ListenAddr::Inet(second)];
    let mut balancer = Balancer::start(config.clone());
    for _ in 0..6 {
        assert_eq!(served_by(second), None);
    }
    assert_eq!(ejected(&balancer), 0, "a lone one never is; see below");
    assert_eq!(served_by(first), Some('a'));
    // With company, so that one may be ejected.
    let silent = backend([127, 0, 0, 3]);
    balancer::pool(&mut config).backends.push(silent);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
    for _ in 0..6 {
        assert_eq!(served_by(second), None);
    }
    assert_eq!(ejected(&balancer), 0);
    assert_eq!(served_by(first), Some('a'));
    // With one port, nobody has a choice: then it says what it says of any other backend.
    balancer::listener(&mut config).bind = vec![ListenAddr::Inet(second)];
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    for _ in 0..6 {
        assert_eq!(served_by(second), None);
    }
    wait_for("them to be ejected", || ejected(&balancer) > 0);
}

#[test]
fn the_same_in_udp() {
    let (first, second, _server) = ports();
    let mut config = strict(&[]);
    let pool = balancer::pool(&mut config);
    pool.backends = [2, 3]
        .map(|last| config::Backend {
            name: format!("{last}").into(),
            address: BackendAddr::InetClientPort(std::net::IpAddr::from([127, 0, 0, last]).into()),
            ..config::Backend::default()
        })
        .to_vec();
    config.listeners[0] = Arc::new(Listener {
        protocol: Protocol::Udp,
        bind: vec![ListenAddr::Inet(first), ListenAddr::Inet(second)],
        ..Listener::clone(&config.listeners[0])
    });
    let balancer = Balancer::start(config);
    let refused = || {
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let of = |it: &Arc<maitred::data::pool::backend::Backend>| {
            it.live.connect_failures.refused.value()
        };
        snapshot.pools["main"].backends.iter().map(of).sum::<u64>()
    };
    for round in 0..6 {
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", second).unwrap();
        wait_for("the backend's kernel to refuse it", || refused() > round);
    }
    assert_eq!(ejected(&balancer), 0);
}
