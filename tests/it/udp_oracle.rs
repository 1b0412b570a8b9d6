//! Many clients, random sizes and bursts, while backends come, go and change: every answer is the very datagram its
//! client sent, and at rest the counters say that nothing was lost, doubled or mixed.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use maitred::border::datagrams::{Direction, Dropped};
use maitred::config;
use maitred::data::pool::backend::BackendState;

use crate::balancer::{self, Balancer, wait_for};
use crate::udp::{client, config, dropped, passed, socket};

const CLIENTS: usize = 48;
const ROUNDS: u64 = 150;
/// Sent before the first answer is awaited.
const MOST_AT_ONCE: u64 = 6;

/// Sends back what it gets until it is told to stop.
fn echo(socket: UdpSocket, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 70_000];
        while !stop.load(Relaxed) {
            if let Ok((count, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&buffer[..count], from).unwrap();
            }
        }
    })
}

/// A datagram that says whose it is and which; what follows is made from that.
fn datagram(client: usize, number: u64, size: usize) -> Vec<u8> {
    let head = [client as u64, number].map(u64::to_le_bytes).concat();
    let mut chance = fastrand::Rng::with_seed(number << 16 | client as u64);
    head.into_iter().chain(std::iter::repeat_with(|| chance.u8(..))).take(size).collect()
}

fn talk(socket: &UdpSocket, client: usize) -> u64 {
    let mut chance = fastrand::Rng::with_seed(client as u64);
    let mut number = 0;
    let mut buffer = vec![0; 70_000];
    for _ in 0..ROUNDS {
        let size = [16, 16, 64, 200, 1200, 1472, 4000, 20_000][chance.usize(..8)];
        // All clients' together fit into the queue of one backend.
        let count = if size > 4000 { 1 } else { 1 + chance.u64(..MOST_AT_ONCE) };
        let mut awaited: Vec<Vec<u8>> = (0..count)
            .map(|at| {
                let size = if at + 1 == count { chance.usize(16..=size) } else { size };
                number += 1;
                datagram(client, number, size)
            })
            .collect();
        for datagram in &awaited {
            socket.send(datagram).unwrap();
        }
        while !awaited.is_empty() {
            let length = socket.recv(&mut buffer).expect("an answer to each datagram");
            let at = awaited.iter().position(|it| *it == buffer[..length]);
            awaited.remove(at.expect("an answer is a datagram that was sent, and comes once"));
        }
    }
    number
}

#[test]
fn every_answer_is_what_was_sent_while_everything_around_changes() {
    let stop = Arc::new(AtomicBool::new(false));
    let sockets = [0; 3].map(|_| socket("127.0.0.1:0"));
    let mut config = config(&[&sockets[0], &sockets[1], &sockets[2]]);
    balancer::pool(&mut config).on_down = config::OnDown::Auto;
    let servers = sockets.map(|it| echo(it, Arc::clone(&stop)));
    let mut balancer = Balancer::start(config.clone());
    let clients: Vec<UdpSocket> = (0..CLIENTS).map(|_| client(&balancer)).collect();
    let sent: u64 = std::thread::scope(|scope| {
        let each = clients.chunks(CLIENTS / 4).enumerate().map(|(at, share)| {
            scope.spawn(move || {
                let numbered = share.iter().enumerate();
                numbered.map(|(index, it)| talk(it, at * CLIENTS / 4 + index)).sum::<u64>()
            })
        });
        let each: Vec<_> = each.collect();
        let mut turn = 0;
        while each.iter().any(|thread| !thread.is_finished()) {
            turn += 1;
            change(&mut balancer, &config, turn);
            // Some datagrams between two changes.
            std::thread::sleep(Duration::from_millis(15));
        }
        each.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let all = |direction| passed(&balancer, direction);
    wait_for("all to be counted", || all(Direction::ToClient) == sent);
    for direction in Direction::ALL {
        assert_eq!(all(direction), sent, "{direction:?}");
    }
    for reason in Dropped::ALL {
        dropped(&balancer, reason, 0);
    }
    stop.store(true, Relaxed);
    servers.into_iter().for_each(|server| server.join().unwrap());
}

/// A backend goes down or comes up, or a reload takes one out of the pool or brings it back.
fn change(balancer: &mut Balancer, whole: &config::Config, turn: usize) {
    let supervisor = balancer.supervisor.as_mut().unwrap();
    match turn % 4 {
        0 => {
            let mut config = whole.clone();
            balancer::pool(&mut config).backends.truncate(2);
            supervisor.reload_with(Ok(config), Instant::now()).unwrap();
        }
        2 => drop(supervisor.reload_with(Ok(whole.clone()), Instant::now()).unwrap()),
        odd => {
            let snapshot = supervisor.plane.snapshot.load();
            let backend = &snapshot.pools["main"].backends[0];
            let state = if odd == 1 { BackendState::Down } else { BackendState::Up };
            backend.set_state(state, "by the test", Instant::now(), SystemTime::now());
        }
    }
}

#[test]
fn every_algorithm_serves_flows() {
    use config::Balance::*;
    for balance in [
        ConsistentHash,
        FirstAvailable,
        IpHash,
        LeastConnections,
        LeastLatency,
        Random,
        RoundRobin,
        TwoChoices,
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let sockets = [0; 3].map(|_| socket("127.0.0.1:0"));
        let mut config = config(&[&sockets[0], &sockets[1], &sockets[2]]);
        balancer::pool(&mut config).balance = balance;
        let servers = sockets.map(|it| echo(it, Arc::clone(&stop)));
        let balancer = Balancer::start(config);
        let clients: Vec<UdpSocket> = (0..30).map(|_| client(&balancer)).collect();
        for (at, client) in clients.iter().enumerate() {
            client.send(&[at as u8]).unwrap();
            assert_eq!(crate::udp::receive(client).0, [at as u8], "{balance:?}");
        }
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let active = snapshot.pools["main"].backends.iter();
        let active: Vec<u32> = active.map(|it| it.live.slot.hot().in_flight()).collect();
        assert_eq!(active.iter().sum::<u32>(), 30, "{balance:?}: {active:?}");
        match balance {
            LeastConnections | RoundRobin => assert_eq!(active, [10, 10, 10], "{balance:?}"),
            // One address, whatever the port.
            ConsistentHash | IpHash => assert!(active.contains(&30), "{balance:?}: {active:?}"),
            FirstAvailable => assert_eq!(active, [30, 0, 0]),
            LeastLatency | Random | TwoChoices => {
                assert!(active.iter().all(|it| *it < 30), "{balance:?}: {active:?}");
            }
        }
        stop.store(true, Relaxed);
        servers.into_iter().for_each(|server| server.join().unwrap());
    }
}
