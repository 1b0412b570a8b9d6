//! What once went wrong with datagrams, or nearly did: each case is a way in which one could be lost, or counted wrongly.

use maitred::telemetry::datagrams::Direction;

use crate::balancer::Balancer;
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
