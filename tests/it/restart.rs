//! A backend that is gone for a moment: who is told to hold holds, whatever the probes have noticed, and who is not tries
//! again as often as `connect.attempts` says.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use maitred::border::addr::BackendAddr;
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Hold, OnDown, Passive, Probe, WhenNoneUp};
use maitred::data::pool::backend::BackendState;

use crate::balancer::{self, Balancer, loopback, wait_for};
use crate::server::{Conduct, Refusal, Server, first_byte, served_by};
use crate::tls::{DIAL, Files};

const HOLD: WhenNoneUp = WhenNoneUp::Hold(Hold { time: Duration::from_secs(60), max: 1000 });

fn held(balancer: &Balancer) -> u32 {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    snapshot.pools["main"].shared.queue.held()
}

fn refused(balancer: &Balancer) -> u64 {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let backends = &snapshot.pools["main"].backends;
    backends.iter().map(|it| it.live.connect_failures.refused.value()).sum()
}

/// The first backend's, and how often it was down.
fn state(balancer: &Balancer) -> (BackendState, u64) {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let status = snapshot.pools["main"].backends[0].status();
    (status.state, status.transitions(BackendState::Down))
}

/// No probe looks: only trying tells that the backend is back.
#[test]
fn all_who_came_meanwhile_are_served() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).when_none_up = HOLD;
    let balancer = Balancer::start(config);
    let mut clients: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("fifty held", || held(&balancer) == 50);
    let before = refused(&balancer);
    // Four tries a second by one of them all, not four by each.
    std::thread::sleep(Duration::from_secs(1));
    let tries = refused(&balancer) - before;
    assert!((1..=10).contains(&tries), "{tries} tries in a second");
    let _server = refusal.revive(Conduct::Say(&["a"]));
    for client in &mut clients {
        assert_eq!(first_byte(client), Some('a'));
    }
    assert_eq!(held(&balancer), 0);
}

#[test]
fn a_held_client_that_left_is_not_kept() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).when_none_up = HOLD;
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(balancer.address()).unwrap();
    wait_for("it to be held", || held(&balancer) == 1);
    drop(client);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.stage, record.reason), (Stage::Route, CloseReason::ClientClosed));
    assert!(record.tried > 0);
}

/// In TLS that ends here the goodbye is bytes, too, and what was said before may have come along with the handshake.
#[test]
fn the_same_in_tls_where_its_goodbye_is_bytes() {
    let files = Files::new();
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).when_none_up = HOLD;
    balancer::listener(&mut config).tls = files.server(false, &[]);
    let balancer = Balancer::start(config);
    let open = || {
        let mut client = files.dial(balancer.address(), DIAL);
        client.conn.complete_io(&mut client.sock).unwrap();
        client
    };
    let mut asking = open();
    asking.write_all(b"question").unwrap();
    let mut leaving = open();
    wait_for("both to be held", || held(&balancer) == 2);
    for client in [&mut asking, &mut leaving] {
        client.conn.send_close_notify();
        client.conn.complete_io(&mut client.sock).unwrap();
        client.sock.shutdown(Shutdown::Write).unwrap();
    }
    wait_for("one to be let go", || held(&balancer) == 1);
    let _server = refusal.revive(Conduct::Echo);
    let mut answer = Vec::new();
    asking.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"question");
    drop((asking, leaving));
    let reasons: Vec<_> = balancer.endings(2).iter().map(|it| (it.stage, it.reason)).collect();
    assert!(reasons.contains(&(Stage::Route, CloseReason::ClientClosed)), "{reasons:?}");
}

/// Who finds no place among the held ends as without them, and is counted.
#[test]
fn at_the_limit_of_the_held_it_ends_with_what_it_met() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    let hold = Hold { time: Duration::from_secs(60), max: 1 };
    balancer::pool(&mut config).when_none_up = WhenNoneUp::Hold(hold);
    let balancer = Balancer::start(config);
    let first = TcpStream::connect(balancer.address()).unwrap();
    wait_for("it to be held", || held(&balancer) == 1);
    assert_eq!(served_by(balancer.address()), None);
    drop(first);
    let endings: Vec<_> = balancer.endings(2).iter().map(|it| (it.stage, it.reason)).collect();
    // That what was accepted was counted as closed is looked at by every test's end.
    assert_eq!(endings[1], (Stage::Connect, CloseReason::ConnectRefused));
}

/// More than a session can pass over: all of them together are still tried by one at a time.
#[test]
fn twenty_that_refuse_are_not_hammered() {
    let refusals: Vec<Refusal> = (0..20).map(|_| Refusal::new()).collect();
    let addresses: Vec<_> = refusals.iter().map(|it| it.address).collect();
    let mut config = balancer::config(&addresses);
    balancer::pool(&mut config).when_none_up = HOLD;
    let balancer = Balancer::start(config);
    let clients: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("all held", || held(&balancer) == 100);
    // Those that rest for the first time are known by then.
    std::thread::sleep(Duration::from_millis(500));
    let before = refused(&balancer);
    // How many in a second is the question.
    std::thread::sleep(Duration::from_secs(1));
    let tries = refused(&balancer) - before;
    assert!((1..=200).contains(&tries), "{tries} tries in a second, by 100 clients of 20 backends");
    drop(clients);
    balancer.endings(100);
}

/// The one that is left is full; the one that refused may be back in a moment.
#[test]
fn who_refused_is_tried_again_also_where_the_other_is_full() {
    for hold in [false, true] {
        let refusal = Refusal::new();
        let full = Server::start(Conduct::Echo);
        let mut config = balancer::config(&[refusal.address, full.address]);
        let pool = balancer::pool(&mut config);
        pool.balance = config::Balance::FirstAvailable;
        pool.backends[1].max_sessions = Some(1);
        pool.connect.attempts = if hold { 1 } else { 16 };
        if hold {
            pool.when_none_up = HOLD;
        }
        let balancer = Balancer::start(config);
        let mut first = TcpStream::connect(balancer.address()).unwrap();
        first.write_all(b"x").unwrap();
        assert_eq!(first_byte(&mut first), Some('x'));
        let mut second = TcpStream::connect(balancer.address()).unwrap();
        wait_for("a refusal of the second", || refused(&balancer) >= 2);
        let _back = refusal.revive(Conduct::Say(&["b"]));
        assert_eq!(first_byte(&mut second), Some('b'), "hold: {hold}");
    }
}

/// What it said before is what it wants answered.
#[test]
fn a_held_client_that_asked_and_ended_its_side_is_kept() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).when_none_up = HOLD;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for("it to be held", || held(&balancer) == 1);
    // Longer than the time between two looks.
    std::thread::sleep(Duration::from_millis(400));
    let _server = refusal.revive(Conduct::Echo);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"question");
}

#[test]
fn without_hold_the_same_backend_is_tried_again_after_a_pause() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).connect.attempts = 16;
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(balancer.address());
    wait_for("two tries", || refused(&balancer) == 2);
    let _server = refusal.revive(Conduct::Say(&["a"]));
    assert_eq!(first_byte(&mut client.unwrap()), Some('a'));
    assert!(balancer.endings(1)[0].tried >= 2);
}

#[test]
fn attempts_end_with_what_the_last_one_met() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).connect.attempts = 2;
    let balancer = Balancer::start(config);
    assert_eq!(served_by(balancer.address()), None);
    let record = &balancer.endings(1)[0];
    let expected = (Stage::Connect, CloseReason::ConnectRefused, 2);
    assert_eq!((record.stage, record.reason, record.tried), expected);
}

/// Those that probes call down, too, where they are tried all the same.
#[test]
fn with_try_all_the_same_is_so_of_who_is_down() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    let pool = balancer::pool(&mut config);
    pool.when_none_up = WhenNoneUp::TryAll;
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        ..config::Pool::default().health
    };
    let balancer = Balancer::start(config);
    wait_for("it to be down", || state(&balancer).0 == BackendState::Down);
    assert_eq!(served_by(balancer.address()), None);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.reason, record.tried), (CloseReason::ConnectRefused, 3));
}

/// A host that says nothing any more, while clients are being connected to it, under each policy.
#[test]
fn who_is_still_connecting_when_it_goes_down_is_served_by_another() {
    let drain = OnDown::Drain(Duration::from_secs(60));
    for on_down in [OnDown::Auto, OnDown::Keep, OnDown::Reset, drain] {
        let deaf =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        deaf.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        deaf.listen(0).unwrap();
        let address = deaf.local_addr().unwrap().as_socket().unwrap();
        let _fill: Vec<_> = (0..4)
            .map(|_| {
                let fill = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                    .unwrap();
                fill.set_nonblocking(true).unwrap();
                let _ = fill.connect(&address.into());
                fill
            })
            .collect();
        let server = Server::start(Conduct::Say(&["b"]));
        let mut config = balancer::config(&[address, server.address]);
        let pool = balancer::pool(&mut config);
        pool.balance = config::Balance::FirstAvailable;
        pool.on_down = on_down;
        pool.connect.timeout = Duration::from_secs(600);
        pool.health = config::Health {
            probe: Probe::Tcp,
            interval: Duration::from_millis(200),
            timeout: Duration::from_millis(200),
            ..config::Pool::default().health
        };
        let balancer = Balancer::start(config);
        let mut clients: Vec<TcpStream> =
            (0..10).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
        for client in &mut clients {
            assert_eq!(first_byte(client), Some('b'), "{on_down:?}");
        }
    }
}

/// A reload gave the name to another address; who is on the old one has nothing to do with it.
#[test]
fn sessions_on_the_address_that_had_the_name_before_live_on() {
    let (listener, old) = loopback();
    let new = Server::start(Conduct::Say(&["n"]));
    let mut config = balancer::config(&[]);
    let named = |address| config::Backend {
        name: "db1".into(),
        address: BackendAddr::Inet(address),
        ..config::Backend::default()
    };
    let pool = balancer::pool(&mut config);
    pool.backends = vec![named(old)];
    pool.on_down = OnDown::Reset;
    let mut balancer = Balancer::start(config.clone());
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let mut server = listener.accept().unwrap().0;
    let pool = balancer::pool(&mut config);
    pool.backends = vec![named(new.address)];
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        ..config::Pool::default().health
    };
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    let mut other = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(first_byte(&mut other), Some('n'));
    let _refusal = new.kill();
    wait_for("the new one to be down", || state(&balancer).0 == BackendState::Down);
    let mut byte = [0];
    assert!(other.read(&mut byte).is_err(), "that one is cut");
    client.write_all(b"x").unwrap();
    server.read_exact(&mut byte).unwrap();
    server.write_all(b"y").unwrap();
    client.read_exact(&mut byte).unwrap();
    drop((client, server));
}

/// A unix socket with room for one who waits.
fn busy(path: &std::path::Path) -> UnixListener {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    UnixListener::from(socket)
}

/// Probes wait as sessions do, for as long as a probe may take.
#[test]
fn a_probe_waits_for_a_full_queue_of_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend");
    let listener = busy(&path);
    let _waits = UnixStream::connect(&path).unwrap();
    let mut config = balancer::config(&[]);
    let pool = balancer::pool(&mut config);
    pool.backends = vec![config::Backend {
        name: "busy".into(),
        address: BackendAddr::Unix(path.as_path().into()),
        ..config::Backend::default()
    }];
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(60),
        fall: 1,
        ..config::Pool::default().health
    };
    let balancer = Balancer::start(config);
    // Longer than a few tries.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(state(&balancer), (BackendState::Starting, 0), "no verdict while it waits");
    listener.set_nonblocking(true).unwrap();
    wait_for("a probe that passes", || {
        drop(listener.accept());
        state(&balancer).0 == BackendState::Up
    });
    assert_eq!(state(&balancer).1, 0);
}

/// A busy program with a unix socket whose queue is full is not a broken one.
#[test]
fn a_full_queue_of_a_unix_socket_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backend");
    let listener = busy(&path);
    let mut config = balancer::config(&[]);
    let pool = balancer::pool(&mut config);
    let backend = |name: &str, path: &std::path::Path| config::Backend {
        name: name.into(),
        address: BackendAddr::Unix(path.into()),
        ..config::Backend::default()
    };
    pool.backends = vec![backend("busy", &path), backend("other", &folder.path().join("other"))];
    pool.backends[1].weight = 0;
    pool.connect.timeout = Duration::from_secs(60);
    pool.connect.attempts = 1;
    pool.passive = Some(Passive {
        failures: 1,
        window: Duration::from_secs(60),
        eject_for: Duration::from_secs(600),
        max_ejected: 100,
    });
    let balancer = Balancer::start(config);
    let mut clients: Vec<TcpStream> =
        (0..10).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("ten sessions", || balancer.supervisor().plane.open_sessions() == 10);
    // Busy for longer than a few tries.
    std::thread::sleep(Duration::from_millis(200));
    let serving = std::thread::spawn(move || {
        for _ in 0..10 {
            listener.accept().unwrap().0.write_all(b"a").unwrap();
        }
    });
    for client in &mut clients {
        assert_eq!(first_byte(client), Some('a'));
    }
    serving.join().unwrap();
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let busy = &snapshot.pools["main"].backends[0];
    assert_eq!(busy.live.connect_failures.refused.value(), 0);
    assert_eq!(busy.status().state, BackendState::Up);
}
