//! A reader that is slow but steady: what the kernel still delivers to it is a sign of life, and is not thrown away.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use maitred::border::record::CloseReason;
use maitred::config::Config;
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, loopback};

const LIMIT: Duration = Duration::from_millis(400);

/// Fits into what the kernel holds between the two, so that nothing of it is left with the balancer.
const BYTES: usize = 400_000;

/// A backend that said everything, and a client that has not read any of it.
fn full(change: impl FnOnce(&mut Config)) -> (Balancer, TcpStream, TcpStream) {
    let (listener, address) = loopback();
    let mut config = balancer::config(&[address]);
    change(&mut config);
    let balancer = Balancer::start(config);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(8 * 1024).unwrap();
    client.connect(&balancer.address().into()).unwrap();
    let mut server = listener.accept().unwrap().0;
    server.write_all(&vec![b'd'; BYTES]).unwrap();
    (balancer, client.into(), server)
}

/// Reads for several times the limit, never silent for longer than a part of it.
fn read_slowly(client: &mut TcpStream) -> std::io::Result<usize> {
    let mut seen = 0;
    let mut buffer = vec![0; BYTES / 40];
    loop {
        // The pace is what the test is about: forty of these are four limits.
        std::thread::sleep(LIMIT / 10);
        match client.read(&mut buffer)? {
            0 => return Ok(seen),
            count => seen += count,
        }
    }
}

#[test]
fn is_served_to_the_end_after_its_backend_closed() {
    let (balancer, mut client, server) = full(|config| {
        balancer::listener(config).timeouts.half_closed = Some(LIMIT);
    });
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_slowly(&mut client).unwrap(), BYTES);
    drop((client, server));
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::BackendClosed);
}

#[test]
fn is_not_idle() {
    let (balancer, mut client, server) = full(|config| {
        balancer::listener(config).timeouts.idle = Some(LIMIT);
    });
    let reader = std::thread::spawn(move || read_slowly(&mut client));
    // Nothing more comes: what the client reads is all that happens. Then it is idle, and cut.
    assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.reason, record.bytes.client_sent), (CloseReason::Idle, BYTES as u64));
    assert!(record.duration > LIMIT * 4, "it read for so long: {:?}", record.duration);
    drop(server);
}

/// One that reads nothing at all acknowledges nothing beyond its window.
#[test]
fn is_cut_after_the_user_timeout_if_it_reads_nothing() {
    let (balancer, client, server) = full(|config| {
        balancer::listener(config).timeouts.client_user_timeout = Some(LIMIT);
    });
    let record = &balancer.endings(1)[0];
    assert_eq!(record.reason, CloseReason::ClientVanished);
    assert!(record.duration >= LIMIT, "not before: {:?}", record.duration);
    drop((client, server));
}

#[test]
fn gets_all_before_a_reset_is_carried_on() {
    let (balancer, mut client, server) = full(|config| {
        balancer::listener(config).timeouts.half_closed = Some(LIMIT);
    });
    balancer::wait_for("all of it to be with the kernel", || {
        let counters = balancer.supervisor().plane.snapshot.load();
        let listener = counters.listeners.values().next().unwrap();
        listener.live.counters.sum(|it| it.sent_bytes.value()) == BYTES as u64
    });
    reset_on_close(&server);
    drop(server);
    let (mut seen, mut buffer) = (0, vec![0; BYTES / 40]);
    let end = loop {
        // As above.
        std::thread::sleep(LIMIT / 10);
        match client.read(&mut buffer) {
            Ok(0) => panic!("a reset is no clean end"),
            Ok(count) => seen += count,
            Err(error) => break error,
        }
    };
    assert_eq!((seen, end.kind()), (BYTES, ErrorKind::ConnectionReset));
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::BackendReset);
}

#[test]
fn who_reads_nothing_at_all_is_cut_all_the_same() {
    for half_closed in [true, false] {
        let (balancer, client, server) = full(|config| {
            let timeouts = &mut balancer::listener(config).timeouts;
            timeouts.half_closed = Some(LIMIT);
            timeouts.idle = (!half_closed).then_some(LIMIT);
        });
        if half_closed {
            server.shutdown(Shutdown::Write).unwrap();
        }
        let reason = balancer.endings(1)[0].reason;
        let expected = if half_closed { CloseReason::HalfClosedTimeout } else { CloseReason::Idle };
        assert_eq!(reason, expected);
        drop((client, server));
    }
}
