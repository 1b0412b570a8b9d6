//! How a probe takes leave: servers see the end of a connection, never one that broke.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use maitred::config::{self, Expect, Probe, StatusRange};
use maitred::control::health::probe::facts::Judge;
use maitred::control::health::probe::{Kept, Prober};
use maitred::data::pool::fitness::ProbeResult;

use crate::balancer;

/// A server that says this to each client who has said something, if it waits for that, perhaps closes its side, and tells
/// how the connection ended.
fn server(waits: bool, says: Vec<u8>, closes: bool) -> (std::net::SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (told, ends) = channel();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut heard = [0; 1024];
        if waits {
            assert!(stream.read(&mut heard).unwrap() > 0);
        }
        stream.write_all(&says).unwrap();
        if closes {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        let end = loop {
            match stream.read(&mut heard) {
                Ok(0) => break "closed".to_owned(),
                Ok(_) => {}
                Err(error) => break error.kind().to_string(),
            }
        };
        told.send(end).unwrap();
    });
    (address, ends)
}

/// How one probe ended, and how its server saw it end.
fn probe(
    probe: Probe,
    interval: Duration,
    (address, ends): (std::net::SocketAddr, Receiver<String>),
) -> (ProbeResult, String) {
    let mut config = balancer::config(&[address]);
    let pool = balancer::pool(&mut config);
    pool.health = config::Health { probe, interval, ..config::Pool::default().health };
    let prober = Prober::new(pool).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async {
        let (found, parting) = prober.probe(&address.into(), &Kept::default()).await;
        parting.over().await;
        Judge::new(&pool.health).outcome(&found).result
    });
    (result, ends.recv_timeout(Duration::from_secs(20)).unwrap())
}

const USUAL: Duration = Duration::from_secs(2);

fn ping(expect: &str) -> Probe {
    let expect = Some(Expect::Bytes(expect.as_bytes().to_vec()));
    Probe::Exchange(config::Exchange { send: Some(b"PING\n".to_vec()), expect, standby: None })
}

#[test]
fn a_server_sees_its_probe_close_whatever_is_left_to_say() {
    let long = || [b"+PONG".as_slice(), &[b'x'; 100_000]].concat();
    let closed = "closed".to_owned();
    for (method, server, result) in [
        (Probe::Tcp, server(false, Vec::new(), false), ProbeResult::Passed),
        (Probe::Tcp, server(false, b"greetings".to_vec(), false), ProbeResult::Passed),
        (ping("PONG"), server(true, long(), false), ProbeResult::Passed),
        (ping("PONG"), server(true, b"+PONG".to_vec(), true), ProbeResult::Passed),
        (ping("PONG"), server(true, b"-ERR".to_vec(), true), ProbeResult::Mismatch),
    ] {
        assert_eq!(probe(method, USUAL, server), (result, closed.clone()));
    }
}

#[test]
fn an_http_server_may_close_first_and_is_not_reset_for_a_body() {
    let page = || [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; 100_000]].concat();
    let http = || {
        Probe::Http(config::Http {
            path: "/".into(),
            host: None,
            status: vec![StatusRange { first: 200, last: 200 }],
            standby: Vec::new(),
        })
    };
    for closes in [true, false] {
        let (result, end) = probe(http(), USUAL, server(true, page(), closes));
        assert_eq!((result, &*end), (ProbeResult::Passed, "closed"));
    }
}

#[test]
fn probes_that_would_keep_too_many_ports_reset() {
    let (result, end) =
        probe(Probe::Tcp, Duration::from_millis(50), server(false, Vec::new(), false));
    assert_eq!((result, &*end), (ProbeResult::Passed, "connection reset"));
}
