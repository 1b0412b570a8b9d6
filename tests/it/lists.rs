//! Lists of sessions and flows, which are made in parts so that the data plane never waits for them.

use std::net::TcpStream;

use maitred::border::plane::{SEATS, SessionFilter, SessionRow};

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Server};
use crate::udp;

/// More than one part, and no whole number of them.
const OPEN: usize = SEATS * 2 + 7;

fn blocking<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn are_all(rows: &[SessionRow]) {
    assert_eq!(rows.len(), OPEN);
    assert!(rows.is_sorted_by(|one, next| one.id < next.id), "each once, in order");
}

#[test]
fn every_session_is_listed_once() {
    let server = Server::start(Conduct::Echo);
    let mut config = balancer::config(&[server.address]);
    config.process.workers = Some(1);
    let balancer = Balancer::start(config);
    let clients: Vec<_> =
        (0..OPEN).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    let list = balancer.supervisor().lister();
    let rows = |filter: SessionFilter| blocking(list(filter));
    wait_for("all sessions", || rows(SessionFilter::default()).len() >= OPEN);
    let all = rows(SessionFilter::default());
    are_all(&all);
    let last = SessionFilter { id: Some(all[OPEN - 1].id), ..SessionFilter::default() };
    assert_eq!(rows(last).len(), 1);
    let other = SessionFilter { client: "192.0.2.1".parse().ok(), ..SessionFilter::default() };
    assert!(rows(other).is_empty());
    drop(clients);
}

#[test]
fn every_flow_is_listed_once() {
    let backend = udp::socket("127.0.0.1:0");
    let mut config = udp::config(&[&backend]);
    config.process.workers = Some(1);
    let balancer = Balancer::start(config);
    let clients: Vec<_> = (0..OPEN).map(|_| udp::client(&balancer)).collect();
    for client in &clients {
        udp::exchange(client, &backend, b"?");
    }
    let list = balancer.supervisor().flow_lister();
    are_all(&blocking(list(SessionFilter::default())));
}
