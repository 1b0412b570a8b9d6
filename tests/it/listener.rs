//! Listeners: limits exact, sessions spread over workers, addresses of every form.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering::Relaxed;

use maitred::border::addr::{BackendAddr, ListenAddr, LocalAddr};
use maitred::border::record::{CloseReason, Stage};
use maitred::border::session_log::SessionLog;
use maitred::config::OnRefuse;
use maitred::control::supervisor::Supervisor;

use crate::balancer::{self, Balancer, loopback, wait_for};

#[test]
fn a_listeners_limit_is_exact_and_refuses_with_a_record() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).limits.sessions = Some(2);
    balancer::listener(&mut config).on_refuse = OnRefuse::Reset;
    let balancer = Balancer::start(config);
    let open = || TcpStream::connect(balancer.address()).unwrap();
    let kept = [open(), open()];
    let _servers = [backend.accept().unwrap(), backend.accept().unwrap()];
    assert_eq!(open().read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(kept);
    drop(_servers);
    let refused: Vec<_> =
        balancer.endings(3).into_iter().filter(|record| record.stage == Stage::Admit).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason, CloseReason::OverLimit);
}

#[test]
fn at_the_process_limit_accepting_pauses_until_a_session_ends() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    config.process.max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let first = TcpStream::connect(balancer.address()).unwrap();
    let (server, _) = backend.accept().unwrap();
    let mut second = TcpStream::connect(balancer.address()).unwrap();
    second.write_all(b"x").unwrap();
    // Long enough for a wrong accept to show.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(balancer.supervisor().plane.open_sessions(), 1, "the second waits in the queue");
    drop((first, server));
    let (mut server, _) = backend.accept().unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn few_long_sessions_are_spread_over_the_workers() {
    let (backend, address) = loopback();
    for _ in 0..8 {
        let balancer = Balancer::start(balancer::config(&[address]));
        let mut kept = Vec::new();
        for _ in 0..8 {
            kept.push(TcpStream::connect(balancer.address()).unwrap());
            kept.push(backend.accept().unwrap().0);
        }
        let loads: Vec<usize> = balancer
            .supervisor()
            .plane
            .workers
            .iter()
            .map(|worker| worker.sessions.load(Relaxed))
            .collect();
        assert!(loads.iter().all(|load| *load <= 5), "{loads:?}");
    }
}

#[test]
fn a_dual_stack_listener_sees_ipv4_clients_as_ipv4() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).bind = vec![ListenAddr::DualStack(0)];
    let balancer = Balancer::start(config);
    let port = balancer.address().port();
    drop(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap());
    let _ = backend.accept().unwrap();
    assert!(balancer.endings(1)[0].client.to_string().starts_with("127.0.0.1:"));
}

#[test]
fn unix_sockets_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let (front, back) = (directory.path().join("front"), directory.path().join("back"));
    let backend = UnixListener::bind(&back).unwrap();
    let mut config = balancer::config(&[]);
    balancer::listener(&mut config).bind = vec![ListenAddr::Unix(front.clone())];
    balancer::pool(&mut config).backends = vec![maitred::config::Backend {
        name: "unix".into(),
        address: BackendAddr::Unix(back),
        ..Default::default()
    }];
    let balancer = Balancer::start(config);
    let mut client = UnixStream::connect(&front).unwrap();
    let (mut server, _) = backend.accept().unwrap();
    client.write_all(&[5; 200_000]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    server.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 200_000);
    drop((client, server));
    balancer.endings(1);
    drop(balancer);
    assert!(!front.exists(), "the socket file goes with its listener");
}

#[test]
fn a_portless_backend_gets_the_port_the_client_dialled() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[]);
    let dialled = SocketAddr::from(([127, 0, 0, 2], address.port()));
    balancer::listener(&mut config).bind = vec![ListenAddr::Inet(dialled)];
    balancer::pool(&mut config).backends = vec![maitred::config::Backend {
        name: "portless".into(),
        address: BackendAddr::InetClientPort(std::net::IpAddr::from([127, 0, 0, 1]).into()),
        ..Default::default()
    }];
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(dialled).unwrap();
    let (server, _) = backend.accept().unwrap();
    drop((client, server));
    balancer.endings(1);
}

#[test]
fn an_address_in_use_is_an_error_that_names_listener_and_address() {
    let (_backend, address) = loopback();
    let balancer = Balancer::start(balancer::config(&[address]));
    let mut second = balancer::config(&[address]);
    balancer::listener(&mut second).bind = vec![ListenAddr::Inet(balancer.address())];
    let log = SessionLog::start(second.log.sessions, |_| {}).unwrap();
    let error = Supervisor::start(second, log).err().expect("the address is taken").to_string();
    let expected = format!("listener main: cannot bind {}: ", balancer.address());
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("hint: another program"), "{error}");
}

#[test]
fn a_range_of_ports_serves_each_of_them() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    let any = ListenAddr::Inet("127.0.0.1:0".parse().unwrap());
    balancer::listener(&mut config).bind = vec![any, ListenAddr::Inet("[::1]:0".parse().unwrap())];
    let balancer = Balancer::start(config);
    let addresses: Vec<SocketAddr> = balancer
        .supervisor()
        .served()
        .filter_map(|(_, served)| match served.local {
            LocalAddr::Inet(address) => Some(address),
            LocalAddr::Unix => None,
        })
        .collect();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        drop(TcpStream::connect(address).unwrap());
        drop(backend.accept().unwrap());
    }
    wait_for("both to end", || balancer.records.lock().unwrap().len() == 2);
}

/// The refused client's first bytes are already there: closing with them unread would reset.
#[test]
fn a_client_over_the_limit_sees_an_end_though_it_sent_bytes() {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).limits.sessions = Some(0);
    let balancer = Balancer::start(config);
    for _ in 0..50 {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(&[1; 100]).unwrap();
        match client.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0),
            // Bytes that arrive after the close are answered by a reset whatever we do.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    drop(backend);
    balancer.endings(50);
}
