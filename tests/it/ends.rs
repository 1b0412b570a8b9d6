//! Which end a session is recorded with where both sides had one: the first counts, and a reset in answer to a FIN is that
//! FIN's end unless something was lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use maitred::border::record::{CloseReason, Record};
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, loopback, wait_for};

fn session() -> (Balancer, TcpStream, TcpStream) {
    let (backend, address) = loopback();
    let balancer = Balancer::start(balancer::config(&[address]));
    let client = TcpStream::connect(balancer.address()).unwrap();
    let server = backend.accept().unwrap().0;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    }
    (balancer, client, server)
}

/// As libpq and PostgreSQL in TLS end: the last record comes with the FIN, and whoever gets them closes without reading it.
fn close_with_something_unread(mut first: TcpStream, mut second: TcpStream) {
    first.write_all(b"terminate, and a goodbye in TLS").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    let mut seen = [0; 9];
    second.read_exact(&mut seen).unwrap();
    wait_for("the FIN behind the rest", || {
        matches!(
            maitred::sys::socket::peek(&second),
            maitred::sys::socket::Peeked::Bytes { fin: true }
        )
    });
    drop(second);
    drop(first);
}

#[test]
fn a_backend_that_closes_with_the_clients_goodbye_unread_did_not_fail() {
    let (balancer, client, server) = session();
    close_with_something_unread(client, server);
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::ClientClosed);
}

#[test]
fn nor_did_a_client_that_does_so_to_its_backend() {
    let (balancer, client, server) = session();
    close_with_something_unread(server, client);
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::BackendClosed);
}

/// What a server that closed answers to whatever still comes.
#[test]
fn who_ended_before_and_resets_what_still_comes_ended() {
    let (balancer, mut client, server) = session();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    wait_for("the reset that comes back", || {
        client.write_all(b"more").is_err() || !balancer.records.lock().unwrap().is_empty()
    });
    drop(client);
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::BackendClosed);
}

fn reset(stream: TcpStream) {
    reset_on_close(&stream);
    drop(stream);
}

/// libpq and PostgreSQL in TLS say goodbye at the same time, and each may close before it has read the other's.
#[test]
fn two_who_reset_each_other_at_the_end_of_tls_did_not_fail() {
    use CloseReason::{BackendClosed, BackendReset, ClientClosed, ClientReset};
    let tls = maitred::data::wire::postgres::TLS_REQUEST;
    for (words, expected) in
        [(&tls[..], [ClientClosed, BackendClosed]), (b"no TLS..", [ClientReset, BackendReset])]
    {
        let (balancer, mut client, mut server) = session();
        client.write_all(words).unwrap();
        server.read_exact(&mut [0; 8]).unwrap();
        reset(client);
        reset(server);
        let reason = balancer.endings(1)[0].reason;
        assert!(expected.contains(&reason), "{reason:?}");
    }
}

#[test]
fn a_reset_that_lost_bytes_stays_one() {
    let (balancer, mut client, server) = session();
    // More than the backend's kernel takes, and nobody reads.
    client.set_nonblocking(true).unwrap();
    let chunk = vec![0; 1 << 20];
    wait_for("everything to be full", || client.write(&chunk).is_err());
    client.shutdown(Shutdown::Write).unwrap();
    reset(server);
    assert_eq!(balancer.endings(1)[0].reason, CloseReason::BackendReset);
}

#[test]
fn the_other_side_sees_the_reset_all_the_same() {
    let (balancer, mut client, mut server) = session();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut seen = Vec::new();
    server.read_to_end(&mut seen).unwrap();
    server.write_all(b"half an ans").unwrap();
    let mut start = [0; 4];
    client.read_exact(&mut start).unwrap();
    reset(server);
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset, "cut short is no clean end");
    let record: &Record = &balancer.endings(1)[0];
    assert_eq!(record.reason, CloseReason::ClientClosed);
}

#[test]
fn a_pause_within_what_a_client_asks_is_not_the_backends_time() {
    let (balancer, mut client, mut server) = session();
    let pause = Duration::from_secs(1);
    let mut seen = [0; 4];
    client.write_all(b"half").unwrap();
    server.read_exact(&mut seen).unwrap();
    // The client thinks.
    std::thread::sleep(pause);
    client.write_all(b"rest").unwrap();
    server.read_exact(&mut seen).unwrap();
    server.write_all(b"answer").unwrap();
    client.read_exact(&mut seen).unwrap();
    drop((client, server));
    let first_byte = balancer.endings(1)[0].first_byte.unwrap();
    assert!(first_byte < pause, "{first_byte:?} of which the client took {pause:?}");
}
