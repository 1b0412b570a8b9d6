//! What once went wrong with datagrams, or nearly did: each case is a way in which one could be lost, or counted wrongly.

use maitred::config;
use maitred::telemetry::datagrams::{Direction, Dropped};
use maitred::telemetry::record::CloseReason;

use crate::balancer::{self, Balancer, wait_for};
use crate::udp::{client, config, exchange, passed, socket};

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
