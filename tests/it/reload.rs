//! Reloads inside the process: what did not change is the same object, what goes is finished first, and what
//! cannot be applied changes nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use maitred::border::addr::{ListenAddr, LocalAddr};
use maitred::config::{self, Config};
use maitred::telemetry::metrics::{Sources, exposition};

use crate::balancer::{self, Balancer, loopback, wait_for};
use crate::server::{Conduct, Server, first_byte};

/// `config` with a second listener and pool, both called `extra`.
fn with_extra(config: &Config, backend: SocketAddr) -> Config {
    let mut config = config.clone();
    let mut listener = (*config.listeners[0]).clone();
    listener.name = "extra".into();
    listener.pool = Some("extra".into());
    listener.bind = vec![ListenAddr::Inet("127.0.0.2:0".parse().unwrap())];
    let mut pool = (*config.pools[0]).clone();
    pool.name = "extra".into();
    pool.backends = vec![balancer::backend(backend)];
    config.listeners.push(Arc::new(listener));
    config.pools.push(Arc::new(pool));
    config
}

fn reload(balancer: &mut Balancer, config: Config) -> Result<Vec<String>, String> {
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now())
}

fn address_of(balancer: &Balancer, name: &str) -> Option<SocketAddr> {
    let mut served = balancer.supervisor().served();
    let (_, served) = served.find(|(_, served)| &*served.listener == name)?;
    match served.local {
        LocalAddr::Inet(address) => Some(address),
        LocalAddr::Unix => None,
    }
}

pub fn scrape(balancer: &Balancer) -> String {
    let supervisor = balancer.supervisor();
    exposition(&Sources {
        plane: Arc::clone(&supervisor.plane),
        reloads: Arc::clone(&supervisor.reloads),
        log_dropped: Arc::default(),
    })
}

fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let (backend, address) = loopback();
    let config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    let before = balancer.supervisor().plane.snapshot.load_full();
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    let changes = reload(&mut balancer, with_extra(&config, address)).unwrap();
    assert_eq!(changes, ["listener extra added", "pool extra added"]);
    let after = balancer.supervisor().plane.snapshot.load_full();
    assert!(Arc::ptr_eq(&before.pools["main"], &after.pools["main"]));
    assert!(Arc::ptr_eq(&before.listeners["main"], &after.listeners["main"]));
    exchange(&mut client, &mut server);
}

#[test]
fn a_changed_pool_keeps_the_counts_of_its_backends() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    let _client = TcpStream::connect(balancer.address()).unwrap();
    let _server = backend.accept().unwrap();
    balancer::pool(&mut config).backends[0].weight = 7;
    balancer::pool(&mut config).backends[0].max_sessions = Some(1);
    reload(&mut balancer, config).unwrap();
    let snapshot = balancer.supervisor().plane.snapshot.load_full();
    let live = &snapshot.pools["main"].backends[0].live;
    assert_eq!(live.slot.hot().in_flight(), 1);
    // The limit counts the session that was there before it.
    let mut refused = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_removed_listener_and_pool_are_finished_and_their_series_go_last() {
    let (backend, address) = loopback();
    let config = balancer::config(&[address]);
    let mut balancer = Balancer::start(with_extra(&config, address));
    let extra = address_of(&balancer, "extra").unwrap();
    let mut client = TcpStream::connect(extra).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    reload(&mut balancer, config).unwrap();
    wait_for("the address to be closed", || TcpStream::connect(extra).is_err());
    exchange(&mut client, &mut server);
    let active = r#"maitred_listener_sessions_active{listener="extra",protocol="tcp"} 1"#;
    assert!(scrape(&balancer).contains(active), "the session is still counted");
    assert!(scrape(&balancer).contains(r#"maitred_backend_sessions_active{pool="extra""#));
    drop((client, server));
    wait_for("the series to go", || !scrape(&balancer).contains("extra"));
}

#[test]
fn a_pool_that_returns_before_its_last_session_ended_has_one_set_of_series() {
    let (backend, address) = loopback();
    let config = balancer::config(&[address]);
    let both = with_extra(&config, address);
    let mut balancer = Balancer::start(both.clone());
    let client = TcpStream::connect(address_of(&balancer, "extra").unwrap()).unwrap();
    let server = backend.accept().unwrap();
    reload(&mut balancer, config).unwrap();
    reload(&mut balancer, both).unwrap();
    let text = scrape(&balancer);
    let active = r#"maitred_listener_sessions_active{listener="extra",protocol="tcp"}"#;
    assert_eq!(text.matches(active).count(), 1, "no series twice");
    assert!(text.contains(&format!("{active} 1")), "and the session still counts");
    drop((client, server));
}

#[test]
fn an_address_that_cannot_be_had_changes_nothing() {
    let (backend, address) = loopback();
    let config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    let (taken, taken_address) = loopback();
    let mut wanted = with_extra(&config, address);
    Arc::make_mut(&mut wanted.listeners[1]).bind = vec![ListenAddr::Inet(taken_address)];
    balancer::pool(&mut wanted).backends.clear();
    let error = reload(&mut balancer, wanted).unwrap_err();
    assert!(error.starts_with("listener extra: cannot bind"), "{error}");
    let _client = TcpStream::connect(balancer.address()).unwrap();
    let _server = backend.accept().unwrap();
    let reloads = &balancer.supervisor().reloads;
    assert_eq!((reloads.refused.value(), reloads.applied.value()), (1, 0));
    assert!(!reloads.last_succeeded.load(Relaxed));
    drop(taken);
}

#[test]
fn the_number_of_workers_needs_a_restart() {
    let (_backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    config.process.workers = Some(1);
    let error = reload(&mut balancer, config).unwrap_err();
    assert_eq!(error, "process.workers cannot change while running; restart to change it");
}

#[test]
fn the_same_configuration_again_is_no_change() {
    let (_backend, address) = loopback();
    let config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    assert_eq!(reload(&mut balancer, config), Ok(vec![]));
    assert_eq!(balancer.supervisor().reloads.unchanged.value(), 1);
}

/// An address may go from one listener to another without being closed in between.
#[test]
fn an_address_changes_hands_without_closing() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    let bound = balancer.address();
    Arc::make_mut(&mut config.listeners[0]).name = "renamed".into();
    Arc::make_mut(&mut config.listeners[0]).timeouts = config::ListenerTimeouts {
        idle: Some(std::time::Duration::from_millis(200)),
        ..config.listeners[0].timeouts
    };
    reload(&mut balancer, config).unwrap();
    assert_eq!(address_of(&balancer, "renamed"), Some(bound));
    let _client = TcpStream::connect(bound).unwrap();
    let _server = backend.accept().unwrap();
    let record = &balancer.endings(1)[0];
    assert_eq!(&*record.listener, "renamed");
}

/// What a reload binds may overlap what is bound still: every address of a port, one of them, and back.
#[test]
fn the_address_before_a_port_changes_without_losing_anybody() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    let mut balancer = Balancer::start(config.clone());
    let port = balancer.address().port();
    let dial = || TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let mut open = dial();
    let mut server = backend.accept().unwrap().0;
    let at = |ip: [u8; 4]| ListenAddr::Inet(SocketAddr::from((ip, port)));
    let six = ListenAddr::Inet(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)));
    for bind in [
        vec![at([0; 4])],
        vec![at([127, 0, 0, 1])],
        vec![ListenAddr::DualStack(port)],
        vec![at([127, 0, 0, 1]), at([127, 0, 0, 2])],
        vec![ListenAddr::DualStack(port)],
        vec![at([0; 4]), six],
        vec![at([127, 0, 0, 1])],
    ] {
        balancer::listener(&mut config).bind = bind.clone();
        reload(&mut balancer, config.clone()).unwrap();
        assert_eq!(balancer.supervisor().served().count(), bind.len());
        let mut client = dial();
        exchange(&mut client, &mut backend.accept().unwrap().0);
        exchange(&mut open, &mut server);
    }
}

#[test]
fn the_address_before_a_port_changes_for_datagrams_too() {
    let backend = crate::udp::socket("127.0.0.1:0");
    let mut config = crate::udp::config(&[&backend]);
    let mut balancer = Balancer::start(config.clone());
    let client = crate::udp::client(&balancer);
    let port = balancer.address().port();
    for socket in [&client, &backend] {
        socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    }
    let at = |ip: [u8; 4]| ListenAddr::Inet(SocketAddr::from((ip, port)));
    for bind in [at([0; 4]), at([127, 0, 0, 1]), ListenAddr::DualStack(port), at([127, 0, 0, 1])] {
        balancer::listener(&mut config).bind = vec![bind];
        reload(&mut balancer, config.clone()).unwrap();
        // What is under way while its socket is closed is lost.
        let mut buffer = [0; 9];
        wait_for("an answer by the socket of now", || {
            client.send(b"?").unwrap();
            backend.recv_from(&mut buffer).is_ok_and(|(_, flow)| {
                backend.send_to(b"!", flow).unwrap();
                client.recv(&mut buffer).is_ok()
            })
        });
    }
}

/// Lists of networks may be long and change every second; who is let in keeps none of them.
#[test]
fn an_open_session_keeps_no_list_of_networks() {
    let server = Server::start(Conduct::Echo);
    let mut config = balancer::config(&[server.address]);
    let net = |at: u32| std::net::IpAddr::from(std::net::Ipv4Addr::from(at << 8)).into();
    let nets = |count: u32| (0..count).map(net).collect();
    balancer::listener(&mut config).deny = nets(1);
    let mut balancer = Balancer::start(config.clone());
    let mut clients = Vec::new();
    let mut before = Vec::new();
    for round in 2..12 {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(b"x").unwrap();
        assert_eq!(first_byte(&mut client), Some('x'));
        clients.push(client);
        let snapshot = balancer.supervisor().plane.snapshot.load_full();
        before.push(Arc::downgrade(&snapshot.listeners["main"]));
        drop(snapshot);
        balancer::listener(&mut config).deny = nets(round);
        balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
    }
    // An acceptor keeps the one it saw last until the next client comes; both workers see one.
    wait_for("the lists of before to be given back", || {
        clients.push(TcpStream::connect(balancer.address()).unwrap());
        before.iter().all(|listener| listener.upgrade().is_none())
    });
}
