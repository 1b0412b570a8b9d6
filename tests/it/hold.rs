//! `when_none_up: hold` and `when_full: hold`: clients wait for a place, with their bytes, within bounds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, Hold, Probe, Start, WhenFull, WhenNoneUp};

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Refusal, Server, first_byte, served_by};

const LONG: Hold = Hold { time: Duration::from_secs(60), max: 1000 };

fn held(balancer: &Balancer) -> u32 {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    snapshot.pools["main"].shared.held.load(Relaxed)
}

/// One backend that takes nothing before its first passed probe.
fn none_up(refusal: &Refusal, hold: Hold) -> Config {
    let mut config = balancer::config(&[refusal.address]);
    let pool = balancer::pool(&mut config);
    pool.when_none_up = WhenNoneUp::Hold(hold);
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        start: Start::Down,
        ..config::Pool::default().health
    };
    config
}

#[test]
fn held_clients_are_served_with_their_bytes_the_moment_a_backend_is_up() {
    let refusal = Refusal::new();
    let balancer = Balancer::start(none_up(&refusal, LONG));
    let mut clients: Vec<TcpStream> = (0..20_u8)
        .map(|number| {
            let mut client = TcpStream::connect(balancer.address()).unwrap();
            client.write_all(&[b'a' + number]).unwrap();
            client
        })
        .collect();
    wait_for("twenty held", || held(&balancer) == 20);
    let _server = refusal.revive(Conduct::Echo);
    for (number, client) in (0..20_u8).zip(&mut clients) {
        assert_eq!(first_byte(client), Some((b'a' + number).into()));
    }
    assert_eq!(held(&balancer), 0);
}

#[test]
fn no_more_than_max_are_held() {
    let refusal = Refusal::new();
    let balancer = Balancer::start(none_up(&refusal, Hold { max: 2, ..LONG }));
    let clients: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("two held", || held(&balancer) == 2);
    assert_eq!(served_by(balancer.address()), None);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
    drop(clients);
    wait_for("those that left to be forgotten", || held(&balancer) == 0);
    let reasons: Vec<CloseReason> =
        balancer.endings(3).iter().map(|record| record.reason).collect();
    assert_eq!(reasons[..2], [CloseReason::ClientClosed; 2]);
}

#[test]
fn holding_ends_after_its_time() {
    let refusal = Refusal::new();
    let hold = Hold { time: Duration::from_millis(300), ..LONG };
    let balancer = Balancer::start(none_up(&refusal, hold));
    let begun = Instant::now();
    assert_eq!(served_by(balancer.address()), None);
    assert!(begun.elapsed() >= hold.time);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::HoldTimeout));
    assert_eq!(held(&balancer), 0);
    let snapshot = balancer.supervisor().plane.snapshot.load();
    assert_eq!(snapshot.pools["main"].shared.no_backend.value(), 1, "nobody was up for it");
}

#[test]
fn a_held_client_is_served_by_what_a_reload_brings() {
    let (refusal, server) = (Refusal::new(), Server::start(Conduct::Say(&["n"])));
    let mut config = none_up(&refusal, LONG);
    let mut balancer = Balancer::start(config.clone());
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    wait_for("one held", || held(&balancer) == 1);
    let pool = balancer::pool(&mut config);
    pool.backends = vec![balancer::backend(server.address)];
    pool.health.probe = Probe::None;
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    assert_eq!(first_byte(&mut client), Some('n'));
}

#[test]
fn a_freed_slot_goes_to_who_waits_for_it() {
    let server = Server::start(Conduct::Echo);
    let mut config = balancer::config(&[server.address]);
    let pool = balancer::pool(&mut config);
    pool.when_full = WhenFull::Hold(LONG);
    pool.backends[0].max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let open = || {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(b"x").unwrap();
        client
    };
    let mut first = open();
    assert_eq!(first_byte(&mut first), Some('x'));
    let mut waiting: Vec<TcpStream> = (0..5).map(|_| open()).collect();
    wait_for("five held", || held(&balancer) == 5);
    drop(first);
    // Whoever is served gives the slot on by leaving; all get it in the end, one at a time.
    let mut served = 0;
    wait_for("all to be served", || {
        waiting.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            let is_served = matches!(client.read(&mut [0]), Ok(1));
            served += usize::from(is_served);
            !is_served
        });
        waiting.is_empty()
    });
    assert_eq!(served, 5);
}

#[test]
fn without_hold_a_full_pool_refuses() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    balancer::pool(&mut config).backends[0].max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(first_byte(&mut client), Some('a'));
    assert_eq!(served_by(balancer.address()), None);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::BackendFull));
}
