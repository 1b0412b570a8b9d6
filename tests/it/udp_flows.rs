//! The life of UDP flows: when they begin, end, move to another backend, and who may not begin one.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use maitred::border::addr::ListenAddr;
use maitred::border::datagrams::Dropped;
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, OnDown, WhenFlowsFull};
use maitred::data::pool::backend::BackendState;

use crate::balancer::{self, Balancer, wait_for};
use crate::udp::{client, config, dropped, exchange, receive, socket};

fn flow(config: &mut Config) -> &mut config::Flow {
    &mut balancer::listener(config).flow
}

fn set_state(balancer: &Balancer, backend: usize, state: BackendState) {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let backend = &snapshot.pools["main"].backends[backend];
    backend.set_state(state, "by the test", Instant::now(), SystemTime::now());
}

/// Which of two backends hears this.
fn heard_by<'a>(client: &UdpSocket, backends: [&'a UdpSocket; 2]) -> &'a UdpSocket {
    client.send(b"who").unwrap();
    let mut heard = None;
    wait_for("one of the backends to hear it", || {
        heard = backends.into_iter().find(|it| {
            it.set_nonblocking(true).unwrap();
            let is_heard = it.recv(&mut [0; 8]).is_ok();
            it.set_nonblocking(false).unwrap();
            is_heard
        });
        heard.is_some()
    });
    heard.unwrap()
}

fn reload(balancer: &mut Balancer, config: Config) {
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
}

#[test]
fn a_flow_expires_and_its_record_says_what_went_through() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    flow(&mut config).timeout = Duration::from_millis(300);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    let begun = Instant::now();
    exchange(&client, &backend, b"hello");
    let record = &balancer.endings(1)[0];
    assert!(begun.elapsed() >= Duration::from_millis(290));
    assert_eq!((record.stage, record.reason), (Stage::Relay, CloseReason::FlowExpired));
    let bytes = record.bytes;
    assert_eq!((bytes.client_received, bytes.backend_sent), (5, 5));
    assert_eq!((bytes.backend_received, bytes.client_sent), (5, 5));
    assert!(record.first_byte.is_some());
    assert_eq!(record.client.to_string(), client.local_addr().unwrap().to_string());
    assert_eq!(record.local.to_string(), balancer.address().to_string());
}

#[test]
fn datagrams_keep_a_flow_alive_whichever_way_they_go() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    flow(&mut config).timeout = Duration::from_millis(400);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    let first = exchange(&client, &backend, b"?");
    for _ in 0..4 {
        // Only time makes flows old.
        std::thread::sleep(Duration::from_millis(150));
        backend.send_to(b"news", first).unwrap();
        receive(&client);
    }
    for _ in 0..4 {
        // The same.
        std::thread::sleep(Duration::from_millis(150));
        client.send(b"more").unwrap();
        assert_eq!(receive(&backend).1, first);
    }
}

#[test]
fn a_client_stays_on_its_backend_and_clients_are_spread() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let balancer = Balancer::start(config(&[&backends[0], &backends[1]]));
    let mut counts = [0, 0];
    for _ in 0..10 {
        let client = client(&balancer);
        let first = heard_by(&client, [&backends[0], &backends[1]]);
        for _ in 0..3 {
            assert!(std::ptr::eq(first, heard_by(&client, [&backends[0], &backends[1]])));
        }
        counts[usize::from(std::ptr::eq(first, &backends[1]))] += 1;
    }
    assert_eq!(counts, [5, 5]);
}

#[test]
fn with_requests_each_so_many_datagrams_are_a_flow() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    flow(&mut config).requests = Some(1);
    flow(&mut config).responses = Some(1);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    let mut flows = Vec::new();
    // All asked before any is answered: each answer finds its way.
    for _ in 0..6 {
        client.send(b"q").unwrap();
    }
    for index in 0..6 {
        flows.push(receive(&backends[index % 2]).1);
    }
    for (index, flow) in flows.iter().enumerate() {
        backends[index % 2].send_to(&[index as u8], flow).unwrap();
    }
    let mut answers: Vec<u8> = (0..6).map(|_| receive(&client).0[0]).collect();
    answers.sort_unstable();
    assert_eq!(answers, [0, 1, 2, 3, 4, 5]);
    let records = balancer.endings(6);
    assert!(records.iter().all(|it| it.reason == CloseReason::FlowComplete));
    // The record is written first.
    wait_for("no open flow", || balancer.supervisor().plane.open_sessions() == 0);
}

#[test]
fn a_pipelined_client_gets_all_its_responses() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    flow(&mut config).responses = Some(1);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    for _ in 0..3 {
        client.send(b"q").unwrap();
    }
    let flow = (0..3).map(|_| receive(&backend).1).next_back().unwrap();
    for answer in [b"1", b"2", b"3"] {
        backend.send_to(answer, flow).unwrap();
        assert_eq!(receive(&client).0, answer);
    }
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::FlowComplete));
}

#[test]
fn a_refused_first_datagram_goes_to_another_backend() {
    let dead = socket("127.0.0.1:0");
    let alive = socket("127.0.0.1:0");
    let mut config = config(&[&dead, &alive]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    drop(dead);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    exchange(&client, &alive, b"question");
    exchange(&client, &alive, b"another");
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let failures = &snapshot.pools["main"].backends[0].live.connect_failures;
    assert_eq!(failures.refused.value(), 1);
    balancer.supervisor().cut(Default::default(), CloseReason::Killed);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.tried, record.reason), (1, CloseReason::Killed));
}

#[test]
fn a_datagram_everybody_refuses_ends_the_flow() {
    let (dead, gone) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let config = config(&[&dead, &gone]);
    drop((dead, gone));
    let balancer = Balancer::start(config);
    client(&balancer).send(b"question").unwrap();
    dropped(&balancer, Dropped::BackendError, 1);
    assert_eq!(balancer.ending(), (Stage::Connect, CloseReason::ConnectRefused));
}

#[test]
fn icmp_errors_eject_a_backend_and_its_flows_move() {
    let dying = socket("127.0.0.1:0");
    let alive = socket("127.0.0.1:0");
    let mut config = config(&[&dying, &alive]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    balancer::pool(&mut config).passive =
        Some(config::Passive { failures: 2, ..config::Pool::default().passive.unwrap() });
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    exchange(&client, &dying, b"before");
    drop(dying);
    let snapshot = balancer.supervisor().plane.snapshot.load_full();
    let state = || snapshot.pools["main"].backends[0].status().state;
    wait_for("the backend to be ejected", || {
        client.send(b"after").unwrap();
        state() == BackendState::Ejected
    });
    client.send(b"moved").unwrap();
    wait_for("the flow to move", || receive(&alive).0 == b"moved");
}

#[test]
fn what_a_dead_backend_was_asked_and_did_not_answer_is_asked_of_another() {
    let (dying, alive) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let mut config = config(&[&dying, &alive]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    balancer::pool(&mut config).passive =
        Some(config::Passive { failures: 2, ..config::Pool::default().passive.unwrap() });
    flow(&mut config).requests = Some(1);
    flow(&mut config).responses = Some(1);
    let balancer = Balancer::start(config);
    let clients = [client(&balancer), client(&balancer), client(&balancer)];
    clients[0].send(b"taken").unwrap();
    assert_eq!(receive(&dying).0, b"taken");
    drop(dying);
    let mut heard = Vec::new();
    for (client, text) in clients[1..].iter().zip([b"refused", b"another"]) {
        client.send(text).unwrap();
        let (text, from) = receive(&alive);
        alive.send_to(&text, from).unwrap();
        heard.push(text);
    }
    assert_eq!(heard, [b"refused", b"another"]);
    // Ejected by two refusals; now the first question is asked again, by the same client's leave.
    let (text, from) = receive(&alive);
    assert_eq!(text, b"taken");
    alive.send_to(b"answer", from).unwrap();
    assert_eq!(receive(&clients[0]).0, b"answer");
    let records = balancer.endings(3);
    assert!(records.iter().all(|it| it.reason == CloseReason::FlowComplete && it.tried == 1));
    assert!(records.iter().all(|it| it.bytes.client_received == it.bytes.backend_sent
        || it.bytes.backend_sent == 2 * it.bytes.client_received));
}

#[test]
fn flows_leave_a_backend_that_is_down_as_the_pool_says() {
    for (on_down, moves) in [(OnDown::Auto, true), (OnDown::Reset, true), (OnDown::Keep, false)] {
        let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
        let mut config = config(&[&backends[0], &backends[1]]);
        balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
        balancer::pool(&mut config).on_down = on_down;
        let balancer = Balancer::start(config);
        let client = client(&balancer);
        exchange(&client, &backends[0], b"first");
        set_state(&balancer, 0, BackendState::Down);
        exchange(&client, &backends[usize::from(moves)], b"second");
        if moves {
            assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendDown));
        }
        // While nobody is up it stays where it is.
        set_state(&balancer, 1, BackendState::Down);
        exchange(&client, &backends[usize::from(moves)], b"third");
    }
}

#[test]
fn with_drain_and_idle_first_flows_stay_for_a_time() {
    let time = Duration::from_millis(300);
    for on_down in [OnDown::Drain(time), OnDown::IdleFirst(time)] {
        let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
        let mut config = config(&[&backends[0], &backends[1]]);
        balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
        balancer::pool(&mut config).on_down = on_down;
        let balancer = Balancer::start(config);
        let client = client(&balancer);
        exchange(&client, &backends[0], b"first");
        set_state(&balancer, 0, BackendState::Down);
        exchange(&client, &backends[0], b"stays");
        // Only time ends the stay.
        std::thread::sleep(time + Duration::from_millis(50));
        exchange(&client, &backends[1], b"moved");
    }
}

/// The time runs from when the backend went down, not from when the client next says something.
#[test]
fn a_flow_that_was_silent_while_it_might_stay_moves_at_once() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    balancer::pool(&mut config).on_down = OnDown::Drain(Duration::from_millis(200));
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    exchange(&client, &backends[0], b"first");
    set_state(&balancer, 0, BackendState::Down);
    // Only time ends the stay.
    std::thread::sleep(Duration::from_millis(250));
    exchange(&client, &backends[1], b"moved");
}

#[test]
fn a_backend_with_no_weight_keeps_its_flows_and_gets_no_new_ones() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    let mut balancer = Balancer::start(config.clone());
    let old = client(&balancer);
    exchange(&old, &backends[0], b"old");
    balancer::pool(&mut config).backends[0].weight = 0;
    reload(&mut balancer, config);
    exchange(&old, &backends[0], b"old");
    exchange(&client(&balancer), &backends[1], b"new");
}

/// Whatever its weight: one that took nothing new and goes down, and one that is in maintenance.
#[test]
fn flows_leave_a_dead_backend_also_if_it_took_nothing_new_before() {
    for (weight, state) in [(0, BackendState::Down), (1, BackendState::Maintenance)] {
        let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
        let mut config = config(&[&backends[0], &backends[1]]);
        balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
        let mut balancer = Balancer::start(config.clone());
        let client = client(&balancer);
        exchange(&client, &backends[0], b"before");
        balancer::pool(&mut config).backends[0].weight = weight;
        reload(&mut balancer, config);
        set_state(&balancer, 0, state);
        exchange(&client, &backends[1], b"moved");
    }
}

#[test]
fn a_reload_keeps_flows_and_moves_those_of_a_removed_backend() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    let mut balancer = Balancer::start(config.clone());
    let clients = [client(&balancer), client(&balancer)];
    let before = exchange(&clients[0], &backends[0], b"a");
    exchange(&clients[1], &backends[1], b"b");
    flow(&mut config).timeout = Duration::from_secs(30);
    balancer::pool(&mut config).backends.truncate(1);
    reload(&mut balancer, config);
    assert_eq!(exchange(&clients[0], &backends[0], b"a"), before);
    exchange(&clients[1], &backends[0], b"b");
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendRemoved));
}

#[test]
fn a_listener_that_gets_another_pool_takes_its_flows_along() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0]]);
    let mut other = (*config.pools[0]).clone();
    other.name = "other".into();
    other.backends = vec![balancer::backend(backends[1].local_addr().unwrap())];
    config.pools.push(Arc::new(other));
    let mut balancer = Balancer::start(config.clone());
    let client = client(&balancer);
    exchange(&client, &backends[0], b"a");
    balancer::listener(&mut config).pool = Some("other".into());
    reload(&mut balancer, config);
    exchange(&client, &backends[1], b"b");
}

#[test]
fn a_removed_listener_ends_its_flows_and_frees_its_port() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let mut balancer = Balancer::start(config.clone());
    let address = balancer.address();
    exchange(&client(&balancer), &backend, b"a");
    balancer::listener(&mut config).bind = vec![ListenAddr::Inet("127.0.0.2:0".parse().unwrap())];
    reload(&mut balancer, config);
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::Drained));
    wait_for("the port to be free", || UdpSocket::bind(address).is_ok());
}

#[test]
fn a_full_table_sheds_new_flows_and_protects_old_ones() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    flow(&mut config).max_flows = Some(2);
    let balancer = Balancer::start(config);
    let clients = [client(&balancer), client(&balancer), client(&balancer)];
    exchange(&clients[0], &backend, b"0");
    exchange(&clients[1], &backend, b"1");
    clients[2].send(b"2").unwrap();
    dropped(&balancer, Dropped::OverLimit, 1);
    exchange(&clients[0], &backend, b"0");
    exchange(&clients[1], &backend, b"1");
    assert_eq!(balancer.ending(), (Stage::Admit, CloseReason::OverLimit));
}

#[test]
fn a_full_table_may_evict_the_flow_that_was_idle_longest() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    // One worker: which flow is idle longest is known to each for its own.
    config.process.workers = Some(1);
    flow(&mut config).max_flows = Some(2);
    flow(&mut config).when_full = WhenFlowsFull::EvictIdle;
    let balancer = Balancer::start(config);
    let clients = [client(&balancer), client(&balancer), client(&balancer)];
    let first = exchange(&clients[0], &backend, b"0");
    exchange(&clients[1], &backend, b"1");
    assert_eq!(exchange(&clients[0], &backend, b"0"), first);
    exchange(&clients[2], &backend, b"2");
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::FlowEvicted));
    assert_eq!(exchange(&clients[0], &backend, b"0"), first);
}

#[test]
fn without_a_backend_datagrams_are_counted_and_nothing_is_left_behind() {
    let backend = socket("127.0.0.1:0");
    let balancer = Balancer::start(config(&[&backend]));
    set_state(&balancer, 0, BackendState::Down);
    let client = client(&balancer);
    client.send(b"a").unwrap();
    dropped(&balancer, Dropped::NoBackend, 1);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
    set_state(&balancer, 0, BackendState::Up);
    exchange(&client, &backend, b"b");
}

#[test]
fn backends_limits_hold_for_flows() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    balancer::pool(&mut config).backends.truncate(1);
    balancer::pool(&mut config).backends[0].max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let clients = [client(&balancer), client(&balancer)];
    exchange(&clients[0], &backends[0], b"0");
    clients[1].send(b"1").unwrap();
    dropped(&balancer, Dropped::BackendFull, 1);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::BackendFull));
}

#[test]
fn a_draining_balancer_serves_its_flows_and_lets_nobody_in() {
    let backend = socket("127.0.0.1:0");
    let mut balancer = Balancer::start(config(&[&backend]));
    let known = client(&balancer);
    let newcomer = client(&balancer);
    exchange(&known, &backend, b"a");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(balancer.supervisor.as_mut().unwrap().stop_accepting());
    exchange(&known, &backend, b"b");
    newcomer.send(b"c").unwrap();
    dropped(&balancer, Dropped::Draining, 1);
    exchange(&known, &backend, b"d");
}
