//! The relay, one ending and one time at a time. `oracle` has their mixtures.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use maitred::border::record::{CloseReason, Stage};
use maitred::config::RelayMode;
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, loopback};

/// A balancer over one backend, a client through it, and the backend's end of that session.
fn session(change: impl FnOnce(&mut maitred::config::Config)) -> (Balancer, TcpStream, TcpStream) {
    let (backend, address) = loopback();
    let mut config = balancer::config(&[address]);
    change(&mut config);
    let balancer = Balancer::start(config);
    let client = TcpStream::connect(balancer.address()).unwrap();
    let (server, _) = backend.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (balancer, client, server)
}

fn read_end(stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.kind())
}

#[test]
fn a_byte_goes_through_and_comes_back() {
    let (balancer, mut client, mut server) = session(|_| {});
    let mut bytes = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut bytes).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
    drop(client);
    drop(server);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.stage, record.reason), (Stage::Relay, CloseReason::ClientClosed));
    assert_eq!((record.bytes.client_received, record.bytes.client_sent), (4, 4));
    assert_eq!((record.bytes.backend_received, record.bytes.backend_sent), (4, 4));
    assert!(record.connect.is_some() && record.first_byte.is_some());
}

#[test]
fn a_backend_that_closes_first_is_named() {
    let (balancer, mut client, server) = session(|_| {});
    drop(server);
    assert_eq!(read_end(&mut client), Ok(vec![]));
    drop(client);
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendClosed));
}

#[test]
fn idle_cuts_a_silent_session_with_a_reset_on_both_sides() {
    let (balancer, mut client, mut server) = session(|config| {
        balancer::listener(config).timeouts.idle = Some(Duration::from_millis(300));
    });
    // Bytes put it off.
    for _ in 0..4 {
        // Half of the limit.
        std::thread::sleep(Duration::from_millis(150));
        client.write_all(b".").unwrap();
        server.read_exact(&mut [0]).unwrap();
    }
    let quiet = Instant::now();
    assert_eq!(read_end(&mut client), Err(ErrorKind::ConnectionReset));
    assert!(quiet.elapsed() >= Duration::from_millis(250), "not before its time");
    assert_eq!(read_end(&mut server), Err(ErrorKind::ConnectionReset));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::Idle));
}

#[test]
fn a_half_closed_session_ends_at_its_time_unless_bytes_flow() {
    let (balancer, mut client, mut server) = session(|config| {
        balancer::listener(config).timeouts.half_closed = Some(Duration::from_millis(400));
    });
    // An open session is none of its business, for longer than the limit.
    std::thread::sleep(Duration::from_millis(600));
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(&mut server.try_clone().unwrap()), Ok(vec![]));
    for _ in 0..5 {
        // Less than the limit, and more than it in all.
        std::thread::sleep(Duration::from_millis(200));
        server.write_all(b".").unwrap();
        client.read_exact(&mut [0]).unwrap();
    }
    assert_eq!(read_end(&mut client), Err(ErrorKind::ConnectionReset));
    // The backend's FIN was read before; what it sees now is that its socket is dead.
    crate::balancer::wait_for("the backend's socket to die", || server.write_all(b".").is_err());
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::HalfClosedTimeout));
}

#[test]
fn a_lifetime_ends_a_busy_session() {
    let (balancer, mut client, mut server) = session(|config| {
        balancer::listener(config).timeouts.max_lifetime = Some(Duration::from_millis(400));
    });
    let start = Instant::now();
    let ended = loop {
        if client.write_all(b".").is_err() || server.read_exact(&mut [0]).is_err() {
            break start.elapsed();
        }
        // A steady trickle.
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended >= Duration::from_millis(350), "not before its time: {ended:?}");
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::Lifetime));
}

/// The backend answers and resets with the client's bytes unread: the answer arrives whole, then the reset.
#[test]
fn an_answer_before_a_reset_arrives_whole() {
    for relay in [RelayMode::Copy, RelayMode::Splice] {
        let (balancer, mut client, mut server) =
            session(|config| balancer::listener(config).relay = relay);
        let answer = vec![7; 300_000];
        client.write_all(b"request").unwrap();
        let mut reader = client.try_clone().unwrap();
        let got = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let end = reader.read_to_end(&mut bytes);
            (bytes.len(), end.map_err(|error| error.kind()))
        });
        server.write_all(&answer).unwrap();
        // Nothing was read of the request: closing resets.
        crate::balancer::wait_for("the answer to leave", || {
            maitred::sys::socket::unsent_bytes(&server).unwrap() == 0
        });
        drop(server);
        let (length, end) = got.join().unwrap();
        assert_eq!((length, end), (answer.len(), Err(ErrorKind::ConnectionReset)), "{relay:?}");
        assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendReset));
    }
}

#[test]
fn a_reset_by_the_client_reaches_an_idle_backend() {
    let (balancer, client, mut server) = session(|_| {});
    reset_on_close(&client);
    drop(client);
    assert_eq!(read_end(&mut server), Err(ErrorKind::ConnectionReset));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientReset));
}

/// Many one-byte segments fill a pipe's slots long before its bytes: splice must not take that for a dry source.
#[test]
fn a_hundred_thousand_one_byte_segments_pass_a_paused_reader() {
    const COUNT: usize = 100_000;
    let (_balancer, mut client, mut server) =
        session(|config| balancer::listener(config).relay = RelayMode::Splice);
    client.set_nodelay(true).unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..COUNT {
            client.write_all(&[number as u8]).unwrap();
        }
        client
    });
    // Paused: everything on the way fills up first.
    std::thread::sleep(Duration::from_millis(300));
    let mut bytes = vec![0; COUNT];
    server.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().enumerate().all(|(number, byte)| *byte == number as u8));
    drop(writer.join().unwrap());
}

/// Back-pressure: who sends to a reader that does not read is stopped, and goes on when it reads.
#[test]
fn a_slow_reader_stops_the_sender() {
    for relay in [RelayMode::Copy, RelayMode::Splice, RelayMode::Auto] {
        let (_balancer, mut client, mut server) = session(|config| {
            let listener = balancer::listener(config);
            listener.relay = relay;
            listener.socket_buffers =
                Some(maitred::config::SocketBuffers { client: 65_536, backend: 65_536 });
        });
        server.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let chunk = vec![1; 65_536];
        let mut sent = 0;
        while let Ok(count) = server.write(&chunk) {
            sent += count;
            assert!(sent < 32 * 1024 * 1024, "nobody stopped the sender ({relay:?})");
        }
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_end(&mut client).map(|bytes| bytes.len()), Ok(sent), "{relay:?}");
    }
}

/// An urgent byte left unread would turn the FIN of our close into a reset.
#[test]
fn an_urgent_byte_before_the_end_leaves_both_ends_clean() {
    for relay in [RelayMode::Copy, RelayMode::Splice] {
        let (balancer, mut client, mut server) =
            session(|config| balancer::listener(config).relay = relay);
        server.write_all(b"answer").unwrap();
        socket2::SockRef::from(&server).send_out_of_band(b"!").unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_end(&mut client).as_deref(), Ok(&b"answer"[..]), "{relay:?}");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_end(&mut server).as_deref(), Ok(&b""[..]), "{relay:?}");
        assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendClosed));
    }
}

/// Urgent data is no part of what is relayed, but the bytes around it are: splice stops before the mark and then
/// says "end" with bytes still there.
#[test]
fn bytes_after_a_mark_of_urgent_data_are_not_cut_off() {
    for relay in [RelayMode::Copy, RelayMode::Splice] {
        let (_balancer, mut client, mut server) =
            session(|config| balancer::listener(config).relay = relay);
        client.write_all(b"before").unwrap();
        socket2::SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.write_all(b"after").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let got = read_end(&mut server).unwrap();
        assert!(got.starts_with(b"before") && got.ends_with(b"after"), "{relay:?}: {got:?}");
    }
}
