//! Probes by datagram, against real sockets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::Duration;

use maitred::config::{self, DnsRecord, Expect, Health, Probe};
use maitred::control::health::probe::facts::Judge;
use maitred::control::health::probe::{Kept, Prober};
use maitred::data::pool::fitness::{Outcome, ProbeResult};

/// Long enough for any machine to answer, short enough to wait for where nobody does.
const TIMEOUT: Duration = Duration::from_millis(500);

fn run(probe: Probe, source: &[IpAddr], address: SocketAddr, timeout: Duration) -> Outcome {
    let health = Health { probe, timeout, ..config::Pool::default().health };
    let source = source.iter().map(|ip| (*ip).into()).collect();
    let pool = config::Pool { health, source, ..config::Pool::default() };
    let prober = Prober::new(&pool).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (found, _) = runtime.block_on(prober.probe(&address.into(), &Kept::default()));
    Judge::new(&pool.health).outcome(&found)
}

/// A server that answers the first datagram with each of `replies`, which may look at it. The thread ends with the
/// test's process, if nobody ever asks.
fn server(replies: impl FnOnce(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Server {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (asked, clients) = mpsc::channel();
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        let (length, client) = socket.recv_from(&mut datagram).unwrap();
        let _ = asked.send((client, datagram[..length].to_vec()));
        for reply in replies(&datagram[..length]) {
            socket.send_to(&reply, client).unwrap();
        }
        // Held open, so that nothing later is refused.
        std::thread::park();
    });
    Server { address, clients }
}

struct Server {
    address: SocketAddr,
    clients: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
}

fn on(server: &Server, probe: Probe) -> Outcome {
    run(probe, &[], server.address, TIMEOUT)
}

/// An address that nobody listens on: it was bound a moment ago, and is not now.
fn nobody() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn ping(expect: Option<Expect>) -> Probe {
    Probe::Udp(config::UdpProbe { send: Some(b"ping".to_vec()), expect })
}

fn pong() -> Option<Expect> {
    Some(Expect::Bytes(b"pong".to_vec()))
}

fn assert_outcome(outcome: &Outcome, result: ProbeResult, detail: Option<&str>) {
    assert_eq!((outcome.result, outcome.detail.as_deref()), (result, detail), "{outcome}");
}

#[test]
fn the_expected_reply_passes_also_as_a_later_datagram() {
    let server = server(|_| vec![b"busy".to_vec(), Vec::new(), b"+pong!".to_vec()]);
    assert_outcome(&on(&server, ping(pong())), ProbeResult::Passed, None);
    assert_eq!(server.clients.recv().unwrap().1, b"ping");
}

#[test]
fn a_probe_says_that_it_is_of_our_own_where_sessions_name_their_client() {
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let dns = Probe::Dns(config::DnsProbe { name: "example.com".to_owned(), record: DnsRecord::A });
    for (probe, port, is_headed) in
        [(ping(pong()), None, true), (dns, None, true), (ping(pong()), Some(9), false)]
    {
        let server = server(|_| vec![b"pong".to_vec()]);
        let health = Health { probe, port, timeout: TIMEOUT, ..config::Pool::default().health };
        let send_proxy_protocol = Some(config::ProxyVersion::V2);
        let pool = config::Pool { health, send_proxy_protocol, ..config::Pool::default() };
        let prober = Prober::new(&pool).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(prober.probe(&server.address.into(), &Kept::default()));
        let sent = server.clients.recv().unwrap().1;
        assert_eq!(sent.starts_with(local), is_headed, "{sent:?}");
    }
}

#[test]
fn a_pattern_is_looked_for_in_each_datagram_alone() {
    let server = server(|_| vec![b"po".to_vec(), b"ng".to_vec()]);
    let outcome = on(&server, ping(Some(Expect::Regex("^po?ng".into()))));
    assert_outcome(
        &outcome,
        ProbeResult::Mismatch,
        Some(r#"not the expected reply; it said "ng""#),
    );
}

#[test]
fn another_reply_is_a_mismatch_and_none_a_timeout() {
    let other = server(|_| vec![b"nonsense".to_vec()]);
    let outcome = on(&other, ping(pong()));
    assert_outcome(
        &outcome,
        ProbeResult::Mismatch,
        Some(r#"not the expected reply; it said "nonsense""#),
    );
    let silent = server(|_| Vec::new());
    let outcome = on(&silent, ping(pong()));
    assert_outcome(&outcome, ProbeResult::Timeout, None);
    assert!(outcome.took >= TIMEOUT, "{outcome}");
}

#[test]
fn where_nobody_listens_every_probe_is_refused_at_once() {
    let dns = Probe::Dns(config::DnsProbe { name: "example.com".into(), record: DnsRecord::A });
    for probe in [ping(pong()), ping(None), dns] {
        let outcome = run(probe, &[], nobody(), Duration::from_secs(10));
        assert_outcome(&outcome, ProbeResult::Refused, None);
        assert!(outcome.took < Duration::from_secs(5), "{outcome}");
    }
}

#[test]
fn without_expectation_silence_passes_after_a_while_and_an_answer_at_once() {
    let silent = server(|_| Vec::new());
    let outcome = run(ping(None), &[], silent.address, Duration::from_secs(10));
    assert_outcome(&outcome, ProbeResult::Passed, None);
    assert!(outcome.took >= Duration::from_millis(250), "{outcome}");
    assert!(outcome.took < Duration::from_secs(5), "{outcome}");
    assert_eq!(silent.clients.recv().unwrap().1, b"ping");

    // A timeout that is shorter ends the wait, and is no failure.
    let silent = server(|_| Vec::new());
    let outcome = run(ping(None), &[], silent.address, Duration::from_millis(50));
    assert_outcome(&outcome, ProbeResult::Passed, None);

    // On a busy machine even an answer may take that long, but hardly five times.
    let at_once = (0..5).any(|_| {
        let answering = server(|_| vec![Vec::new()]);
        let outcome = run(ping(None), &[], answering.address, Duration::from_secs(10));
        outcome.took < Duration::from_millis(250)
    });
    assert!(at_once);
}

#[test]
fn a_host_that_cannot_be_reached_is_unreachable() {
    // Broadcasts have to be asked for, so the kernel refuses this one.
    let outcome = run(ping(None), &[], "255.255.255.255:9".parse().unwrap(), TIMEOUT);
    assert_outcome(&outcome, ProbeResult::Unreachable, None);
}

#[test]
fn datagrams_come_from_the_pools_source() {
    let server = server(|_| vec![b"pong".to_vec()]);
    let source = ["::1".parse().unwrap(), "127.0.0.9".parse().unwrap()];
    let outcome = run(ping(pong()), &source, server.address, TIMEOUT);
    assert_outcome(&outcome, ProbeResult::Passed, None);
    assert_eq!(server.clients.recv().unwrap().0.ip().to_string(), "127.0.0.9");

    let outcome = run(ping(pong()), &["192.0.2.1".parse().unwrap()], server.address, TIMEOUT);
    assert_eq!(outcome.result, ProbeResult::LocalError, "{outcome}");
}

/// A server's reply: the query itself with other flags.
fn dns_reply(query: &[u8], code: u8) -> Vec<u8> {
    let mut reply = query.to_vec();
    reply[2] |= 0x80;
    reply[3] = 0x80 | code;
    reply
}

fn ask(replies: impl FnOnce(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Outcome {
    on(
        &server(replies),
        Probe::Dns(config::DnsProbe { name: "example.com".into(), record: DnsRecord::A }),
    )
}

#[test]
fn a_server_that_answers_passes_whether_there_is_such_a_name_or_not() {
    for code in [0, 3] {
        let outcome = ask(move |query| vec![dns_reply(query, code)]);
        assert_outcome(&outcome, ProbeResult::Passed, None);
    }
}

#[test]
fn a_server_that_cannot_resolve_does_not_pass() {
    for (code, name) in [(2, "SERVFAIL"), (5, "REFUSED")] {
        let outcome = ask(move |query| vec![dns_reply(query, code)]);
        assert_outcome(&outcome, ProbeResult::Mismatch, Some(name));
    }
}

#[test]
fn answers_to_other_queries_are_passed_over() {
    let with_another_id = |query: &[u8]| {
        let mut reply = dns_reply(query, 2);
        reply[0] ^= 0xff;
        reply
    };
    let outcome = ask(move |query| vec![with_another_id(query), dns_reply(query, 0)]);
    assert_outcome(&outcome, ProbeResult::Passed, None);
    // The query itself, sent back, is none either.
    let outcome = ask(move |query| vec![with_another_id(query), query.to_vec(), Vec::new()]);
    assert_outcome(&outcome, ProbeResult::Mismatch, Some("not the expected reply"));
}

#[test]
fn each_query_has_an_id_of_its_own() {
    let ids: std::collections::BTreeSet<Vec<u8>> = (0..8)
        .map(|_| {
            let server = server(|query| vec![dns_reply(query, 0)]);
            on(&server, Probe::Dns(config::DnsProbe { name: ".".into(), record: DnsRecord::Ns }));
            server.clients.recv().unwrap().1[..2].to_vec()
        })
        .collect();
    assert!(ids.len() > 1);
}
