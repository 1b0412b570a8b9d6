//! First bytes that nobody would send, over real connections and in pieces: PROXY headers and ClientHellos, mutated. What
//! the parsers and the specifications, read a second time, do not let through reaches no backend; what they do reaches
//! the right one, byte by byte, which is told of the right client. `MAITRED_MUTATED_SESSIONS` says how many of each.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use maitred::data::wire::proxy_protocol::{self, Ends, v1, v2};
use maitred::data::wire::{Progress, client_hello, postgres};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::corpus::{corpus, mutate};
use crate::harness::{Maitred, SHELL, anonymous, free_port, pause, wait_for};
use crate::hello::hello;
use crate::judgement::{self, MOST, proxied};
use crate::namespace::alone;

/// Each has listeners and backends of its own, and one session at a time: whatever reaches them is that session's.
const LANES: u64 = 4;
const LONGEST: usize = 8 << 10;

fn sessions() -> u64 {
    let asked = std::env::var("MAITRED_MUTATED_SESSIONS");
    asked.map_or(2_000, |text| text.parse().expect("MAITRED_MUTATED_SESSIONS is a number"))
}

/// Sends bytes to a listener and sees what comes of it.
struct Lane {
    address: SocketAddr,
    backends: Vec<TcpListener>,
    random: fastrand::Rng,
}

/// What becomes of a client's bytes.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// Whether they are refused for what they are, rather than waited for to go on.
    is_bad: bool,
    reach: Option<Reach>,
}

#[derive(Clone, Debug, Default)]
struct Reach {
    backend: usize,
    /// Where the backend's part of the bytes begins.
    from: usize,
    /// Who is announced and what it dialled, if the backend is told at all. `Some(None)`: the connection's own ends.
    told: Option<Option<(SocketAddr, SocketAddr)>>,
    /// What the client is answered before a backend is asked; an `S` is had from the backend, too.
    answers: Vec<u8>,
}

/// Enough of it for a message that fits into a pipe.
fn shown(bytes: &[u8]) -> String {
    format!("{} bytes: {}", bytes.len(), bytes[..bytes.len().min(2_000)].escape_ascii())
}

#[derive(Default)]
struct Counts {
    bad: AtomicU64,
    reached: AtomicU64,
    nobody: AtomicU64,
}

impl Lane {
    fn new(address: SocketAddr, backends: Vec<TcpListener>, seed: u64) -> Lane {
        for backend in &backends {
            backend.set_nonblocking(true).unwrap();
        }
        Lane { address, backends, random: fastrand::Rng::with_seed(seed) }
    }

    /// One session; panics if its fate is another one.
    fn play(&mut self, bytes: &[u8], fate: &Fate) {
        let mut client = TcpStream::connect(self.address).unwrap();
        client.set_nodelay(true).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let is_whole = self.send(&client, bytes);
        assert!(is_whole || fate.reach.is_none(), "it was cut off: {fate:?} {}", shown(bytes));
        // Who is waited for must say that no more comes; the others may, or wait for what comes of it.
        let is_waited_for = !fate.is_bad && fate.reach.is_none();
        let ends_at_once = is_waited_for || self.random.bool();
        if ends_at_once {
            let _ = client.shutdown(Shutdown::Write);
        }
        let Some((backend, stream)) = self.reached(&client, fate.reach.is_some()) else {
            let goes_nowhere = fate.reach.as_ref().is_none_or(|reach| {
                // Leaving without a byte cancels the attempt.
                ends_at_once && reach.from == bytes.len()
            });
            assert!(goes_nowhere, "it reached nobody: {fate:?} {}", shown(bytes));
            return;
        };
        let Some(reach) = &fate.reach else { panic!("it reached {backend}: {}", shown(bytes)) };
        assert_eq!(backend, reach.backend, "{}", shown(bytes));
        let payload = &bytes[reach.from..];
        if !serve(stream, reach, payload, &client, ends_at_once, self.address) {
            return;
        }
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert!(got == [&reach.answers, payload].concat(), "echoed: {}", shown(bytes));
    }

    /// In random pieces, some of them as segments of their own. Whether all of it could be sent.
    fn send(&mut self, mut client: &TcpStream, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for left in (0..self.random.usize(1..=4)).rev() {
            let count = if left == 0 { rest.len() } else { self.random.usize(0..=rest.len()) };
            let (piece, behind) = rest.split_at(count);
            if client.write_all(piece).is_err() {
                return false;
            }
            rest = behind;
            match self.random.u8(0..4) {
                // So that the balancer looks in between: nobody tells when it has.
                0 if left > 0 => std::thread::sleep(Duration::from_micros(50)),
                1 => std::thread::yield_now(),
                _ => {}
            }
        }
        true
    }

    /// The backend that is asked; `None`: the session ended without one.
    fn reached(&self, mut client: &TcpStream, is_expected: bool) -> Option<(usize, TcpStream)> {
        let accepted = || {
            let mut accepted = self.backends.iter().enumerate().filter_map(|(index, it)| {
                let (stream, _) = it.accept().ok()?;
                Some((index, stream))
            });
            let first = accepted.next();
            assert!(accepted.next().is_none(), "two backends for one session");
            first
        };
        let mut sees_client = true;
        loop {
            let mut fds: Vec<PollFd> =
                self.backends.iter().map(|backend| PollFd::new(backend, PollFlags::IN)).collect();
            if sees_client {
                fds.push(PollFd::new(client, PollFlags::IN));
            }
            let patience = Timespec { tv_sec: 20, tv_nsec: 0 };
            assert!(poll(&mut fds, Some(&patience)).unwrap() > 0, "neither a backend nor an end");
            drop(fds);
            if let Some(accepted) = accepted() {
                return Some(accepted);
            }
            match client.peek(&mut [0]) {
                // What it is answered is looked at when its backend has been.
                Ok(1..) if is_expected => sees_client = false,
                Ok(1..) => {
                    let _ = client.read_to_end(&mut Vec::new());
                    return accepted();
                }
                // Whoever was connected to for it is there by now.
                Ok(0) | Err(_) => return accepted(),
            }
        }
    }
}

/// The backend's part: sees what it is told and given, and sends the payload back. `false`: the client had nothing to
/// say and left, and the attempt was given up.
fn serve(
    mut stream: TcpStream,
    reach: &Reach,
    payload: &[u8],
    client: &TcpStream,
    has_ended: bool,
    dialled: SocketAddr,
) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    let (mut is_asked, mut ends) = (false, has_ended);
    let told = loop {
        let told = if reach.told.is_some() { proxied(&got) } else { None };
        let head = told.map_or(0, |told| told.length);
        let is_told = told.is_some() || reach.told.is_none();
        if !is_asked && reach.answers.ends_with(b"S") && is_told && got.len() >= head + 8 {
            assert_eq!(got.drain(head..head + 8).as_slice(), postgres::TLS_REQUEST);
            stream.write_all(b"S").unwrap();
            is_asked = true;
        }
        let asks_first = reach.answers.ends_with(b"S") && !is_asked;
        if is_told && !asks_first && got.len() >= head + payload.len() && !ends {
            client.shutdown(Shutdown::Write).unwrap();
            ends = true;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break told,
            Ok(count) => got.extend(&buffer[..count]),
            Err(_) if payload.is_empty() && has_ended => return false,
            Err(error) => panic!("{error} after {}, {reach:?} {}", shown(&got), shown(payload)),
        }
    };
    if payload.is_empty() && has_ended && told.is_none() {
        assert!(got.is_empty(), "{}", shown(&got));
        return false;
    }
    if let Some(announced) = reach.told {
        let own = (client.local_addr().unwrap(), dialled);
        let told = told.expect("a header");
        assert_eq!(told.ends, Some(announced.unwrap_or(own)), "{}", shown(&got));
        got.drain(..told.length);
    }
    assert!(got == payload, "{} for {}", shown(&got), shown(payload));
    stream.write_all(payload).unwrap();
    true
}

/// What parser and specification say of a client's header; they must agree.
fn fate_of_header(bytes: &[u8]) -> Fate {
    let read = proxy_protocol::read(bytes, MOST);
    let judged = proxied(bytes);
    let parsed = match read {
        Ok(Progress::Whole(header)) => {
            Some((header.length, header.ends.map(|ends| (ends.client, ends.local))))
        }
        _ => None,
    };
    assert_eq!(parsed, judged.map(|it| (it.length, it.ends)), "{}", shown(bytes));
    let reach = judged.map(|it| Reach { from: it.length, told: Some(it.ends), ..Reach::default() });
    Fate { is_bad: read.is_err(), reach }
}

/// The same of what it asks for, and where that leads.
fn fate_of_hello(bytes: &[u8]) -> Fate {
    let (mut taken, mut is_promised) = (0, false);
    for _ in 0..2 {
        match postgres::read(&bytes[taken..]) {
            Progress::Whole(Some(request)) => {
                taken += postgres::LENGTH;
                is_promised = request == postgres::Request::Tls;
            }
            Progress::Whole(None) => break,
            Progress::Partial => {
                assert_eq!(judgement::asked(bytes), None, "{}", shown(bytes));
                return Fate::default();
            }
        }
        if is_promised {
            break;
        }
    }
    let read = client_hello::read(&bytes[taken..], MOST);
    let parsed = match &read {
        Ok(Progress::Whole(hello)) => {
            Some((hello.server_name.clone(), hello.alpn.iter().map(<[u8]>::to_vec).collect()))
        }
        Err(client_hello::BadHello::NotTls) if !is_promised => Some((None, Vec::new())),
        _ => None,
    };
    let judged = judgement::asked(bytes);
    let of_judged = judged.as_ref().map(|it| (it.name.clone(), it.protocols.clone()));
    assert_eq!(parsed, of_judged, "{}", shown(bytes));
    assert!(judged.as_ref().is_none_or(|it| it.taken == taken), "{}", shown(bytes));
    let is_bad = parsed.is_none() && read.is_err();
    let reach = judged.map(|it| Reach {
        backend: match it.name.as_deref() {
            Some("db1.example.com") => 1,
            Some(name) if name.ends_with(".second.test") => 2,
            _ if it.protocols.contains(&b"postgresql".to_vec()) => 3,
            _ => 0,
        },
        from: it.taken,
        told: None,
        answers: it.answers,
    });
    Fate { is_bad, reach }
}

/// Headers of all kinds, in front of some payload.
fn header(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut end = || {
        let ip: std::net::IpAddr = match random.bool() {
            true => random.u32(..).to_be_bytes().into(),
            false => random.u128(..).to_be_bytes().into(),
        };
        SocketAddr::new(ip, random.u16(..))
    };
    let ends = Some(Ends { client: end(), local: end() });
    let mut bytes = match random.u8(0..4) {
        0 => v1::write(ends),
        1 => v2::write(ends, v2::Extras { checksum: random.bool(), ..v2::Extras::default() }),
        _ => random.choice(seeds).unwrap().clone(),
    };
    bytes.extend((0..random.usize(0..100)).map(|_| random.u8(..)));
    if random.u8(0..8) > 0 {
        mutate(&mut bytes, seeds, LONGEST, random);
    }
    bytes
}

/// ClientHellos for every route and none, of clients of PostgreSQL, too.
fn first_bytes(seeds: &[Vec<u8>], random: &mut fastrand::Rng) -> Vec<u8> {
    let names = ["DB1.example.com", "a.second.test", "a.b.second.test.", "second.test"];
    let name = random.choice(names.iter()).copied().filter(|_| random.u8(0..5) > 0);
    let protocols: &[&str] = if random.bool() { &["h2", "postgresql"] } else { &[] };
    let mut bytes = match random.bool() {
        true => hello(name, protocols, random.usize(16..2_000)),
        false => random.choice(seeds).unwrap().clone(),
    };
    if random.u8(0..8) > 0 {
        mutate(&mut bytes, seeds, LONGEST, random);
    }
    let before: &[&[u8]] = match random.u8(0..12) {
        0 => &[&postgres::TLS_REQUEST],
        1 => &[b"\0\0\0\x08\x04\xd2\x16\x30", &postgres::TLS_REQUEST],
        2 => &[b"\0\0\0\x08\x04\xd2\x16\x30"],
        _ => &[],
    };
    [before.concat(), bytes].concat()
}

fn descriptors(id: u32) -> usize {
    std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

/// Shows how sessions ended, if the test fails.
struct Endings<'a>(&'a Maitred);

impl Drop for Endings<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.0.metrics().0;
            let counts = ["maitred_session_closed_total", "maitred_backend_connect_failures_total"];
            let told = |line: &&str| {
                counts.iter().any(|name| line.starts_with(name)) && !line.ends_with(" 0")
            };
            println!("{}", text.lines().filter(told).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// Runs a share of the sessions on each lane, in two parts: after the first one nothing grows any more.
fn run(
    maitred: &Maitred,
    mut lanes: Vec<Lane>,
    draw: impl Fn(&mut fastrand::Rng) -> (Vec<u8>, Fate) + Sync,
    reason: &str,
) {
    let id = maitred.process.id();
    let _endings = Endings(maitred);
    // Until the connection that asked whether it is ready is gone.
    pause(200);
    let idle = descriptors(id);
    let counts = Counts::default();
    let mut memory = Vec::new();
    let all = sessions();
    for part in [(all / 5).max(1_000).min(all / 2), all] {
        let played =
            counts.bad.load(Relaxed) + counts.reached.load(Relaxed) + counts.nobody.load(Relaxed);
        let each = (part - played.min(part)).div_ceil(LANES);
        std::thread::scope(|scope| {
            for lane in &mut lanes {
                let (draw, counts) = (&draw, &counts);
                scope.spawn(move || {
                    for _ in 0..each {
                        let (bytes, fate) = draw(&mut lane.random);
                        lane.play(&bytes, &fate);
                        let count = match fate {
                            Fate { is_bad: true, .. } => &counts.bad,
                            Fate { reach: Some(_), .. } => &counts.reached,
                            _ => &counts.nobody,
                        };
                        count.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        maitred.wait_for_no_session();
        memory.push(anonymous(id));
    }
    wait_for("the descriptors of the start", || descriptors(id) == idle);
    let [bad, reached, nobody] =
        [&counts.bad, &counts.reached, &counts.nobody].map(|count| count.load(Relaxed));
    let growth = memory[1].saturating_sub(memory[0]);
    println!(
        "{reached} reached a backend, {bad} were {reason}, {nobody} stopped in the middle; {growth} B grown"
    );
    assert!(reached > all / 10 && bad > all / 10 && nobody > all / 50);
    let metrics = maitred.metrics();
    let closed =
        |labels: &[(&str, &str)]| metrics.value("maitred_session_closed_total", labels) as u64;
    assert_eq!(closed(&[("reason", reason)]), bad);
    assert_eq!(closed(&[("reason", "internal")]), 0);
    assert_eq!(closed(&[]), bad + reached + nobody);
    assert!(growth < 1 << 20, "memory: {memory:?}");
}

/// maitred with as many listeners and pools as `LANES`, which `listener` writes for the ports of their backends.
fn start(
    backends: usize,
    listener: impl Fn(u64, u16, &[u16]) -> (String, String),
) -> (Maitred, Vec<Lane>) {
    let (mut listeners, mut pools, mut lanes) = (String::new(), String::new(), Vec::new());
    let seed = u64::from(fastrand::u32(..));
    println!("seed {seed}");
    for lane in 0..LANES {
        let own: Vec<TcpListener> =
            (0..backends).map(|_| TcpListener::bind(("127.0.0.1", free_port())).unwrap()).collect();
        let ports: Vec<u16> = own.iter().map(|it| it.local_addr().unwrap().port()).collect();
        let port = free_port();
        let (listener, pool) = listener(lane, port, &ports);
        listeners += &listener;
        pools += &pool;
        lanes.push(Lane::new(SocketAddr::from(([127, 0, 0, 1], port)), own, seed + lane));
    }
    let config = format!("listeners:\n{listeners}pools:\n{pools}");
    (Maitred::start_as(SHELL, "log: {sessions: none}\nprocess: {workers: 2}", &config), lanes)
}

#[test]
fn no_mutated_proxy_header_reaches_a_backend_wrongly() {
    alone("mutated::no_mutated_proxy_header_reaches_a_backend_wrongly", headers);
}

#[test]
fn no_mutated_client_hello_reaches_a_backend_wrongly() {
    alone("mutated::no_mutated_client_hello_reaches_a_backend_wrongly", hellos);
}

fn headers() {
    let (maitred, lanes) = start(1, |lane, port, ports| {
        let version = if lane % 2 == 0 { "v1" } else { "v2" };
        (
            format!(
                "  l{lane}: {{bind: \"127.0.0.1:{port}\", pool: p{lane}, proxy_protocol: {{trusted: [\"127.0.0.1\"]}}}}\n"
            ),
            format!(
                "  p{lane}: {{backends: [\"127.0.0.1:{}\"], send_proxy_protocol: {version}, health: {{probe: none}}}}\n",
                ports[0]
            ),
        )
    });
    let seeds = corpus("proxy_protocol");
    let draw = |random: &mut fastrand::Rng| {
        let bytes = header(&seeds, random);
        let fate = fate_of_header(&bytes);
        (bytes, fate)
    };
    run(&maitred, lanes, draw, "bad_proxy_header");
}

fn hellos() {
    let (maitred, lanes) = start(4, |lane, port, ports| {
        let pool = |index: usize| {
            let name = ["own", "first", "second", "third"][index];
            format!(
                "  {name}{lane}: {{backends: [\"127.0.0.1:{}\"], health: {{probe: none}}}}\n",
                ports[index]
            )
        };
        (
            format!(
                "  l{lane}:
    bind: \"127.0.0.1:{port}\"
    pool: own{lane}
    routes:
      - {{server_name: [\"db1.example.com\"], pool: first{lane}}}
      - {{server_name: [\"*.second.test\"], pool: second{lane}}}
      - {{alpn: [\"postgresql\"], pool: third{lane}}}
"
            ),
            (0..4).map(pool).collect(),
        )
    });
    let mut seeds = corpus("client_hello");
    seeds.push(hello(Some("a.second.test"), &["postgresql"], 300));
    let draw = |random: &mut fastrand::Rng| {
        let bytes = first_bytes(&seeds, random);
        let fate = fate_of_hello(&bytes);
        (bytes, fate)
    };
    run(&maitred, lanes, draw, "bad_client_hello");
}
