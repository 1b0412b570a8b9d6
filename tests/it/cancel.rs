//! `postgres_cancel: all`: a CancelRequest reaches every backend that is up, exactly once and byte for byte; sessions
//! go their way.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use maitred::border::record::{CloseReason, Stage};
use maitred::config::{self, Config, NamePattern, PostgresCancel, ProxyVersion, Rate, Route};
use maitred::data::pool::backend::BackendState;

use crate::balancer::{self, Balancer, loopback, wait_for};
use crate::server::Refusal;
use crate::tls::{DIAL, Dial, Files, Goodbye, NAME};

const REQUEST_FOR_TLS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const REQUEST_FOR_GSS: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];

/// A CancelRequest with a key of that length.
fn request(key: u16) -> Vec<u8> {
    let length = (12 + key).to_be_bytes();
    let key = (0..key).map(|at| (at as u8).wrapping_mul(7)).collect::<Vec<u8>>();
    [&[0, 0][..], &length, &[4, 210, 22, 46, 0, 0, 48, 57], &key].concat()
}

/// A server that reads a CancelRequest and closes, and what each of its connections sent.
struct Told {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Told {
    fn new(length: usize) -> Told {
        let (listener, address) = loopback();
        let got = Arc::new(Mutex::new(Vec::new()));
        let told = Told { address, got: Arc::clone(&got) };
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = vec![0; length];
                let Ok(()) = stream.read_exact(&mut bytes) else { continue };
                // More than it should be shows within this time, and the client must wait for it.
                stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let mut more = [0; 100];
                match stream.read(&mut more) {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                    Ok(count) => bytes.extend(&more[..count]),
                }
                got.lock().unwrap().push(bytes);
            }
        });
        told
    }

    fn got(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().clone()
    }
}

fn told(count: usize, length: usize) -> (Vec<Told>, Vec<SocketAddr>) {
    let told: Vec<Told> = (0..count).map(|_| Told::new(length)).collect();
    let addresses = told.iter().map(|it| it.address).collect();
    (told, addresses)
}

fn config(backends: &[SocketAddr]) -> Config {
    let mut config = balancer::config(backends);
    balancer::listener(&mut config).postgres_cancel = PostgresCancel::All;
    config
}

/// Says it, and waits for the end as libpq does.
fn cancel(mut client: impl Read + Write, request: &[u8]) {
    client.write_all(request).unwrap();
    client.flush().unwrap();
    // libpq does not ask how.
    let _ = client.read_to_end(&mut Vec::new());
}

fn set_state(balancer: &Balancer, index: usize, state: BackendState) {
    let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
    let now = Instant::now();
    pool.backends[index].set_state(state, "the test says so", now, SystemTime::now());
}

#[test]
fn every_backend_that_is_up_is_told_once_and_those_that_are_down_are_not() {
    for key in [4, 32, 256] {
        let request = request(key);
        let (told, mut addresses) = told(5, request.len());
        let refusal = Refusal::new();
        addresses.push(refusal.address);
        let balancer = Balancer::start(config(&addresses));
        set_state(&balancer, 1, BackendState::Down);
        set_state(&balancer, 2, BackendState::Drain);
        let client = TcpStream::connect(balancer.address()).unwrap();
        cancel(client, &request);
        // The client's end comes when all were told.
        let got: Vec<Vec<Vec<u8>>> = told.iter().map(Told::got).collect();
        let once = vec![request.clone()];
        assert_eq!(got, [once.clone(), vec![], once.clone(), once.clone(), once]);
        let record = &balancer.endings(1)[0];
        assert_eq!((record.stage, record.reason), (Stage::Relay, CloseReason::ClientClosed));
        let length = request.len() as u64;
        let bytes = record.bytes;
        assert_eq!((bytes.client_received, bytes.backend_sent), (length, 4 * length));
        assert_eq!((bytes.backend_received, bytes.client_sent, record.tried), (0, 0, 0));
        let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
        for backend in &pool.backends {
            assert_eq!(backend.live.counters.sum(|it| it.sessions.value()), 0, "no session");
        }
    }
}

#[test]
fn it_may_come_byte_by_byte_and_at_most_64_are_told() {
    let request = request(4);
    let (told, addresses) = told(70, request.len());
    let balancer = Balancer::start(config(&addresses));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.set_nodelay(true).unwrap();
    for byte in &request {
        client.write_all(&[*byte]).unwrap();
        // So that each arrives alone.
        std::thread::sleep(Duration::from_millis(1));
    }
    cancel(client, b"");
    let got: Vec<usize> = told.iter().map(|it| it.got().len()).collect();
    assert_eq!(got[..64], [1; 64]);
    assert_eq!(got[64..], [0; 6]);
}

/// psql before 17 sends it in clear always; later ones as they speak otherwise.
#[test]
fn where_tls_ends_it_is_taken_in_clear_and_in_tls() {
    let files = Files::new();
    let request = request(256);
    for alpn in [&["postgresql"][..], &[]] {
        let (told, addresses) = told(3, request.len());
        let mut config = config(&addresses);
        balancer::listener(&mut config).tls = files.server(false, alpn);
        let balancer = Balancer::start(config);
        let dial = || TcpStream::connect(balancer.address()).unwrap();
        cancel(dial(), &request);
        let mut count = 1;
        let direct = Dial { alpn, ..DIAL };
        cancel(files.encrypt(dial(), direct), &request);
        count += 1;
        // In two records, the first of which does not tell yet.
        let mut client = files.encrypt(dial(), direct);
        client.write_all(&request[..6]).unwrap();
        client.flush().unwrap();
        cancel(client, &request[6..]);
        count += 1;
        if !alpn.is_empty() {
            for before in [&[REQUEST_FOR_TLS][..], &[REQUEST_FOR_GSS, REQUEST_FOR_TLS]] {
                let mut client = dial();
                let mut answers = Vec::new();
                for request in before {
                    client.write_all(request).unwrap();
                    let mut answer = [0];
                    client.read_exact(&mut answer).unwrap();
                    answers.push(answer[0]);
                }
                assert_eq!(answers.pop(), Some(b'S'));
                cancel(files.encrypt(client, direct), &request);
                count += 1;
            }
            let mut client = dial();
            client.write_all(&REQUEST_FOR_GSS).unwrap();
            client.read_exact(&mut [0]).unwrap();
            cancel(client, &request);
            count += 1;
        }
        for told in &told {
            assert_eq!(told.got(), vec![request.clone(); count]);
        }
        for record in balancer.endings(count) {
            assert_eq!((record.stage, record.reason), (Stage::Relay, CloseReason::ClientClosed));
        }
    }
}

/// libpq since version 17 asks for TLS first, if it may, and cancels on the same connection when the server refuses.
#[test]
fn after_a_refused_request_for_tls_the_others_are_told_too() {
    let request = request(4);
    for asks in [&[REQUEST_FOR_TLS][..], &[REQUEST_FOR_GSS, REQUEST_FOR_TLS]] {
        let (told, mut addresses) = told(3, request.len());
        let (own, address) = loopback();
        addresses.insert(0, address);
        let mut config = config(&addresses);
        balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
        let balancer = Balancer::start(config);
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(&asks[0]).unwrap();
        let mut server = own.accept().unwrap().0;
        for (number, ask) in asks.iter().enumerate() {
            if number > 0 {
                client.write_all(ask).unwrap();
            }
            let mut got = [0; 8];
            server.read_exact(&mut got).unwrap();
            assert_eq!(got, *ask);
            server.write_all(b"N").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        client.write_all(&request).unwrap();
        let mut got = vec![0; request.len()];
        server.read_exact(&mut got).unwrap();
        assert_eq!(got, request);
        wait_for("the others to be told", || told.iter().all(|it| it.got().len() == 1));
        assert!(told.iter().all(|it| it.got() == [request.clone()]));
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(client);
        assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::BackendClosed));
    }
}

/// What was looked at reaches the one backend, once.
#[test]
fn sessions_go_their_way() {
    let files = Files::new();
    let startup = [&[0, 0, 0, 16, 0, 3, 0, 0][..], b"user\0x\0\0"].concat();
    for is_tls in [false, true] {
        let (backend, address) = loopback();
        let (other, other_address) = loopback();
        let mut config = config(&[address, other_address]);
        balancer::pool(&mut config).balance = config::Balance::FirstAvailable;
        if is_tls {
            balancer::listener(&mut config).tls = files.server(false, &["postgresql"]);
        }
        let balancer = Balancer::start(config);
        let bulk: Vec<u8> = (0..300_000_u32).map(|at| (at / 7) as u8).collect();
        let mut client: Box<dyn Session> = match is_tls {
            true => Box::new(files.dial(balancer.address(), DIAL)),
            false => Box::new(TcpStream::connect(balancer.address()).unwrap()),
        };
        for piece in [&startup[..3], &startup[3..9], &startup[9..]] {
            client.write_all(piece).unwrap();
            client.flush().unwrap();
            // So that it is looked at in pieces.
            std::thread::sleep(Duration::from_millis(5));
        }
        client.write_all(&bulk).unwrap();
        client.goodbye();
        let mut server = backend.accept().unwrap().0;
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(got == [&startup[..], &bulk].concat(), "{} bytes", got.len());
        server.write_all(b"answer").unwrap();
        drop(server);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"answer");
        other.set_nonblocking(true).unwrap();
        assert!(other.accept().is_err(), "nobody else is asked");
    }
}

trait Session: Read + Write + Goodbye {}

impl<T: Read + Write + Goodbye> Session for T {}

#[test]
fn who_says_nothing_is_not_let_through() {
    let (told, addresses) = told(1, 16);
    let mut config = config(&addresses);
    balancer::listener(&mut config).timeouts.preread = Duration::from_millis(200);
    let balancer = Balancer::start(config);
    let mut silent = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let mut half = TcpStream::connect(balancer.address()).unwrap();
    half.write_all(&request(4)[..15]).unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(half.read(&mut [0]).unwrap(), 0);
    let reasons: Vec<_> = balancer.endings(2).iter().map(|it| (it.stage, it.reason)).collect();
    let expected = [CloseReason::PrereadTimeout, CloseReason::ClientClosed];
    assert_eq!(reasons, expected.map(|reason| (Stage::Preread, reason)));
    assert!(told[0].got().is_empty());
}

#[test]
fn one_that_hangs_holds_up_nobody_for_longer_than_a_connect() {
    let request = request(4);
    let (told, mut addresses) = told(2, request.len());
    let (hangs, address) = loopback();
    addresses.insert(0, address);
    let mut config = config(&addresses);
    balancer::pool(&mut config).connect.timeout = Duration::from_millis(400);
    let balancer = Balancer::start(config);
    let begun = Instant::now();
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(&request).unwrap();
    wait_for("the others to be told", || told.iter().all(|it| it.got() == [request.clone()]));
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
    let mut got = Vec::new();
    hangs.accept().unwrap().0.read_to_end(&mut got).unwrap();
    assert_eq!(got, request);
}

#[test]
fn backends_are_told_as_sessions_reach_them() {
    let files = Files::new();
    let request = request(32);
    let (listeners, addresses): (Vec<TcpListener>, Vec<SocketAddr>) =
        (0..2).map(|_| loopback()).unzip();
    let mut config = config(&addresses);
    let pool = balancer::pool(&mut config);
    pool.tls = files.client(Some(NAME));
    pool.send_proxy_protocol = Some(ProxyVersion::V1);
    pool.source_ports = config::SourcePorts::Own;
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    let ports = (client.local_addr().unwrap().port(), balancer.address().port());
    client.write_all(&request).unwrap();
    for listener in &listeners {
        let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", ports.0, ports.1);
        let mut stream = listener.accept().unwrap().0;
        let mut got = vec![0; header.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, header.as_bytes());
        let mut line = files.serve(stream, "server");
        let mut got = vec![0; request.len()];
        line.read_exact(&mut got).unwrap();
        assert_eq!(got, request);
        line.goodbye();
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(balancer.ending(), (Stage::Relay, CloseReason::ClientClosed));
    let in_use = &balancer.supervisor().plane.source_ports.in_use;
    wait_for("ports", || in_use.load(std::sync::atomic::Ordering::Relaxed) == 0);
}

#[test]
fn routes_say_whose_backends_and_limits_count_it() {
    let files = Files::new();
    let request = request(4);
    let (told, addresses) = told(4, request.len());
    let mut config = config(&addresses[..2]);
    let mut routed = config::Pool { name: "routed".into(), ..(*config.pools[0]).clone() };
    routed.backends = addresses[2..].iter().map(|it| balancer::backend(*it)).collect();
    config.pools.push(Arc::new(routed));
    let listener = balancer::listener(&mut config);
    listener.tls = files.server(false, &[]);
    listener.routes = vec![Route {
        server_name: vec![NamePattern::Exact("other.example.com".into())],
        pool: Some("routed".into()),
        ..Route::default()
    }];
    listener.limits.rate = Some(Rate { per_second: 1, burst: 3 });
    let balancer = Balancer::start(config);
    let got = || told.iter().map(|it| it.got().len()).collect::<Vec<_>>();
    let to_other = Dial { name: "other.example.com", ..DIAL };
    cancel(files.dial(balancer.address(), to_other), &request);
    assert_eq!(got(), [0, 0, 1, 1]);
    cancel(files.dial(balancer.address(), DIAL), &request);
    assert_eq!(got(), [1, 1, 1, 1]);
    // In clear no name is given.
    cancel(TcpStream::connect(balancer.address()).unwrap(), &request);
    assert_eq!(got(), [2, 2, 1, 1]);
    let mut late = TcpStream::connect(balancer.address()).unwrap();
    let _ = late.write_all(&request);
    assert!(matches!(late.read(&mut [0]), Ok(0) | Err(_)));
    assert_eq!(balancer.endings(4)[3].reason, CloseReason::RateLimited);
    assert_eq!(got(), [2, 2, 1, 1]);
}
