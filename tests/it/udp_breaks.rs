//! What once went wrong with datagrams, or nearly did: each case is a way in which one could be lost, or counted wrongly.

use std::io::IoSlice;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use maitred::border::datagrams::{Direction, Dropped};
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Protocol};
use maitred::sys::datagram::{self, Parcel};

use crate::balancer::{self, Balancer, wait_for};
use crate::udp::{client, config, dropped, exchange, passed, receive, socket, with_second};

#[test]
fn a_client_of_another_family_than_its_backend_keeps_its_flow() {
    let backend = socket("[::1]:0");
    let mut config = config(&[&backend]);
    // One worker: what it read before must not show in what it reads next.
    config.process.workers = Some(1);
    let balancer = Balancer::start(config);
    let client = client(&balancer);
    let first = exchange(&client, &backend, b"one");
    assert_eq!(exchange(&client, &backend, b"two"), first);
    assert_eq!(exchange(&client, &backend, b"three"), first);
    assert_eq!(passed(&balancer, Direction::FromBackend), 3);
}

#[test]
fn a_datagram_that_went_to_two_backends_was_received_once() {
    let (dead, alive) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
    let mut config = config(&[&dead, &alive]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    drop(dead);
    let balancer = Balancer::start(config);
    exchange(&client(&balancer), &alive, b"question");
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let live = &snapshot.listeners["main"].live;
    assert_eq!(live.counters.sum(|it| it.received_bytes.value()), 8);
    balancer.supervisor().cut(Default::default(), CloseReason::Killed);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.tried, record.bytes.client_received), (1, 8));
}

#[test]
fn what_a_flow_still_had_to_send_when_it_made_room_is_counted() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    config.process.workers = Some(1);
    let flow = &mut balancer::listener(&mut config).flow;
    (flow.max_flows, flow.when_full) = (Some(1), config::WhenFlowsFull::EvictIdle);
    let balancer = Balancer::start(config);
    let clients = [0; 8].map(|_| client(&balancer));
    for round in 0..200_u16 {
        for client in &clients {
            client.send(&round.to_le_bytes()).unwrap();
        }
    }
    wait_for("all to be counted", || passed(&balancer, Direction::FromClient) == 1600);
    // Counted after it was received.
    wait_for("each to be passed on or dropped", || {
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let datagrams = &snapshot.listeners["main"].live.datagrams;
        let dropped = datagrams.sum(|it| it.dropped(Dropped::OverLimit).value());
        passed(&balancer, Direction::ToBackend) + dropped == 1600
    });
}

#[test]
fn a_backend_written_as_a_mapped_address_is_no_client_either() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let port = backend.local_addr().unwrap().port();
    let mapped = format!("[::ffff:127.0.0.1]:{port}").parse().unwrap();
    balancer::pool(&mut config).backends = vec![balancer::backend(mapped)];
    let balancer = Balancer::start(config);
    backend.send_to(b"loop", balancer.address()).unwrap();
    dropped(&balancer, Dropped::Loop, 1);
    exchange(&client(&balancer), &backend, b"served all the same");
}

#[test]
fn who_takes_over_the_address_of_a_removed_listener_is_served() {
    let backend = socket("127.0.0.1:0");
    let mut config = with_second(config(&[&backend]));
    let mut balancer = Balancer::start(config.clone());
    let removed = balancer.supervisor().served().nth(1).unwrap().1.local;
    config.listeners.pop();
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
    let removed = balancer::inet(removed);
    wait_for("the port to be free", || UdpSocket::bind(removed).is_ok());
    let client = socket(&removed.to_string());
    client.connect(balancer.address()).unwrap();
    exchange(&client, &backend, b"hello");
}

#[test]
fn a_listener_that_becomes_one_of_tcp_ends_its_flows_and_owes_nothing() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let mut balancer = Balancer::start(config.clone());
    let client = client(&balancer);
    exchange(&client, &backend, b"hello");
    let before = Arc::clone(&balancer.supervisor().plane.snapshot.load().listeners["main"]);
    balancer::listener(&mut config).protocol = Protocol::Tcp;
    let stop = Arc::new(AtomicBool::new(false));
    let senders = [0; 4].map(|_| {
        let (stop, client) = (Arc::clone(&stop), client.try_clone().unwrap());
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                // Refused when the port is closed.
                let _ = client.send(b"more");
            }
        })
    });
    wait_for("a flood", || passed(&balancer, Direction::FromClient) > 1000);
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
    wait_for("the flows to end", || balancer.supervisor().plane.open_sessions() == 0);
    stop.store(true, Relaxed);
    senders.into_iter().for_each(|it| it.join().unwrap());
    assert_eq!(before.live.active.load(Relaxed), 0);
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let after = &snapshot.listeners["main"].live;
    assert_eq!(after.counters.sum(|it| it.sessions.value()), 0, "the new one had no session");
    assert_eq!(after.datagrams.sum(|it| it.passed(Direction::FromClient).value()), 0);
}

/// Trains and single datagrams of many clients, while everything that a reload can change of listener and pool changes:
/// each is passed on or dropped for a reason, and at the end every place is given back.
#[test]
fn whatever_changes_each_datagram_is_passed_on_or_counted() {
    let backends = [0; 3].map(|_| socket("127.0.0.1:0"));
    let whole = config(&[&backends[0], &backends[1], &backends[2]]);
    let mut balancer = Balancer::start(whole.clone());
    let senders: Vec<OwnedFd> =
        (0..20).map(|_| datagram::connect(balancer.address(), None, None).unwrap()).collect();
    let mut chance = fastrand::Rng::with_seed(7);
    let mut sent = 0;
    for round in 0..120 {
        if round % 4 == 0 {
            // More than these might not fit into the queue.
            wait_for("all to be received", || passed(&balancer, Direction::FromClient) == sent);
        }
        let mut config = whole.clone();
        let listener = balancer::listener(&mut config);
        listener.flow.requests = [None, Some(1), Some(3), Some(7)][chance.usize(..4)];
        listener.flow.max_flows = [None, Some(1), Some(5), Some(19)][chance.usize(..4)];
        listener.flow.timeout = Duration::from_millis([20, 300, 60_000][chance.usize(..3)]);
        if chance.bool() {
            listener.flow.when_full = config::WhenFlowsFull::EvictIdle;
        }
        listener.limits.sessions_per_client = [None, Some(4)][chance.usize(..2)];
        let rate = config::Rate { per_second: 500, burst: 50 };
        listener.limits.datagram_rate_per_client = [None, Some(rate)][chance.usize(..2)];
        let pool = balancer::pool(&mut config);
        pool.send_proxy_protocol = [None, Some(config::ProxyVersion::V2)][chance.usize(..2)];
        pool.backends.truncate(chance.usize(1..=3));
        balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
        for sender in &senders {
            let (count, size) = (chance.usize(1..12), chance.usize(1..60));
            let bytes = vec![1; count * size - chance.usize(..size)];
            let segment = (bytes.len() > size).then_some(size as u16);
            let parcel = Parcel { segment, ..Parcel::default() };
            datagram::send(sender, &[IoSlice::new(&bytes)], &parcel).unwrap();
            sent += count as u64;
        }
    }
    wait_for("all to be received", || passed(&balancer, Direction::FromClient) == sent);
    // Counted after it was received.
    wait_for("each to be passed on or dropped", || {
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let datagrams = &snapshot.listeners["main"].live.datagrams;
        let dropped = Dropped::ALL.map(|it| datagrams.sum(|cell| cell.dropped(it).value()));
        passed(&balancer, Direction::ToBackend) + dropped.iter().sum::<u64>() == sent
    });
}

#[test]
fn datagrams_count_as_the_listeners_they_came_to_also_those_of_flows_older_than_its_name() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let mut balancer = Balancer::start(config.clone());
    let client = client(&balancer);
    let first = exchange(&client, &backend, b"before");
    balancer::listener(&mut config).name = "renamed".into();
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
    assert_eq!(exchange(&client, &backend, b"after"), first);
    wait_for("all to be counted", || passed(&balancer, Direction::ToClient) == 1);
    assert_eq!(Direction::ALL.map(|it| passed(&balancer, it)), [1; 4]);
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let counters = &snapshot.listeners["renamed"].live.counters;
    assert_eq!(counters.sum(|it| it.received_bytes.value()), 5);
    wait_for("bytes to be counted", || counters.sum(|it| it.sent_bytes.value()) == 5);
}

#[test]
fn a_flow_that_moved_ends_though_its_old_backend_goes_on_sending() {
    let backends = [socket("127.0.0.1:0"), socket("127.0.0.1:0")];
    let mut config = config(&[&backends[0], &backends[1]]);
    balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
    let mut balancer = Balancer::start(config.clone());
    let client = client(&balancer);
    let old = exchange(&client, &backends[0], b"before");
    balancer::pool(&mut config).backends.remove(0);
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
    exchange(&client, &backends[1], b"moved");
    backends[0].send_to(b"under way", old).unwrap();
    assert_eq!(receive(&client).0, b"under way");
    wait_for("the old flow to end", || {
        // Refused once it has ended.
        let _ = backends[0].send_to(b"and on and on", old);
        balancer.supervisor().plane.open_sessions() == 1
    });
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendRemoved));
}
