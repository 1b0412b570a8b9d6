//! Probes and what follows from them: who takes sessions, and what happens to those of the dead.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred::border::addr::BackendAddr;
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, Expect, OnDown, Probe, Start, StatusRange, WhenNoneUp};
use maitred::data::pool::backend::{Backend, BackendState, Status};
use maitred::data::pool::slots::Weights;

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Refusal, Server, first_byte, served_by};

const A: Conduct = Conduct::Say(&["a"]);
const B: Conduct = Conduct::Say(&["b"]);

/// As `balancer::config`, with quick probes; one attempt, so that no retry hides anything.
fn config(backends: &[SocketAddr]) -> Config {
    let mut config = balancer::config(backends);
    let pool = balancer::pool(&mut config);
    pool.connect.attempts = 1;
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        ..config::Pool::default().health
    };
    config
}

fn health(config: &mut Config) -> &mut config::Health {
    &mut balancer::pool(config).health
}

fn backend(balancer: &Balancer, index: usize) -> Arc<Backend> {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    Arc::clone(&snapshot.pools["main"].backends[index])
}

fn status(balancer: &Balancer, index: usize) -> Status {
    backend(balancer, index).status().clone()
}

fn wait_until(balancer: &Balancer, index: usize, state: BackendState) -> Status {
    let what = format!("backend {index} to be {state:?}");
    wait_for(&what, || status(balancer, index).state == state);
    status(balancer, index)
}

fn told(status: &Status) -> String {
    status.told(Instant::now())
}

fn messages(balancer: &Balancer) -> Vec<String> {
    balancer.supervisor().events.all().into_iter().map(|event| event.message).collect()
}

#[test]
fn a_killed_backend_is_down_after_fall_probes_and_back_after_rise() {
    let (a, b) = (Server::start(A), Server::start(B));
    let balancer = Balancer::start(config(&[a.address, b.address]));
    wait_until(&balancer, 0, BackendState::Up);
    wait_until(&balancer, 1, BackendState::Up);
    let failures = |index| backend(&balancer, index).live.probes.refused.value();
    let refusal = a.kill();
    let down = wait_until(&balancer, 0, BackendState::Down);
    let told = down.told(Instant::now());
    assert!(told.starts_with("3 probes failed, last: refused after "), "{told}");
    assert!(told.ends_with(" s ago"), "{told}");
    assert!(failures(0) >= 3);
    for _ in 0..20 {
        assert_eq!(served_by(balancer.address()), Some('b'));
    }
    assert!(balancer.endings(20).iter().all(|record| record.tried == 0));
    let _a = refusal.revive(A);
    let up = wait_until(&balancer, 0, BackendState::Up);
    let told = up.told(Instant::now());
    assert!(told.starts_with("2 probes passed, last: passed after "), "{told}");
    wait_for("a session on the one that came back", || served_by(balancer.address()) == Some('a'));
    let text = format!("main/{} down: 3 probes failed", backend(&balancer, 0).name);
    assert!(messages(&balancer).iter().any(|message| message.starts_with(&text)));
    let snapshot = balancer.supervisor().plane.snapshot.load();
    assert!(snapshot.pools["main"].shared.probe_duration.count() > 0);
}

#[test]
fn the_loss_of_a_pools_last_backend_says_so() {
    let servers = [Server::start(A), Server::start(A)];
    let balancer = Balancer::start(config(&servers.each_ref().map(|it| it.address)));
    for index in [0, 1] {
        wait_until(&balancer, index, BackendState::Up);
    }
    let says =
        |message: &String| message.ends_with("; no backend of pool main takes new sessions now");
    let [first, second] = servers;
    let _first = first.kill();
    wait_until(&balancer, 0, BackendState::Down);
    assert!(!messages(&balancer).iter().any(says), "one is left");
    let _second = second.kill();
    wait_for("the news", || messages(&balancer).iter().any(says));
}

#[test]
fn why_says_what_the_last_probe_said_also_when_nothing_came_of_it() {
    let a = Server::start(A);
    let mut config = config(&[a.address]);
    health(&mut config).fall = 1_000_000;
    let balancer = Balancer::start(config);
    wait_until(&balancer, 0, BackendState::Up);
    let refusal = a.kill();
    let says = |what: &str| told(&status(&balancer, 0)).starts_with(what);
    wait_for("a failure", || says("1 probe passed, last: refused after "));
    assert_eq!(status(&balancer, 0).state, BackendState::Up);
    let _a = refusal.revive(A);
    wait_for("a pass", || says("1 probe passed, last: passed after "));
}

/// The first verdict of a single probe on one backend.
fn verdict(probe: Probe, address: BackendAddr) -> Status {
    let mut config = config(&["127.0.0.1:9".parse().unwrap()]);
    balancer::pool(&mut config).backends[0].address = address;
    *health(&mut config) = config::Health {
        probe,
        rise: 1,
        fall: 1,
        start: Start::Down,
        ..health(&mut config).clone()
    };
    let balancer = Balancer::start(config);
    wait_for("a verdict", || status(&balancer, 0).state != BackendState::Starting);
    status(&balancer, 0)
}

fn verdict_on(probe: Probe, conduct: Conduct) -> (BackendState, String) {
    let server = Server::start(conduct);
    let status = verdict(probe, BackendAddr::Inet(server.address));
    (status.state, status.told(Instant::now()))
}

fn expect(expect: Expect) -> Probe {
    Probe::Exchange(config::Exchange {
        send: Some(b"ping\n".to_vec()),
        expect: Some(expect),
        standby: None,
    })
}

#[test]
fn an_expected_reply_may_come_in_pieces_and_the_backend_may_then_close() {
    const PIECES: &[&str] = &["+", "P", "ON", "G\r\n"];
    for conduct in [Conduct::Say(PIECES), Conduct::SayAndClose(PIECES)] {
        for wanted in [Expect::Bytes(b"PONG".to_vec()), Expect::Regex("^\\+P.NG".into())] {
            let (state, why) = verdict_on(expect(wanted.clone()), conduct);
            assert_eq!(state, BackendState::Up, "{conduct:?} {wanted:?}: {why}");
        }
    }
    let echoed = verdict_on(expect(Expect::Bytes(b"ping".to_vec())), Conduct::Echo);
    assert_eq!(echoed.0, BackendState::Up, "what is sent arrives: {}", echoed.1);
}

#[test]
fn another_reply_is_a_mismatch_and_shown_and_only_silence_is_a_timeout() {
    let wanted = || expect(Expect::Bytes(b"PONG".to_vec()));
    let (state, why) = verdict_on(wanted(), Conduct::Answer("-ERR\r\n"));
    assert_eq!(state, BackendState::Down);
    let says = r#"mismatch (it closed without the expected reply; it said "-ERR\r\n") after"#;
    assert!(why.contains(says), "{why}");
    let (state, why) = verdict_on(expect(Expect::Regex("^PONG".into())), Conduct::Say(&["xPONG"]));
    assert_eq!(state, BackendState::Down);
    let says = r#"last: mismatch (not the expected reply; it said "xPONG") after "#;
    assert!(why.contains(says), "nothing more came: {why}");
    let (_, why) = verdict_on(wanted(), Conduct::Echo);
    assert!(why.contains("it said \"…\\n\""), "what we sent is no news: {why}");
    let (_, why) = verdict_on(wanted(), Conduct::Say(&[]));
    assert!(why.contains("last: timeout after"), "{why}");
}

#[test]
fn an_exchange_without_expectation_only_sends_and_what_it_sent_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let probe = Probe::Exchange(config::Exchange {
        send: Some(b"QUIT\n".to_vec()),
        expect: None,
        standby: None,
    });
    assert_eq!(verdict(probe, BackendAddr::Inet(address)).state, BackendState::Up);
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "QUIT\n");
}

#[test]
fn an_http_probe_goes_by_the_status() {
    let probe = || {
        Probe::Http(config::Http {
            path: "/ready".into(),
            host: None,
            status: vec![StatusRange { first: 200, last: 399 }],
            standby: Vec::new(),
        })
    };
    let of = |answer| verdict_on(probe(), Conduct::Answer(answer));
    assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").0, BackendState::Up);
    let (state, why) = of("HTTP/1.1 503 Service Unavailable\r\n\r\n");
    assert_eq!(state, BackendState::Down);
    assert!(why.starts_with("1 probe failed, last: mismatch (status 503) after "), "{why}");
    assert!(of("SSH-2.0-OpenSSH_9.9\r\n").1.contains("mismatch (not an HTTP answer; it said"));
    let pieces =
        verdict_on(probe(), Conduct::Say(&["HTT", "P/1.0 20", "4 No", " Content\r", "\n"]));
    assert_eq!(pieces.0, BackendState::Up);
}

#[test]
fn a_standby_takes_no_sessions_and_is_no_failure() {
    let answer = |text: &'static str| Server::start(Conduct::Answer(text));
    let exchange = || {
        Probe::Exchange(config::Exchange {
            send: Some(b"role\n".to_vec()),
            expect: Some(Expect::Bytes(b"master".to_vec())),
            standby: Some(Expect::Bytes(b"slave".to_vec())),
        })
    };
    let http = || {
        Probe::Http(config::Http {
            path: "/primary".into(),
            host: None,
            status: vec![StatusRange { first: 200, last: 399 }],
            standby: vec![StatusRange { first: 503, last: 503 }],
        })
    };
    let unavailable = "HTTP/1.1 503 Service Unavailable\r\n\r\n";
    for (probe, serves, stands_by, says) in [
        (exchange(), "role:master", "role:slave", "wrong_role (it answers as a standby) after"),
        (http(), "HTTP/1.1 200 OK\r\n\r\n", unavailable, "wrong_role (status 503) after"),
    ] {
        let (primary, replica) = (answer(serves), answer(stands_by));
        let mut config = config(&[primary.address, replica.address]);
        health(&mut config).probe = probe;
        balancer::pool(&mut config).when_none_up = WhenNoneUp::TryAll;
        let balancer = Balancer::start(config);
        wait_until(&balancer, 0, BackendState::Up);
        let standby = wait_until(&balancer, 1, BackendState::Standby);
        let why = told(&standby);
        assert!(why.starts_with("1 probe answered that it is a standby, last: "), "{why}");
        assert!(why.contains(says), "{why}");
        assert!(backend(&balancer, 1).live.probes.wrong_role.value() > 0);
        assert!(messages(&balancer).iter().all(|it| !it.contains("standby")), "no news at a start");
        let before = primary.clients.lock().unwrap().len();
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(b"hello\n").unwrap();
        assert_eq!(first_byte(&mut client), serves.chars().next());
        assert!(primary.clients.lock().unwrap().len() > before);
        // Not even when nobody is up.
        let refusal = primary.kill();
        wait_until(&balancer, 0, BackendState::Down);
        let weight = |index| backend(&balancer, index).live.slot.hot().weight(Weights::Forced);
        assert!(weight(0) > 0 && weight(1) == 0);
        drop(refusal);
        drop(client);
    }
}

#[test]
fn a_frozen_backend_is_down_by_exchange_and_up_by_tcp() {
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = || BackendAddr::Inet(frozen.local_addr().unwrap());
    let by_exchange = verdict(expect(Expect::Bytes(b"PONG".to_vec())), address());
    assert_eq!(by_exchange.state, BackendState::Down);
    assert!(told(&by_exchange).contains("timeout"), "{by_exchange:?}");
    assert_eq!(verdict(Probe::Tcp, address()).state, BackendState::Up);
}

#[test]
fn a_unix_backend_is_probed_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backend.sock");
    let missing = verdict(Probe::Tcp, BackendAddr::Unix(path.clone()));
    assert_eq!(missing.state, BackendState::Down);
    assert!(told(&missing).contains("refused"), "{missing:?}");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    assert_eq!(verdict(Probe::Tcp, BackendAddr::Unix(path)).state, BackendState::Up);
}

#[test]
fn probes_come_from_the_pools_source() {
    let server = Server::start(A);
    let mut config = config(&[server.address]);
    balancer::pool(&mut config).source =
        ["::1", "127.0.0.9"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap().into()).to_vec();
    let balancer = Balancer::start(config);
    wait_until(&balancer, 0, BackendState::Up);
    wait_for("a probe", || !server.clients.lock().unwrap().is_empty());
    assert_eq!(server.clients.lock().unwrap()[0].ip().to_string(), "127.0.0.9");
}

#[test]
fn our_own_lack_is_no_verdict() {
    let server = Server::start(A);
    let mut config = config(&[server.address]);
    // An address this host does not have: no source to connect from.
    balancer::pool(&mut config).source = vec![std::net::IpAddr::from([192, 0, 2, 1]).into()];
    health(&mut config).fall = 1;
    let balancer = Balancer::start(config);
    wait_for("probes", || backend(&balancer, 0).live.probes.local_error.value() >= 3);
    assert_eq!(status(&balancer, 0).state, BackendState::Starting);
    let told = status(&balancer, 0).told(std::time::Instant::now());
    assert!(told.contains("`source` 192.0.2.1 is not an address of this machine"), "{told}");
}

#[test]
fn who_starts_down_takes_nothing_before_rise_probes_passed() {
    let server = Server::start(A);
    let mut config = config(&[server.address]);
    health(&mut config).start = Start::Down;
    health(&mut config).rise = 5;
    let balancer = Balancer::start(config);
    assert_eq!(served_by(balancer.address()), None);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
    wait_for("a session to be served", || served_by(balancer.address()) == Some('a'));
    assert!(backend(&balancer, 0).live.probes.passed.value() >= 5);
    assert_eq!(status(&balancer, 0).transitions(BackendState::Up), 1);
}

#[test]
fn try_all_serves_from_those_that_probes_call_dead() {
    let (server, refusal) = (Server::start(A), Refusal::new());
    let mut config = config(&[server.address]);
    health(&mut config).port = Some(refusal.address.port());
    balancer::pool(&mut config).when_none_up = WhenNoneUp::TryAll;
    let balancer = Balancer::start(config);
    wait_until(&balancer, 0, BackendState::Down);
    let served = served_by(balancer.address());
    assert_eq!(served, Some('a'), "{:?}", balancer.endings(1));
}

/// An echoing backend whose health is on another port, and a session on it; the health is gone.
fn session_on_a_dead_backend(on_down: OnDown) -> (Balancer, TcpStream, TcpStream) {
    let (balancer, client, server, _) = session_on_a_sick_backend(on_down);
    (balancer, client, server)
}

fn session_on_a_sick_backend(on_down: OnDown) -> (Balancer, TcpStream, TcpStream, Refusal) {
    let (listener, sick) = (TcpListener::bind("127.0.0.1:0").unwrap(), Server::start(A));
    let mut config = config(&[listener.local_addr().unwrap()]);
    health(&mut config).port = Some(sick.address.port());
    balancer::pool(&mut config).on_down = on_down;
    let balancer = Balancer::start(config);
    wait_until(&balancer, 0, BackendState::Up);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"x").unwrap();
    assert_eq!(first_byte(&mut server), Some('x'));
    let refusal = sick.kill();
    wait_until(&balancer, 0, BackendState::Down);
    (balancer, client, server, refusal)
}

fn assert_passes(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"y").unwrap();
    assert_eq!(first_byte(to), Some('y'));
}

#[test]
fn on_down_reset_cuts_both_sides() {
    let (balancer, client, server) = session_on_a_dead_backend(OnDown::Reset);
    for mut side in [client, server] {
        side.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let error = side.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendDown));
}

#[test]
fn on_down_drain_gives_sessions_a_while_and_then_cuts_them() {
    let begun = std::time::Instant::now();
    let drain = OnDown::Drain(Duration::from_millis(700));
    let (balancer, mut client, mut server) = session_on_a_dead_backend(drain);
    assert_passes(&mut client, &mut server);
    for side in [&mut client, &mut server] {
        side.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(side.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert!(begun.elapsed() >= Duration::from_millis(700));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendDown));
}

#[test]
fn who_recovers_during_the_drain_keeps_its_sessions() {
    let drain = OnDown::Drain(Duration::from_millis(500));
    let (balancer, mut client, mut server, refusal) = session_on_a_sick_backend(drain);
    let _health = refusal.revive(A);
    wait_until(&balancer, 0, BackendState::Up);
    // Nothing to wait for: it is about what does not happen, for longer than the drain and a tick.
    std::thread::sleep(Duration::from_millis(800));
    assert_passes(&mut client, &mut server);
    drop((client, server));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
}

#[test]
fn on_down_keep_keeps_sessions() {
    let (balancer, mut client, mut server) = session_on_a_dead_backend(OnDown::Keep);
    client.write_all(b"y").unwrap();
    assert_eq!(first_byte(&mut server), Some('y'));
    server.write_all(b"z").unwrap();
    assert_eq!(first_byte(&mut client), Some('z'));
    drop((client, server));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
}

/// Opens `count` sessions, leaves them open, and counts those on backend `a`.
fn share_of_a(balancer: &Balancer, count: usize) -> usize {
    let mut clients: Vec<TcpStream> =
        (0..count).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    clients.iter_mut().filter_map(first_byte).filter(|byte| *byte == 'a').count()
}

#[test]
fn slow_start_holds_back_who_recovered_but_nobody_at_the_start() {
    let (a, b) = (Server::start(A), Server::start(B));
    let mut config = config(&[a.address, b.address]);
    balancer::pool(&mut config).slow_start = Some(Duration::from_secs(100));
    let balancer = Balancer::start(config);
    wait_until(&balancer, 0, BackendState::Up);
    assert_eq!(share_of_a(&balancer, 20), 10);
    let refusal = a.kill();
    wait_until(&balancer, 0, BackendState::Down);
    let _a = refusal.revive(A);
    wait_until(&balancer, 0, BackendState::Up);
    let idle = || balancer.supervisor().plane.open_sessions() == 0;
    wait_for("the sessions before to end", idle);
    let share = share_of_a(&balancer, 22);
    assert!((1..=4).contains(&share), "a tenth of the weight, but {share} of 22");
}

#[test]
fn slow_start_raises_the_weight_to_the_whole() {
    let server = Server::start(A);
    let mut config = config(&[server.address]);
    balancer::pool(&mut config).slow_start = Some(Duration::from_millis(600));
    let balancer = Balancer::start(config);
    let weight = || backend(&balancer, 0).live.slot.hot().weight(Weights::Effective);
    let refusal = server.kill();
    wait_until(&balancer, 0, BackendState::Down);
    assert_eq!(weight(), 0);
    let _server = refusal.revive(A);
    wait_for("the ramp to begin", || weight() > 0);
    let mut seen = vec![weight()];
    wait_for("the whole weight", || {
        seen.push(weight());
        weight() == 256
    });
    seen.dedup();
    assert!(seen.len() > 2 && seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_reload_keeps_states_and_probes_the_new() {
    let (a, b, c) = (Refusal::new(), Server::start(B), Server::start(Conduct::Say(&["c"])));
    let mut config = config(&[a.address, b.address]);
    let mut balancer = Balancer::start(config.clone());
    wait_until(&balancer, 0, BackendState::Down);
    wait_until(&balancer, 1, BackendState::Up);
    let probed = |balancer: &Balancer, index| backend(balancer, index).live.probes.passed.value();
    for interval in [50, 70] {
        let pool = balancer::pool(&mut config);
        pool.health.interval = Duration::from_millis(interval);
        pool.backends[1].weight += 2;
        if pool.backends.len() == 2 {
            pool.backends.push(balancer::backend(c.address));
        }
        balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
        wait_until(&balancer, 2, BackendState::Up);
        let before = probed(&balancer, 1);
        wait_for("further probes", || probed(&balancer, 1) >= before + 3);
    }
    assert_eq!(status(&balancer, 0).state, BackendState::Down);
    assert_eq!(status(&balancer, 0).transitions(BackendState::Down), 1);
    assert_eq!(status(&balancer, 1).transitions(BackendState::Up), 1);
    assert_eq!(backend(&balancer, 1).live.slot.hot().weight(Weights::Effective), 5 * 256);
}

#[test]
fn a_reload_stops_probing_who_is_removed() {
    let (a, b) = (Server::start(A), Server::start(B));
    let mut config = config(&[a.address, b.address]);
    let mut balancer = Balancer::start(config.clone());
    wait_until(&balancer, 0, BackendState::Up);
    let removed = backend(&balancer, 0);
    balancer::pool(&mut config).backends.remove(0);
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    wait_until(&balancer, 0, BackendState::Up);
    // Once the new ones are watched, the old watch is gone; whatever was under way is over after a moment.
    let passed = || backend(&balancer, 0).live.probes.passed.value();
    let start = passed();
    wait_for("probes of the one that stays", || passed() >= start + 2);
    let still = removed.live.probes.passed.value();
    let later = passed();
    wait_for("more probes of it", || passed() >= later + 4);
    assert_eq!(removed.live.probes.passed.value(), still);
}

#[test]
fn a_portless_backend_without_health_port_is_up_and_says_why() {
    let server = Server::start(A);
    let mut config = config(&[server.address]);
    balancer::pool(&mut config).backends[0].address =
        BackendAddr::InetClientPort(server.address.ip().into());
    health(&mut config).start = Start::Down;
    let mut balancer = Balancer::start(config.clone());
    let up = wait_until(&balancer, 0, BackendState::Up);
    assert_eq!(up.why, "nothing to probe: a backend without a port needs health.port");
    let refusal = Refusal::new();
    health(&mut config).port = Some(refusal.address.port());
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    wait_until(&balancer, 0, BackendState::Down);
}

#[test]
fn maintenance_stops_probes_and_a_hand_outranks_them() {
    let server = Server::start(A);
    let balancer = Balancer::start(config(&[server.address]));
    wait_until(&balancer, 0, BackendState::Up);
    let backend = backend(&balancer, 0);
    let set = |state| {
        let (now, wall) = (std::time::Instant::now(), std::time::SystemTime::now());
        backend.set_state(state, "by hand", now, wall);
    };
    set(BackendState::Drain);
    let refusal = server.kill();
    wait_for("failures", || backend.live.probes.refused.value() >= 4);
    assert_eq!(backend.status().state, BackendState::Drain);
    set(BackendState::Maintenance);
    let before = backend.live.probes.passed.value();
    let _server = refusal.revive(A);
    // Nothing to wait for: it is about what does not happen, for six intervals. One probe may have been under way.
    std::thread::sleep(Duration::from_millis(300));
    assert!(backend.live.probes.passed.value() <= before + 1);
    assert_eq!(backend.status().state, BackendState::Maintenance);
}
