//! Urgent data of TCP: it and all around it passes, also where all of it is there at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use maitred::border::record::CloseReason;
use maitred::config::RelayMode;

use crate::balancer::{self, Balancer, loopback, wait_for};

/// Enough to make a direction bulk.
const BULK: usize = 8 << 20;

#[test]
fn bytes_around_a_mark_arrive_though_nothing_follows() {
    for relay in [RelayMode::Copy, RelayMode::Splice, RelayMode::Auto] {
        for bulk in [0, BULK] {
            for to_backend in [true, false] {
                carry(relay, bulk, to_backend);
            }
        }
    }
}

/// The mark may be anywhere within a transfer, and the end right behind it.
#[test]
fn a_mark_amid_bulk_is_not_passed_over() {
    for relay in [RelayMode::Splice, RelayMode::Auto] {
        let (listener, address) = loopback();
        let mut config = balancer::config(&[address]);
        balancer::listener(&mut config).relay = relay;
        let balancer = Balancer::start(config);
        for round in 0..40 {
            let mut from = TcpStream::connect(balancer.address()).unwrap();
            let mut to = listener.accept().unwrap().0;
            socket2::SockRef::from(&to).set_out_of_band_inline(true).unwrap();
            to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let sender = std::thread::spawn(move || {
                from.write_all(&vec![b'.'; 400_000]).unwrap();
                socket2::SockRef::from(&from).send_out_of_band(b"!").unwrap();
                from.write_all(&vec![b','; 30_000 * (round % 4)]).unwrap();
            });
            let mut seen = Vec::new();
            to.read_to_end(&mut seen).unwrap();
            sender.join().unwrap();
            let at = seen.iter().position(|byte| *byte == b'!');
            assert_eq!(
                (at, seen.len()),
                (Some(400_000), 400_001 + 30_000 * (round % 4)),
                "{relay:?}"
            );
        }
        balancer.endings(40);
    }
}

fn carry(relay: RelayMode, bulk: usize, to_backend: bool) {
    let (listener, address) = loopback();
    let mut config = balancer::config(&[address]);
    balancer::listener(&mut config).relay = relay;
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(balancer.address()).unwrap();
    let server = listener.accept().unwrap().0;
    let (mut from, mut to) = if to_backend { (client, server) } else { (server, client) };
    to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    from.set_nodelay(true).unwrap();
    let reader = std::thread::spawn(move || {
        let mut seen = vec![0; bulk];
        to.read_exact(&mut seen).unwrap();
        (to, seen)
    });
    from.write_all(&vec![b'.'; bulk]).unwrap();
    let (mut to, _) = reader.join().unwrap();
    // Whether they meet in one read is up to the machine; it mostly does in one of these.
    for round in 0..50_u8 {
        from.write_all(b"abc").unwrap();
        socket2::SockRef::from(&from).send_out_of_band(&[round]).unwrap();
        from.write_all(b"def").unwrap();
        let mut seen = [0; 3];
        to.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"abc", "{relay:?}, bulk {bulk}, round {round}");
        wait_for("the urgent byte, which is urgent still", || {
            let mut urgent = [std::mem::MaybeUninit::uninit()];
            matches!(socket2::SockRef::from(&to).recv_out_of_band(&mut urgent), Ok(1))
        });
        to.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"def", "{relay:?}, bulk {bulk}, round {round}");
    }
    drop(from);
    assert_eq!(to.read(&mut [0]).unwrap(), 0, "a clean end");
    drop(to);
    let expected = if to_backend { CloseReason::ClientClosed } else { CloseReason::BackendClosed };
    assert_eq!(balancer.endings(1)[0].reason, expected);
}
