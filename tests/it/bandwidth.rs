//! `limits.bandwidth`: never more than it says, at any moment, each way by itself, and not a byte of it lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use maitred::border::record::CloseReason;
use maitred::config::{Bandwidth, RelayMode};

use crate::balancer::{self, Balancer, loopback};

const LIMIT: u64 = 8 << 20;
const TOTAL: usize = 2 << 20;

/// Byte `position` of what is sent.
fn byte(position: usize) -> u8 {
    (position % 251) as u8
}

/// Sends from one end to the other of a session of which one direction is limited.
fn carry(relay: RelayMode, limited: bool, to_client: bool) -> Balancer {
    let (server, address) = loopback();
    let mut config = balancer::config(&[address]);
    let listener = balancer::listener(&mut config);
    listener.relay = relay;
    let limit = limited.then_some(LIMIT);
    listener.limits.bandwidth = match to_client {
        true => Some(Bandwidth { to_client: limit, to_backend: None }),
        false => Some(Bandwidth { to_client: None, to_backend: limit }),
    };
    let balancer = Balancer::start(config);
    let begun = Instant::now();
    let client = TcpStream::connect(balancer.address()).unwrap();
    let (backend, _) = server.accept().unwrap();
    let (mut from, mut to) = if to_client { (backend, client) } else { (client, backend) };
    let sender = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..TOTAL).map(byte).collect();
        from.write_all(&bytes).unwrap();
        from.shutdown(Shutdown::Write).unwrap();
        assert_eq!(from.read(&mut [0]).unwrap(), 0);
    });
    let (mut seen, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        let count = to.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().enumerate().all(|(at, it)| *it == byte(seen + at)));
        seen += count;
        // The clock began before the session did, so this holds however slow the machine is.
        let allowed = LIMIT as f64 * (0.1 + begun.elapsed().as_secs_f64());
        assert!(!limited || seen as f64 <= allowed, "{seen} bytes where {allowed} are allowed");
    }
    assert_eq!(seen, TOTAL);
    drop(to);
    sender.join().unwrap();
    balancer
}

#[test]
fn never_more_than_it_says() {
    for relay in [RelayMode::Auto, RelayMode::Copy, RelayMode::Splice] {
        for to_client in [true, false] {
            let balancer = carry(relay, true, to_client);
            let ended = balancer.endings(1)[0].reason;
            let expected =
                if to_client { CloseReason::BackendClosed } else { CloseReason::ClientClosed };
            assert_eq!(ended, expected);
        }
    }
}

#[test]
fn splice_stays_on() {
    let balancer = carry(RelayMode::Auto, true, true);
    let spliced: u64 =
        balancer.supervisor().plane.workers.iter().map(|it| it.spliced_bytes.value()).sum();
    assert!(spliced > TOTAL as u64 / 2, "{spliced} bytes went through a pipe");
}

/// While its bytes wait for their turn, an ending of the other side is not missed.
#[test]
fn a_client_that_leaves_is_seen_while_it_is_held_back() {
    let (server, address) = loopback();
    let mut config = balancer::config(&[address]);
    let limits = &mut balancer::listener(&mut config).limits;
    limits.bandwidth = Some(Bandwidth { to_client: Some(1024), to_backend: None });
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let (mut backend, _) = server.accept().unwrap();
    backend.write_all(&[7; 64 << 10]).unwrap();
    client.read_exact(&mut [0]).unwrap();
    maitred::sys::socket::reset_on_close(&client);
    drop(client);
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::ClientReset);
}
