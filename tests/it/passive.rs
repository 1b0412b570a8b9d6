//! Passive ejection: what sessions see decides, within the pool's cap.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use maitred::border::record::CloseReason;
use maitred::config::{self, Balance, Config, Passive, Probe};
use maitred::data::pool::backend::BackendState;
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Refusal, Server, first_byte, served_by};

const A: Conduct = Conduct::Say(&["a"]);

const PASSIVE: Passive = Passive {
    failures: 3,
    window: Duration::from_secs(60),
    eject_for: Duration::from_secs(600),
    max_ejected: 50,
};

/// No probes; the first backend is tried first.
fn config(backends: &[SocketAddr], passive: Passive) -> Config {
    let mut config = balancer::config(backends);
    let pool = balancer::pool(&mut config);
    pool.balance = Balance::FirstAvailable;
    pool.passive = Some(passive);
    config
}

fn states(balancer: &Balancer) -> Vec<BackendState> {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let backends = &snapshot.pools["main"].backends;
    backends.iter().map(|backend| backend.status().state).collect()
}

fn messages(balancer: &Balancer) -> Vec<String> {
    balancer.supervisor().events.all().into_iter().map(|event| event.message).collect()
}

#[test]
fn refused_connects_eject_and_the_ejection_ends_by_itself() {
    let (dead, a) = (Refusal::new(), Server::start(A));
    let short = Passive { eject_for: Duration::from_millis(700), ..PASSIVE };
    let balancer = Balancer::start(config(&[dead.address, a.address], short));
    for _ in 0..3 {
        assert_eq!(states(&balancer)[0], BackendState::Up);
        assert_eq!(served_by(balancer.address()), Some('a'));
    }
    assert_eq!(states(&balancer)[0], BackendState::Ejected);
    assert_eq!(served_by(balancer.address()), Some('a'));
    let tried: Vec<u32> = balancer.endings(4).iter().map(|record| record.tried).collect();
    assert_eq!(tried, [1, 1, 1, 0]);
    wait_for("the end of the ejection", || states(&balancer)[0] == BackendState::Up);
    let name = dead.address;
    // The news follows the state.
    wait_for("the news of it", || messages(&balancer).len() > 1);
    assert_eq!(
        messages(&balancer),
        [
            format!("main/{name} ejected for 700ms: 3 failures in a row"),
            format!("main/{name} up: the ejection is over"),
        ]
    );
    assert_eq!(served_by(balancer.address()), Some('a'));
    assert_eq!(balancer.endings(5)[4].tried, 1, "it is used again");
}

#[test]
fn a_lone_backend_is_never_ejected() {
    let dead = Refusal::new();
    let all = Passive { max_ejected: 100, failures: 1, ..PASSIVE };
    let balancer = Balancer::start(config(&[dead.address], all));
    for _ in 0..5 {
        assert_eq!(served_by(balancer.address()), None);
    }
    assert_eq!(states(&balancer), [BackendState::Up]);
    let endings = balancer.endings(5);
    assert!(endings.iter().all(|record| record.reason == CloseReason::ConnectRefused));
}

#[test]
fn the_cap_is_exact_under_concurrency() {
    let dead: Vec<Refusal> = (0..5).map(|_| Refusal::new()).collect();
    let a = Server::start(A);
    let mut addresses: Vec<SocketAddr> = dead.iter().map(|it| it.address).collect();
    addresses.push(a.address);
    // A half of six is three; of five dead ones, two stay.
    let mut config = config(&addresses, Passive { failures: 1, ..PASSIVE });
    balancer::pool(&mut config).balance = Balance::RoundRobin;
    balancer::pool(&mut config).connect.attempts = 6;
    let balancer = Balancer::start(config);
    let address = balancer.address();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(served_by(address), Some('a'))));
        }
    });
    let ejected = states(&balancer).iter().filter(|it| **it == BackendState::Ejected).count();
    assert_eq!(ejected, 3);
}

#[test]
fn a_passed_probe_ends_the_ejection() {
    let (dead, a, well) = (Refusal::new(), Server::start(A), Server::start(A));
    let mut config = config(&[dead.address, a.address], PASSIVE);
    balancer::pool(&mut config).health = config::Health {
        probe: Probe::Tcp,
        port: Some(well.address.port()),
        interval: Duration::from_millis(100),
        ..config::Pool::default().health
    };
    let balancer = Balancer::start(config);
    wait_for("the first verdict", || states(&balancer)[0] == BackendState::Up);
    for _ in 0..3 {
        assert_eq!(served_by(balancer.address()), Some('a'));
    }
    wait_for("the end of the ejection", || {
        messages(&balancer).iter().any(|message| message.ends_with("up: a probe passed"))
    });
    assert!(messages(&balancer).iter().any(|message| message.contains("ejected for 600s")));
}

#[test]
fn our_own_lack_never_counts() {
    let a = Server::start(A);
    let mut config = config(&[a.address, a.address], Passive { failures: 1, ..PASSIVE });
    let pool = balancer::pool(&mut config);
    pool.backends[1].name = "again".into();
    // An address this host does not have.
    pool.source = vec![std::net::IpAddr::from([192, 0, 2, 1]).into()];
    let balancer = Balancer::start(config);
    for _ in 0..5 {
        assert_eq!(served_by(balancer.address()), None);
    }
    assert_eq!(states(&balancer), [BackendState::Up, BackendState::Up]);
    let endings = balancer.endings(5);
    assert!(endings.iter().all(|record| record.reason == CloseReason::NoSourcePort));
}

#[test]
fn a_success_starts_anew() {
    let dead = Refusal::new();
    let b = Server::start(Conduct::Say(&["b"]));
    let balancer = Balancer::start(config(&[dead.address, b.address], PASSIVE));
    let address = dead.address;
    let mut state = dead;
    for _ in 0..3 {
        for _ in 0..2 {
            assert_eq!(served_by(balancer.address()), Some('b'));
        }
        let alive = state.revive(A);
        assert_eq!(served_by(balancer.address()), Some('a'));
        state = alive.kill();
        assert_eq!(state.address, address);
    }
    assert_eq!(states(&balancer)[0], BackendState::Up);
    let shared = &balancer.supervisor().plane.snapshot.load().pools["main"].shared;
    assert_eq!(shared.ejected.load(Relaxed), 0);
}

#[test]
fn a_client_that_leaves_while_connecting_never_counts() {
    // Backends that never answer: their queue is full.
    let full: Vec<Full> = (0..2).map(|_| Full::new()).collect();
    let addresses: Vec<SocketAddr> = full.iter().map(|it| it.address).collect();
    let balancer = Balancer::start(config(&addresses, Passive { failures: 1, ..PASSIVE }));
    for _ in 0..3 {
        let client = TcpStream::connect(balancer.address()).unwrap();
        wait_for("the session", || balancer.supervisor().plane.open_sessions() == 1);
        reset_on_close(&client);
        drop(client);
        wait_for("its end", || balancer.supervisor().plane.open_sessions() == 0);
    }
    let endings = balancer.endings(3);
    assert!(endings.iter().all(|record| record.reason == CloseReason::ClientReset));
    assert_eq!(states(&balancer), [BackendState::Up, BackendState::Up]);
}

/// A listener whose queue is full, so that further handshakes are not answered.
struct Full {
    address: SocketAddr,
    _kept: (socket2::Socket, Vec<socket2::Socket>),
}

impl Full {
    fn new() -> Full {
        let make =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = make();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let fill = || {
            let socket = make();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address);
            socket
        };
        let filling = (0..4).map(|_| fill()).collect();
        Full { address: address.as_socket().unwrap(), _kept: (listener, filling) }
    }
}

#[test]
fn passive_none_ejects_nobody() {
    let (dead, a) = (Refusal::new(), Server::start(A));
    let mut config = config(&[dead.address, a.address], PASSIVE);
    balancer::pool(&mut config).passive = None;
    let balancer = Balancer::start(config);
    for _ in 0..8 {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        assert_eq!(first_byte(&mut client), Some('a'));
    }
    assert_eq!(states(&balancer)[0], BackendState::Up);
}
