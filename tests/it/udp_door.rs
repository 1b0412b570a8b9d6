//! Who may come in at the door of a UDP listener, at what rate, and how the client is announced to the backend.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use maitred::border::datagrams::{Direction, Dropped};
use maitred::border::record::{CloseReason, Stage};
use maitred::config::{ProxyDatagrams, ProxyVersion, Rate};

use crate::balancer::{self, Balancer, wait_for};
use crate::udp::{client, config, dropped, exchange, passed, receive, socket};

/// So slow that a test sees the burst alone.
fn slow(burst: u64) -> Rate {
    Rate { per_second: 1, burst }
}

fn client_at(ip: &str, balancer: &Balancer) -> UdpSocket {
    let client = socket(&format!("{ip}:0"));
    client.connect(balancer.address()).unwrap();
    client
}

#[test]
fn who_is_denied_is_counted_and_recorded() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let access = balancer::listener(&mut config);
    access.deny = vec!["127.0.0.0/30".parse().unwrap()];
    access.allow = vec!["127.0.0.2/32".parse().unwrap(), "127.0.0.0/8".parse().unwrap()];
    let balancer = Balancer::start(config);
    exchange(&client_at("127.0.0.2", &balancer), &backend, b"let in by the longest prefix");
    exchange(&client_at("127.0.0.9", &balancer), &backend, b"let in");
    client_at("127.0.0.1", &balancer).send(b"denied").unwrap();
    dropped(&balancer, Dropped::Denied, 1);
    assert_eq!(balancer.ending(), (Stage::Admit, CloseReason::Denied));
}

#[test]
fn new_flows_are_held_to_their_rates_and_old_ones_are_not() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    balancer::listener(&mut config).limits.rate = Some(slow(3));
    balancer::listener(&mut config).limits.rate_per_client = Some(slow(2));
    let balancer = Balancer::start(config);
    let clients: Vec<UdpSocket> = (0..3).map(|_| client_at("127.0.0.1", &balancer)).collect();
    exchange(&clients[0], &backend, b"0");
    exchange(&clients[1], &backend, b"1");
    clients[2].send(b"over the client's rate").unwrap();
    dropped(&balancer, Dropped::RateLimited, 1);
    exchange(&client_at("127.0.0.2", &balancer), &backend, b"another client");
    client_at("127.0.0.3", &balancer).send(b"over the listener's rate").unwrap();
    dropped(&balancer, Dropped::RateLimited, 2);
    exchange(&clients[0], &backend, b"0");
    let records = balancer.endings(2);
    assert!(records.iter().all(|it| it.reason == CloseReason::RateLimited));
}

#[test]
fn a_client_has_so_many_flows_at_once() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    balancer::listener(&mut config).limits.sessions_per_client = Some(1);
    balancer::listener(&mut config).flow.timeout = Duration::from_millis(300);
    let balancer = Balancer::start(config);
    let clients = [client_at("127.0.0.1", &balancer), client_at("127.0.0.1", &balancer)];
    exchange(&clients[0], &backend, b"0");
    clients[1].send(b"1").unwrap();
    dropped(&balancer, Dropped::OverLimit, 1);
    exchange(&client_at("127.0.0.2", &balancer), &backend, b"another");
    wait_for("the flows to expire", || balancer.supervisor().plane.open_sessions() == 0);
    exchange(&clients[1], &backend, b"1");
}

#[test]
fn datagrams_over_the_rate_are_dropped_whole() {
    for is_per_client in [false, true] {
        let backend = socket("127.0.0.1:0");
        let mut config = config(&[&backend]);
        let limits = &mut balancer::listener(&mut config).limits;
        let rate = Some(slow(10));
        if is_per_client {
            limits.datagram_rate_per_client = rate;
        } else {
            limits.datagram_rate = rate;
        }
        let balancer = Balancer::start(config);
        let client = client(&balancer);
        for index in 0..30_u8 {
            client.send(&vec![index; 1000]).unwrap();
        }
        wait_for("all to be counted", || passed(&balancer, Direction::FromClient) == 30);
        let let_in = passed(&balancer, Direction::ToBackend);
        assert!((10..=12).contains(&let_in), "{let_in} datagrams");
        dropped(&balancer, Dropped::DatagramRate, 30 - let_in);
        for index in 0..10_u8 {
            assert_eq!(receive(&backend).0, vec![index; 1000]);
        }
    }
}

#[test]
fn a_backend_is_told_the_client_in_front_of_the_first_or_of_every_datagram() {
    for (datagrams, headed) in
        [(ProxyDatagrams::First, [true, false, false]), (ProxyDatagrams::Every, [true; 3])]
    {
        let backend = socket("127.0.0.1:0");
        let mut config = config(&[&backend]);
        balancer::pool(&mut config).send_proxy_protocol = Some(ProxyVersion::V2);
        balancer::pool(&mut config).send_proxy_datagrams = datagrams;
        let balancer = Balancer::start(config);
        let client = client(&balancer);
        // The header as the specification draws it: IPv4, datagrams, from the client to the address it dialled.
        let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
        header.extend(client.local_addr().unwrap().port().to_be_bytes());
        header.extend(balancer.address().port().to_be_bytes());
        for (payload, is_headed) in [&b"one"[..], b"", b"three"].iter().zip(headed) {
            client.send(payload).unwrap();
            let (heard, flow) = receive(&backend);
            let expected = if is_headed { [&header, *payload].concat() } else { payload.to_vec() };
            assert_eq!(heard, expected);
            backend.send_to(payload, flow).unwrap();
            assert_eq!(receive(&client).0, *payload);
        }
        balancer.supervisor().cut(Default::default(), CloseReason::Killed);
        let bytes = balancer.endings(1)[0].bytes;
        assert_eq!((bytes.client_received, bytes.backend_sent), (8, 8), "payload alone counts");
    }
}

#[test]
fn a_backend_that_may_be_another_process_is_told_the_client_anew() {
    let backend = socket("127.0.0.1:0");
    let address = backend.local_addr().unwrap();
    let mut config = config(&[&backend]);
    balancer::pool(&mut config).send_proxy_protocol = Some(ProxyVersion::V2);
    let balancer = Balancer::start(config);
    let snapshot = balancer.supervisor().plane.snapshot.load_full();
    let live = &snapshot.pools["main"].backends[0].live;
    let client = client(&balancer);
    let heard_by = |backend: &UdpSocket, text: &[u8]| {
        client.send(text).unwrap();
        let heard = receive(backend).0;
        (heard.len() > text.len()).then_some(heard.len() - text.len())
    };
    assert_eq!(heard_by(&backend, b"first"), Some(28));
    assert_eq!(heard_by(&backend, b"more"), None);
    // The kernel says that nobody is there; then somebody is.
    drop(backend);
    client.send(b"lost").unwrap();
    wait_for("the news of it", || live.connect_failures.refused.value() > 0);
    let backend = socket(&address.to_string());
    assert_eq!(heard_by(&backend, b"to whoever is there now"), Some(28));
    assert_eq!(heard_by(&backend, b"more"), None);
    // Probes found it down, and up again, and meanwhile it was asked for nothing.
    live.down.set(true);
    live.down.set(false);
    assert_eq!(heard_by(&backend, b"back"), Some(28));
    assert_eq!(heard_by(&backend, b"more"), None);
}

#[test]
fn a_flow_whose_client_is_denied_ends_at_its_next_datagram_either_way() {
    let backend = socket("127.0.0.1:0");
    let mut config = config(&[&backend]);
    let mut balancer = Balancer::start(config.clone());
    let [asks, hears, stays] =
        ["127.0.0.1", "127.0.0.1", "127.0.0.2"].map(|ip| client_at(ip, &balancer));
    exchange(&asks, &backend, b"asks");
    let flow = exchange(&hears, &backend, b"hears");
    exchange(&stays, &backend, b"stays");
    balancer::listener(&mut config).deny = vec!["127.0.0.1/32".parse().unwrap()];
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(config), Instant::now()).unwrap();
    asks.send(b"denied").unwrap();
    dropped(&balancer, Dropped::Denied, 1);
    backend.send_to(b"denied", flow).unwrap();
    exchange(&stays, &backend, b"stays");
    let ended: Vec<Stage> = balancer
        .endings(3)
        .iter()
        .filter(|record| record.reason == CloseReason::Denied)
        .map(|record| record.stage)
        .collect();
    assert_eq!(ended, [Stage::Relay, Stage::Relay, Stage::Admit]);
}
