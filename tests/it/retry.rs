//! `connect.retry_until: first_byte`: a backend that ends before it says anything costs the client nothing, as long as
//! what the client sent is still there for another one; and every byte arrives exactly once at the one that serves.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use maitred::border::record::{CloseReason, Record, Stage};
use maitred::config::{self, Config, Passive, ProxyVersion, RetryUntil, WhenFull};
use maitred::data::pool::backend::BackendState;
use maitred::sys::socket::reset_on_close;
use rustls::{ClientConnection, ServerConnection, StreamOwned};

use crate::balancer::{self, Balancer, loopback, wait_for};
use crate::server::first_byte;
use crate::tls::{DIAL, Files, Goodbye, NAME};

/// Bytes of the client that are kept.
const MOST: usize = 16 * 1024;

/// What a backend does instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Odd {
    CloseAfter(usize),
    CloseAtOnce,
    ResetAfter(usize),
    ResetAtOnce,
    SayAndClose,
}

/// Both ends of both kinds.
trait Line: Read + Write + Goodbye + Send {
    fn socket(&self) -> &TcpStream;
}

impl Line for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Line for StreamOwned<ClientConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

impl Line for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

fn text(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * at / 7) as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn behave(mut line: Box<dyn Line>, odd: Odd) {
    match odd {
        Odd::CloseAtOnce => line.goodbye(),
        Odd::ResetAtOnce => reset_on_close(line.socket()),
        Odd::CloseAfter(count) => {
            line.read_exact(&mut vec![0; count]).unwrap();
            line.goodbye();
        }
        Odd::ResetAfter(count) => {
            line.read_exact(&mut vec![0; count]).unwrap();
            reset_on_close(line.socket());
        }
        Odd::SayAndClose => {
            line.write_all(b"!").unwrap();
            line.goodbye();
        }
    }
    if matches!(odd, Odd::CloseAtOnce | Odd::CloseAfter(_) | Odd::SayAndClose) {
        // A close with something unread would be a reset. Until the balancer has closed, too.
        let _ = std::io::copy(&mut line, &mut std::io::sink());
    }
}

/// Where TLS is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tls {
    door: bool,
    backends: bool,
}

const PLAIN: Tls = Tls { door: false, backends: false };

fn config(backends: &[SocketAddr]) -> Config {
    let mut config = balancer::config(backends);
    let pool = balancer::pool(&mut config);
    pool.balance = config::Balance::FirstAvailable;
    pool.connect.retry_until = RetryUntil::FirstByte;
    config
}

fn accept(files: &Files, listener: &TcpListener, tls: Tls) -> Box<dyn Line> {
    if !tls.backends {
        return Box::new(listener.accept().unwrap().0);
    }
    let mut line = files.accept(listener, "server");
    line.conn.complete_io(&mut line.sock).unwrap();
    Box::new(line)
}

fn odd_one(files: &Files, listener: TcpListener, tls: Tls, odd: Odd) -> JoinHandle<()> {
    let line = OddOne { files: files.clone(), listener, tls, odd };
    std::thread::spawn(move || behave(accept(&line.files, &line.listener, line.tls), line.odd))
}

struct OddOne {
    files: Files,
    listener: TcpListener,
    tls: Tls,
    odd: Odd,
}

/// Gets all of `expected`, and answers with a mebibyte.
fn good_one(
    files: &Files,
    listener: TcpListener,
    tls: Tls,
    expected: Vec<u8>,
    is_half_closed: bool,
) -> JoinHandle<()> {
    let files = files.clone();
    std::thread::spawn(move || {
        let mut line = accept(&files, &listener, tls);
        let mut got = vec![0; expected.len()];
        line.read_exact(&mut got).unwrap();
        assert!(got == expected, "not the bytes that were sent");
        if is_half_closed {
            assert_eq!(line.read(&mut [0]).unwrap(), 0, "then the client's end");
        }
        line.write_all(&text(9, 1 << 20)).unwrap();
        line.goodbye();
        let mut rest = Vec::new();
        line.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{} bytes came twice", rest.len());
    })
}

fn dial(files: &Files, balancer: &Balancer, tls: Tls) -> Box<dyn Line> {
    match tls.door {
        true => Box::new(files.dial(balancer.address(), DIAL)),
        false => Box::new(TcpStream::connect(balancer.address()).unwrap()),
    }
}

/// One client whose first backend is odd and whose second one serves.
fn served_by_the_other(files: &Files, odd: Odd, length: usize, tls: Tls, is_half_closed: bool) {
    println!("{odd:?}, {length} bytes, {tls:?}, half closed: {is_half_closed}");
    let [(first, a), (second, b)] = [loopback(), loopback()];
    let mut config = config(&[a, b]);
    if tls.door {
        balancer::listener(&mut config).tls = files.server(false, &[]);
    }
    if tls.backends {
        balancer::pool(&mut config).tls = files.client(Some(NAME));
    }
    let sent = text(5, length);
    let odd_one = odd_one(files, first, tls, odd);
    let good_one = good_one(files, second, tls, sent.clone(), is_half_closed);
    let balancer = Balancer::start(config);
    let mut client = dial(files, &balancer, tls);
    let (before, after) = sent.split_at(length / 3);
    client.write_all(before).unwrap();
    client.flush().unwrap();
    if length.is_multiple_of(2) {
        // So that the odd one may be gone before the rest: nobody tells.
        std::thread::sleep(Duration::from_millis(10));
    }
    client.write_all(after).unwrap();
    if is_half_closed {
        client.goodbye();
    }
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got == text(9, 1 << 20), "{} bytes came back", got.len());
    if !is_half_closed {
        client.goodbye();
    }
    drop(client);
    odd_one.join().unwrap();
    good_one.join().unwrap();
    let record = &balancer.endings(1)[0];
    let told = (record.stage, record.tried, record.backend.as_deref().unwrap().to_owned());
    assert_eq!(told, (Stage::Relay, 1, b.to_string()));
    let bytes = record.bytes;
    assert_eq!((bytes.client_received, bytes.backend_sent), (length as u64, length as u64));
    assert_eq!((bytes.backend_received, bytes.client_sent), (1 << 20, 1 << 20));
    assert_eq!(counts(&balancer), [(0, 1), (1, 0)]);
}

/// Of each backend: sessions, retries.
fn counts(balancer: &Balancer) -> Vec<(u64, u64)> {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let counts = snapshot.pools["main"].backends.iter().map(|backend| {
        let counters = &backend.live.counters;
        (counters.sum(|it| it.sessions.value()), counters.sum(|it| it.retries.value()))
    });
    counts.collect()
}

const KINDS: [Tls; 4] = [
    PLAIN,
    Tls { door: true, backends: false },
    Tls { door: false, backends: true },
    Tls { door: true, backends: true },
];

#[test]
fn another_backend_gets_every_byte_once() {
    let files = Files::new();
    for tls in KINDS {
        for is_half_closed in [false, true] {
            for (odd, length) in [
                (Odd::CloseAtOnce, 100),
                (Odd::CloseAtOnce, MOST),
                (Odd::ResetAtOnce, 101),
                (Odd::CloseAfter(1), 2),
                (Odd::CloseAfter(1), MOST),
                (Odd::ResetAfter(1), MOST - 1),
                (Odd::CloseAfter(MOST), MOST),
                (Odd::ResetAfter(MOST), MOST),
            ] {
                served_by_the_other(&files, odd, length, tls, is_half_closed);
            }
        }
    }
}

/// What the client says is more than is kept, or the backend has answered: its end is the session's.
#[test]
fn beyond_what_is_kept_and_after_the_first_byte_it_is_as_ever() {
    let files = Files::new();
    for tls in KINDS {
        for (odd, length, answer) in [
            (Odd::CloseAfter(MOST + 1), MOST + 1, &b""[..]),
            (Odd::ResetAfter(MOST + 1), MOST + 1, b""),
            (Odd::CloseAfter(1 << 20), 1 << 20, b""),
            (Odd::SayAndClose, 10, b"!"),
        ] {
            println!("{odd:?}, {length} bytes, {tls:?}");
            let [(first, a), (second, b)] = [loopback(), loopback()];
            let mut config = config(&[a, b]);
            if tls.door {
                balancer::listener(&mut config).tls = files.server(false, &[]);
            }
            if tls.backends {
                balancer::pool(&mut config).tls = files.client(Some(NAME));
            }
            let balancer = Balancer::start(config);
            let odd_one = odd_one(&files, first, tls, odd);
            let mut client = dial(&files, &balancer, tls);
            // A part of it may be too late.
            let _ = client.write_all(&text(1, length)).and_then(|()| client.flush());
            let mut got = Vec::new();
            let read = client.read_to_end(&mut got);
            let is_reset = matches!(odd, Odd::ResetAfter(_));
            assert_eq!(read.is_err(), is_reset, "{read:?}");
            assert_eq!(got, answer);
            client.goodbye_if_open();
            drop(client);
            odd_one.join().unwrap();
            let record = &balancer.endings(1)[0];
            let reason =
                if is_reset { CloseReason::BackendReset } else { CloseReason::BackendClosed };
            assert_eq!((record.stage, record.reason, record.tried), (Stage::Relay, reason, 0));
            assert_eq!(counts(&balancer), [(1, 0), (0, 0)]);
            second.set_nonblocking(true).unwrap();
            assert_eq!(second.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "not asked");
        }
    }
}

trait IfOpen {
    fn goodbye_if_open(&mut self);
}

impl IfOpen for Box<dyn Line> {
    fn goodbye_if_open(&mut self) {
        let _ = self.socket().shutdown(Shutdown::Write);
    }
}

/// Each backend ends each connection in this way, for ever.
fn all_odd(odd: Odd, count: usize) -> Vec<SocketAddr> {
    let one = |_| {
        let (listener, address) = loopback();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                behave(Box::new(stream), odd);
            }
        });
        address
    };
    (0..count).map(one).collect()
}

fn ask(balancer: &Balancer, question: &[u8]) -> (std::io::Result<usize>, TcpStream) {
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let _ = client.write_all(question);
    let read = client.read(&mut [0]);
    (read, client)
}

#[test]
fn if_all_end_the_client_gets_the_end_of_the_last() {
    for (odd, reason) in [
        (Odd::CloseAfter(3), CloseReason::BackendClosed),
        (Odd::ResetAfter(3), CloseReason::BackendReset),
    ] {
        for (backends, attempts, tried) in [(2, 3, 1), (3, 2, 1), (5, 4, 3), (1, 3, 0)] {
            let addresses = all_odd(odd, backends);
            let mut config = config(&addresses);
            balancer::pool(&mut config).connect.attempts = attempts;
            let balancer = Balancer::start(config);
            let (read, client) = ask(&balancer, b"ask");
            match reason {
                CloseReason::BackendClosed => assert_eq!(read.unwrap(), 0),
                _ => assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset),
            }
            drop(client);
            let record = &balancer.endings(1)[0];
            assert_eq!((record.stage, record.reason, record.tried), (Stage::Relay, reason, tried));
            let last = addresses[tried as usize].to_string();
            assert_eq!(record.backend.as_deref(), Some(&*last));
            assert_eq!(record.bytes.backend_sent, 3);
            let sessions: u64 = counts(&balancer).iter().map(|(sessions, _)| sessions).sum();
            assert_eq!(sessions, 1, "one session is one session");
        }
    }
}

#[test]
fn by_default_the_end_of_the_first_is_the_clients() {
    let addresses = all_odd(Odd::CloseAtOnce, 2);
    let mut config = config(&addresses);
    balancer::pool(&mut config).connect.retry_until = RetryUntil::Connected;
    let balancer = Balancer::start(config);
    let (read, client) = ask(&balancer, b"");
    assert_eq!(read.unwrap(), 0);
    drop(client);
    assert_eq!(balancer.endings(1)[0].tried, 0);
    assert_eq!(counts(&balancer), [(1, 0), (0, 0)]);
}

#[test]
fn who_refuses_afterwards_ends_it_as_a_refusal_and_a_third_serves() {
    let odd = all_odd(Odd::CloseAfter(1), 1)[0];
    let refusal = crate::server::Refusal::new();
    let server = crate::server::Server::start(crate::server::Conduct::Echo);
    let balancer = Balancer::start(config(&[odd, refusal.address]));
    let (read, _client) = ask(&balancer, b"x");
    assert_eq!(read.unwrap(), 0);
    let record = &balancer.endings(1)[0];
    assert_eq!((record.stage, record.tried), (Stage::Connect, 2));
    assert_eq!(record.reason, CloseReason::ConnectRefused);
    assert_eq!(record.bytes.client_received, 1);
    drop(balancer);
    let balancer = Balancer::start(config(&[odd, refusal.address, server.address]));
    let (read, client) = ask(&balancer, b"x");
    assert_eq!(read.unwrap(), 1);
    drop(client);
    assert_eq!(balancer.endings(1)[0].tried, 2);
    assert_eq!(counts(&balancer), [(0, 1), (0, 1), (1, 0)]);
}

/// Each attempt has its own header, TLS and source port, and gives back its slot.
#[test]
fn the_second_attempt_is_as_whole_as_the_first() {
    let [(first, a), (second, b)] = [loopback(), loopback()];
    let mut config = config(&[a, b]);
    let pool = balancer::pool(&mut config);
    pool.send_proxy_protocol = Some(ProxyVersion::V1);
    pool.source_ports = config::SourcePorts::Own;
    pool.when_full = WhenFull::Refuse;
    pool.backends.iter_mut().for_each(|backend| backend.max_sessions = Some(1));
    let balancer = Balancer::start(config);
    let ports = &balancer.supervisor().plane.source_ports.in_use;
    for round in 1..=20 {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        let header = format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            client.local_addr().unwrap().port(),
            balancer.address().port()
        );
        client.write_all(b"question").unwrap();
        let expected = [header.as_bytes(), b"question"].concat();
        let mut got = vec![0; expected.len()];
        let mut server = first.accept().unwrap().0;
        server.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        drop(server);
        let mut server = second.accept().unwrap().0;
        server.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        let snapshot = balancer.supervisor().plane.snapshot.load();
        let in_flight =
            |index: usize| snapshot.pools["main"].backends[index].live.slot.hot().in_flight();
        assert_eq!((in_flight(0), in_flight(1)), (0, 1));
        assert_eq!(ports.load(Relaxed), 1);
        server.write_all(b"!").unwrap();
        assert_eq!(first_byte(&mut client), Some('!'));
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        wait_for("its end", || balancer.records.lock().unwrap().len() == round);
    }
}

fn state(balancer: &Balancer, index: usize) -> BackendState {
    let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
    pool.backends[index].status().state
}

fn with_passive(mut config: Config) -> Config {
    balancer::pool(&mut config).passive = Some(Passive {
        failures: 3,
        window: Duration::from_secs(60),
        eject_for: Duration::from_secs(600),
        max_ejected: 100,
    });
    config
}

/// A backend is to blame if another one answers the same; nobody is to blame for what none answers.
#[test]
fn who_is_to_blame_is_ejected() {
    let odd = all_odd(Odd::CloseAfter(1), 1)[0];
    let server = crate::server::Server::start(crate::server::Conduct::Echo);
    let balancer = Balancer::start(with_passive(config(&[odd, server.address])));
    for _ in 0..3 {
        assert_eq!(state(&balancer, 0), BackendState::Up);
        assert_eq!(ask(&balancer, b"x").0.unwrap(), 1);
    }
    wait_for("the ejection", || state(&balancer, 0) == BackendState::Ejected);
    assert_eq!(state(&balancer, 1), BackendState::Up);
    drop(balancer);
    // Asked nothing, and told nothing of the client.
    let balancer = Balancer::start(with_passive(config(&all_odd(Odd::CloseAtOnce, 2))));
    for _ in 0..3 {
        assert_eq!(ask(&balancer, b"").0.unwrap(), 0);
    }
    wait_for("the ejection", || state(&balancer, 0) == BackendState::Ejected);
    drop(balancer);
    // It may be the question.
    let balancer = Balancer::start(with_passive(config(&all_odd(Odd::CloseAfter(1), 2))));
    for _ in 0..6 {
        assert_eq!(ask(&balancer, b"x").0.unwrap(), 0);
    }
    wait_for("all to end", || balancer.records.lock().unwrap().len() == 6);
    assert_eq!([state(&balancer, 0), state(&balancer, 1)], [BackendState::Up; 2]);
    drop(balancer);
    // Who says nothing and goes was a port scan.
    let balancer = Balancer::start(with_passive(config(&all_odd(Odd::CloseAfter(0), 2))));
    for _ in 0..6 {
        drop(TcpStream::connect(balancer.address()).unwrap());
    }
    wait_for("all to end", || balancer.records.lock().unwrap().len() == 6);
    let silent = |record: &Record| record.bytes.client_received == 0;
    assert!(balancer.records.lock().unwrap().iter().all(silent));
}

/// The cuts and timeouts of a session hold for one that waits for its backend's first byte.
#[test]
fn what_ends_a_session_ends_one_that_waits_for_the_first_byte() {
    let (listener, address) = loopback();
    let mut config = config(&[address]);
    balancer::listener(&mut config).timeouts.idle = Some(Duration::from_millis(300));
    let balancer = Balancer::start(config);
    let begun = Instant::now();
    let (read, _client) = ask(&balancer, b"x");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Not at once; the clock of sessions is a coarse one.
    assert!(begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::Idle));
    assert_eq!(counts(&balancer), [(1, 0)], "it was on this backend");
    drop((balancer, listener));
    let (listener, address) = loopback();
    let balancer = Balancer::start(self::config(&[address]));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"x").unwrap();
    let mut server = listener.accept().unwrap().0;
    server.read_exact(&mut [0]).unwrap();
    reset_on_close(&client);
    drop(client);
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientReset));
}

/// `nc -N host port </dev/null`: a half-close without a word is a half-close, too.
#[test]
fn a_client_that_only_listens_hears_the_other_one() {
    let odd = all_odd(Odd::CloseAtOnce, 1)[0];
    let server = crate::server::Server::start(crate::server::Conduct::SayAndClose(&["greetings"]));
    let balancer = Balancer::start(with_passive(config(&[odd, server.address])));
    for is_half_closed in [false, true] {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        if is_half_closed {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, "greetings");
    }
    assert_eq!(counts(&balancer), [(0, 2), (2, 0)]);
}

/// A session that is held on the way to another backend keeps what it sent, and that it is over.
#[test]
fn who_is_held_after_a_silent_end_is_served_with_its_bytes() {
    let (first, a) = loopback();
    let refusal = crate::server::Refusal::new();
    let mut config = config(&[a, refusal.address]);
    let pool = balancer::pool(&mut config);
    let hold = config::Hold { time: Duration::from_secs(30), max: 10 };
    pool.when_none_up = config::WhenNoneUp::Hold(hold);
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let server = first.accept().unwrap().0;
    let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
    let now = (Instant::now(), SystemTime::now());
    pool.backends[0].set_state(BackendState::Down, "the test says so", now.0, now.1);
    drop(server);
    wait_for("it to be held", || pool.shared.queue.held() == 1);
    let _server = refusal.revive(crate::server::Conduct::Echo);
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "question");
    assert_eq!(balancer.endings(1)[0].bytes.client_received, 8);
}

/// After the trial bytes move as ever, by splice if there are many.
#[test]
fn many_bytes_after_the_first_are_spliced() {
    let [(first, a), (second, b)] = [loopback(), loopback()];
    let balancer = Balancer::start(config(&[a, b]));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"go").unwrap();
    drop(first.accept().unwrap());
    let mut server = second.accept().unwrap().0;
    server.read_exact(&mut [0; 2]).unwrap();
    server.write_all(b"!").unwrap();
    assert_eq!(first_byte(&mut client), Some('!'));
    let upload = text(3, 64 << 20);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&upload).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(got == upload);
    });
    let plane = &balancer.supervisor().plane;
    let spliced: u64 = plane.workers.iter().map(|worker| worker.spliced_bytes.value()).sum();
    assert!(spliced > 32 << 20, "{spliced} spliced");
}
