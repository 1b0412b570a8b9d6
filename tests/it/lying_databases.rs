//! Probes that log in, and servers that lie: they stop anywhere, never stop, ask for too much, repeat the password.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maitred::config::{self, Health, Probe, ProbeConnection, Secret};
use maitred::control::health::probe::facts::Judge;
use maitred::control::health::probe::{Kept, Prober};
use maitred::data::pool::fitness::{Outcome, ProbeResult};
use maitred::data::wire::mysql::packet;
use socket2::SockRef;

use crate::balancer::{self, Balancer, wait_for};

/// No probe of these tests needs it all.
const PLENTY: Duration = Duration::from_secs(5);

const PASSWORD: &str = "s3cret-of-ours";

/// What a server does with one client.
type Play = dyn Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

struct Server {
    address: SocketAddr,
    /// Clients so far.
    clients: Arc<AtomicUsize>,
}

/// Plays with each client on a thread of its own, and knows how many were before; then it closes.
fn server(
    play: impl Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Server {
    let (listener, address) = balancer::loopback();
    let clients = Arc::new(AtomicUsize::new(0));
    let (play, count): (Arc<Play>, _) = (Arc::new(play), Arc::clone(&clients));
    std::thread::spawn(move || serve(&listener, &play, &count));
    Server { address, clients }
}

/// The thread ends with the test's process.
fn serve(listener: &TcpListener, play: &Arc<Play>, count: &AtomicUsize) {
    for stream in listener.incoming() {
        let (mut stream, play) = (stream.unwrap(), Arc::clone(play));
        let number = count.fetch_add(1, Relaxed);
        stream.set_read_timeout(Some(PLENTY)).unwrap();
        stream.set_nodelay(true).unwrap();
        std::thread::spawn(move || {
            // The probe may leave at any moment.
            let _ = play(number, &mut stream);
        });
    }
}

/// Reads until something has come, or says that the client has left.
fn hear(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut heard = vec![0; 64 << 10];
    let count = stream.read(&mut heard)?;
    heard.truncate(count);
    if count == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(heard) }
}

/// Waits until the client has left.
fn stay(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        hear(stream)?;
    }
}

fn close(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stay(stream)
}

/// One turn: what it hears first, or not, and then says.
#[derive(Clone)]
struct Turn(bool, Vec<u8>);

/// A message of PostgreSQL.
fn pg(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind][..], &length, body].concat()
}

fn pg_wants(number: u32, rest: &[u8]) -> Vec<u8> {
    pg(b'R', &[&number.to_be_bytes()[..], rest].concat())
}

fn pg_in() -> Vec<u8> {
    let key = pg(b'K', b"\0\0\0\x01\0\0\0\x02");
    [pg_wants(0, b""), pg(b'S', b"server_version\x0017\0"), key, pg(b'Z', b"I")].concat()
}

fn pg_role(role: &[u8]) -> Vec<u8> {
    let row = [b"\0\x01\0\0\0\x01".as_slice(), role].concat();
    let head = pg(b'T', b"\0\x01case\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    [head, pg(b'D', &row), pg(b'C', b"SELECT 1\0"), pg(b'Z', b"I")].concat()
}

fn pg_error(code: &str, message: &[u8]) -> Vec<u8> {
    let head = format!("SFATAL\0VFATAL\0C{code}\0M");
    pg(b'E', &[head.as_bytes(), message, b"\0\0"].concat())
}

fn greeting(plugin: &str) -> Vec<u8> {
    let mut body = b"\x0a8.0.36\0\x07\0\0\x0012345678\0\xff\xf7\x2d\x02\0\x0f\x80\x15".to_vec();
    body.extend([0; 10]);
    body.extend(b"901234567890\0");
    body.extend([plugin.as_bytes(), b"\0"].concat());
    packet(0, &body)
}

fn mysql_ok(number: u8) -> Vec<u8> {
    packet(number, b"\0\0\0\x02\0\0\0")
}

fn mysql_error(number: u8, code: u16, message: &[u8]) -> Vec<u8> {
    packet(number, &[b"\xff", &code.to_le_bytes()[..], b"#28000", message].concat())
}

const END: &[u8] = b"\xfe\0\0\x02\0";

fn column(number: u8) -> Vec<u8> {
    packet(number, b"\x03def\0\0\0\x01x\0\x0c\x3f\0\x01\0\0\0\x08\x81\0\0\0\0")
}

fn mysql_read_only(value: u8) -> Vec<u8> {
    let row = packet(4, &[1, value]);
    [packet(1, b"\x01"), column(2), packet(3, END), row, packet(5, END)].concat()
}

const INFO: &[u8] = b"$26\r\nrole:master\r\nconnected:0\r\n\r\n";

fn redis_role() -> Vec<u8> {
    [b"+PONG\r\n", INFO].concat()
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Postgres,
    Mysql,
    Redis,
}

const KINDS: [Kind; 3] = [Kind::Postgres, Kind::Mysql, Kind::Redis];

impl Kind {
    fn probe(self, password: &str) -> Probe {
        let (role, password) = (config::Role::Primary, Some(Secret::read(password).unwrap()));
        let user = "u".to_owned();
        match self {
            Kind::Postgres => {
                Probe::Postgres(config::Postgres { user, password, role, ..Default::default() })
            }
            Kind::Mysql => {
                Probe::Mysql(config::Mysql { user, password, role, ..Default::default() })
            }
            Kind::Redis => Probe::Redis(config::Redis { password, role, ..Default::default() }),
        }
    }

    /// A primary.
    fn turns(self) -> Vec<Turn> {
        match self {
            Kind::Postgres => vec![Turn(true, pg_in()), Turn(true, pg_role(b"f"))],
            Kind::Mysql => vec![
                Turn(false, greeting("mysql_native_password")),
                Turn(true, mysql_ok(2)),
                Turn(true, mysql_read_only(b'0')),
            ],
            Kind::Redis => vec![Turn(true, b"+OK\r\n".to_vec()), Turn(true, redis_role())],
        }
    }

    /// What a login is refused with.
    fn refusal(self, message: &[u8]) -> Vec<u8> {
        match self {
            Kind::Postgres => pg_error("28P01", message),
            Kind::Mysql => mysql_error(0, 1045, message),
            Kind::Redis => [b"-WRONGPASS ", message, b"\r\n"].concat(),
        }
    }
}

fn play(turns: &[Turn], stream: &mut TcpStream) -> std::io::Result<()> {
    for Turn(hears, says) in turns {
        if *hears {
            hear(stream)?;
        }
        stream.write_all(says)?;
    }
    Ok(())
}

fn health(probe: Probe, timeout: Duration) -> Health {
    Health { probe, timeout, ..config::Pool::default().health }
}

fn kept(probe: Probe) -> Health {
    Health { connection: ProbeConnection::Kept, ..health(probe, PLENTY) }
}

/// One pool's probes of one server.
struct Asks {
    runtime: tokio::runtime::Runtime,
    prober: Prober,
    judge: Judge,
    kept: Kept,
}

impl Asks {
    fn new(health: Health) -> Asks {
        let judge = Judge::new(&health);
        let prober = Prober::new(&config::Pool { health, ..config::Pool::default() }).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        Asks { runtime, prober, judge, kept: RefCell::default() }
    }

    fn once(&self, address: SocketAddr) -> Outcome {
        let found = self.runtime.block_on(async {
            let (found, parting) = self.prober.probe(&address.into(), &self.kept).await;
            parting.over().await;
            found
        });
        self.judge.outcome(&found)
    }
}

fn once(probe: Probe, server: &Server) -> Outcome {
    Asks::new(health(probe, PLENTY)).once(server.address)
}

#[track_caller]
fn assert_says(outcome: &Outcome, result: ProbeResult, part: &str) {
    let detail = outcome.detail.as_deref().unwrap_or_default();
    assert!(outcome.result == result && detail.contains(part), "{outcome}, not {result:?} {part}");
}

#[test]
fn a_server_that_closes_anywhere_is_a_mismatch_and_one_that_says_all_passes() {
    for kind in KINDS {
        let total: usize = kind.turns().iter().map(|turn| turn.1.len()).sum();
        let server = server(move |number, stream| {
            let mut left = number;
            for Turn(hears, says) in kind.turns() {
                if hears {
                    hear(stream)?;
                }
                stream.write_all(&says[..says.len().min(left)])?;
                if left < says.len() {
                    return close(stream);
                }
                left -= says.len();
            }
            stay(stream)
        });
        let asks = Asks::new(health(kind.probe(PASSWORD), PLENTY));
        for cut in 0..=total {
            let outcome = asks.once(server.address);
            let expected = if cut == total { ProbeResult::Passed } else { ProbeResult::Mismatch };
            assert_eq!(outcome.result, expected, "{kind:?} after {cut} of {total}: {outcome}");
        }
    }
}

#[test]
fn byte_by_byte_it_is_the_same_answer() {
    for kind in KINDS {
        let server = server(move |_, stream| {
            for Turn(hears, says) in kind.turns() {
                if hears {
                    hear(stream)?;
                }
                for byte in says {
                    stream.write_all(&[byte])?;
                }
            }
            stay(stream)
        });
        assert_says(&once(kind.probe(PASSWORD), &server), ProbeResult::Passed, "");
    }
}

#[test]
fn only_silence_is_a_timeout() {
    let short = Duration::from_millis(300);
    for kind in KINDS {
        let silent = server(|_, stream| stay(stream));
        let asks = Asks::new(health(kind.probe(PASSWORD), short));
        assert_says(&asks.once(silent.address), ProbeResult::Timeout, "");
        // It stops within a message.
        let half = server(move |_, stream| {
            let first = &kind.turns()[0];
            play(&[Turn(first.0, first.1[..3].to_vec())], stream)?;
            stay(stream)
        });
        assert_says(&asks.once(half.address), ProbeResult::Mismatch, "not the expected reply");
    }
}

/// Says `first`, then `again` without end.
fn endless(hears: bool, first: Vec<u8>, again: Vec<u8>) -> Server {
    server(move |_, stream| {
        play(&[Turn(hears, first.clone())], stream)?;
        let many = again.repeat((64 << 10) / again.len() + 1);
        loop {
            stream.write_all(&many)?;
        }
    })
}

#[test]
fn who_never_stops_is_left() {
    let notice = pg(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
    let row = packet(4, b"\x010");
    let mut rows = greeting("mysql_native_password");
    rows.extend([mysql_ok(2), packet(1, b"\x01"), column(2), packet(3, END)].concat());
    for (kind, server) in [
        (Kind::Postgres, endless(true, Vec::new(), notice)),
        (Kind::Postgres, endless(true, Vec::new(), pg_wants(0, b""))),
        (Kind::Postgres, endless(true, Vec::new(), pg_wants(5, b"salt"))),
        (Kind::Postgres, endless(true, Vec::new(), pg_wants(10, b"SCRAM-SHA-256\0\0"))),
        (Kind::Postgres, endless(true, Vec::new(), b"R".to_vec())),
        (Kind::Mysql, endless(false, greeting("x"), packet(2, b"\x01\x03"))),
        (Kind::Mysql, endless(false, greeting("caching_sha2_password"), packet(2, b"\x01\x03"))),
        (
            Kind::Mysql,
            endless(false, greeting("x"), packet(2, b"\xfemysql_native_password\0abc\0")),
        ),
        (Kind::Mysql, endless(false, Vec::new(), b"\n".to_vec())),
        (Kind::Redis, endless(true, Vec::new(), b"+".to_vec())),
        (Kind::Redis, endless(true, b"$65536\r\n".to_vec(), b"x".to_vec())),
    ] {
        let outcome = once(kind.probe(PASSWORD), &server);
        assert_says(&outcome, ProbeResult::Mismatch, "");
    }
    // Rows and replies that go on for ever answer a question.
    let after = |turns: Vec<Turn>, again: Vec<u8>| {
        server(move |_, stream| {
            play(&turns, stream)?;
            let many = again.repeat((64 << 10) / again.len() + 1);
            loop {
                stream.write_all(&many)?;
            }
        })
    };
    let head = [packet(1, b"\x01"), column(2), packet(3, END)].concat();
    let mut turns = Kind::Mysql.turns();
    turns[2].1 = head;
    let too_long = "longer than 4 MiB";
    let server = after(turns, row);
    assert_says(&once(Kind::Mysql.probe(PASSWORD), &server), ProbeResult::QueryFailed, too_long);
    let mut turns = Kind::Postgres.turns();
    turns[1].1 = Vec::new();
    let server = after(turns, pg(b'D', b"\0\x01\0\0\0\x01f"));
    assert_says(&once(Kind::Postgres.probe(PASSWORD), &server), ProbeResult::QueryFailed, too_long);
}

fn refuses(hears: bool, says: Vec<u8>) -> Server {
    server(move |_, stream| {
        play(&[Turn(hears, says.clone())], stream)?;
        close(stream)
    })
}

#[test]
fn lengths_and_messages_that_are_none() {
    use ProbeResult::{LoginFailed, Mismatch};
    let old = packet(0, b"\x093.23.58\0\x01\0\0\0abcdefgh\0\x2c\0");
    let long = pg_wants(10, &[b"X".repeat(60_000), b"\0\0".to_vec()].concat());
    for (kind, hears, says, result, part) in [
        (Kind::Postgres, true, b"R\x7f\xff\xff\xff".to_vec(), Mismatch, "R\\x7f"),
        (Kind::Postgres, true, b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(), Mismatch, "HTTP/1.1"),
        (Kind::Postgres, true, greeting("x"), Mismatch, ""),
        (Kind::Postgres, true, pg_wants(10, b"OTHER\0\0"), LoginFailed, "OTHER"),
        (Kind::Postgres, true, long, LoginFailed, "SCRAM-SHA-256"),
        (Kind::Postgres, true, pg_wants(10, b"\0"), LoginFailed, "SCRAM-SHA-256"),
        (Kind::Postgres, true, pg_wants(7, b""), LoginFailed, "GSSAPI"),
        (Kind::Postgres, true, pg_wants(3, b""), LoginFailed, "in clear"),
        (Kind::Postgres, true, pg_wants(12, b"v=AAAA"), Mismatch, ""),
        (Kind::Postgres, true, pg_error("57P03", b"starting"), Mismatch, "starting"),
        (Kind::Mysql, false, old, Mismatch, "3.23.58"),
        (Kind::Mysql, false, b"\xff\xff\xff\0abc".to_vec(), Mismatch, "\\xff\\xff\\xff"),
        (Kind::Mysql, false, packet(0, b""), Mismatch, ""),
        (Kind::Mysql, false, mysql_error(0, 1040, b"Too many"), LoginFailed, "Too many"),
        (Kind::Mysql, false, packet(0, b"\xff\x69\x04blocked"), LoginFailed, "blocked"),
        (Kind::Redis, true, b"$2147483648\r\n".to_vec(), Mismatch, "$2147483648"),
        (Kind::Redis, true, b"*1000000000\r\n".to_vec(), Mismatch, "*1000000000"),
    ] {
        let outcome = once(kind.probe(PASSWORD), &refuses(hears, says));
        assert_says(&outcome, result, part);
        assert!(outcome.detail.as_ref().unwrap().len() < 1000, "{outcome}");
    }
}

#[test]
fn a_server_of_mysql_that_asks_for_what_it_must_not() {
    use ProbeResult::{LoginFailed, Mismatch};
    let after_login = |says: Vec<u8>| {
        server(move |_, stream| {
            let mut turns = Kind::Mysql.turns();
            turns[2].1 = says.clone();
            play(&turns, stream)?;
            stay(stream)
        })
    };
    for says in [packet(1, b"\xfb/etc/passwd"), packet(1, b"\xfc\xff\xff"), packet(1, b"")] {
        assert_says(&once(Kind::Mysql.probe(PASSWORD), &after_login(says)), Mismatch, "");
    }
    for key in
        [&b"\x01-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"[..], b"\x01\xff"]
    {
        let says = packet(4, key);
        let server = server(move |_, stream| {
            let more = packet(2, b"\x01\x04");
            let turns = [
                Turn(false, greeting("caching_sha2_password")),
                Turn(true, more),
                Turn(true, says.clone()),
            ];
            play(&turns, stream)?;
            stay(stream)
        });
        assert_says(&once(Kind::Mysql.probe(PASSWORD), &server), LoginFailed, "public key");
    }
}

#[test]
fn a_server_of_redis_that_turns_the_client_away_at_once_is_quoted() {
    let probe = || Probe::Redis(config::Redis::default());
    for text in ["ERR max number of clients reached", "DENIED Redis is running in protected mode"] {
        let server = refuses(true, format!("-{text}\r\n").into_bytes());
        assert_says(&once(probe(), &server), ProbeResult::LoginFailed, text);
    }
}

/// SCRAM up to the server's first message: `salt` and how many iterations.
fn asks_for(stream: &mut TcpStream, salt: &str, iterations: u32) -> std::io::Result<()> {
    hear(stream)?;
    stream.write_all(&pg_wants(10, b"SCRAM-SHA-256\0\0"))?;
    let heard = String::from_utf8_lossy(&hear(stream)?).into_owned();
    let nonce = heard.rsplit_once("r=").unwrap().1;
    let first = format!("r={nonce}server,s={salt},i={iterations}");
    stream.write_all(&pg_wants(11, first.as_bytes()))
}

#[test]
fn a_wrong_signature_and_too_much_work_are_failed_logins() {
    let wrong = server(|_, stream| {
        asks_for(stream, "c2FsdHNhbHRzYWx0c2FsdA==", 4096)?;
        hear(stream)?;
        stream.write_all(&pg_wants(12, format!("v={}", STANDARD.encode([7; 32])).as_bytes()))?;
        stream.write_all(&pg_in())?;
        stay(stream)
    });
    let outcome = once(Kind::Postgres.probe(PASSWORD), &wrong);
    assert_says(&outcome, ProbeResult::LoginFailed, "does not prove");
    for (salt, iterations) in [("AAAA".to_owned(), 1_000_001), ("A".repeat(40_000), 1)] {
        let server = server(move |_, stream| {
            asks_for(stream, &salt, iterations)?;
            stay(stream)
        });
        let outcome = once(Kind::Postgres.probe(PASSWORD), &server);
        assert_says(&outcome, ProbeResult::LoginFailed, "SCRAM message is wrong");
    }
}

/// Threads of this process that derive keys.
fn at_work() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "scram").count()
}

#[test]
fn a_million_iterations_for_many_servers_are_no_crowd_of_threads() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let server = server(move |number, stream| {
        asks_for(stream, &STANDARD.encode(number.to_le_bytes()), 1_000_000)?;
        seen.fetch_max(at_work(), Relaxed);
        stay(stream)
    });
    let asks = Asks::new(health(Kind::Postgres.probe(PASSWORD), Duration::from_millis(500)));
    for _ in 0..2 {
        let address = server.address.into();
        let (one, kept) = (|| asks.prober.probe(&address, &asks.kept), ());
        let () = kept;
        asks.runtime.block_on(async {
            let mut probes: Vec<_> = (0..20).map(|_| Box::pin(one())).collect();
            for probe in &mut probes {
                // All of them run as soon as the first is polled and waits.
                let _ = futures_poll(probe).await;
            }
            for probe in probes {
                probe.await;
            }
        });
    }
    wait_for("a server to have been asked", || server.clients.load(Relaxed) >= 40);
    assert!(most.load(Relaxed).max(at_work()) <= 1, "{most:?} threads");
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_ready())
    })
    .await
}

/// As servers may repeat it: as it is, escaped in several ways, in another encoding, cut off.
fn repeated(password: &str) -> Vec<Vec<u8>> {
    let chars: Vec<char> = password.chars().collect();
    let latin = chars.iter().map(|it| u8::try_from(*it).unwrap_or(b'?')).collect();
    let cut: String = chars[..chars.len() - 2].iter().collect();
    vec![
        password.into(),
        password.replace('\'', "''").into(),
        password.replace('\\', "\\\\").replace('"', "\\\"").into(),
        password.escape_default().to_string().into(),
        latin,
        cut.clone().into(),
        format!("{cut}'").into(),
    ]
}

#[test]
fn a_server_that_repeats_the_password_is_not_quoted_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for password in
        [PASSWORD, "it's \"quoted\" geheim\\wort", "pässwörtlich-geheimß-langes", "a\"b'c\"d'e\"f"]
    {
        let file = folder.path().join("password");
        std::fs::write(&file, password).unwrap();
        for (kind, said) in KINDS
            .into_iter()
            .flat_map(|kind| repeated(password).into_iter().map(move |it| (kind, it)))
        {
            let message = [b"no user with '".as_slice(), &said, b"' here"].concat();
            let says = kind.refusal(&message);
            // Garbage is quoted, too.
            for says in [says, [b"\xfe\xfe\xfe? ".as_slice(), &said].concat()] {
                let hears = !matches!(kind, Kind::Mysql);
                let server = refuses(hears, says);
                let mut own = kind.probe(password);
                let from_file = match &mut own {
                    Probe::Postgres(own) => (&mut own.password, &mut own.password_file),
                    Probe::Mysql(own) => (&mut own.password, &mut own.password_file),
                    Probe::Redis(own) => (&mut own.password, &mut own.password_file),
                    _ => unreachable!(),
                };
                if said.len() % 2 == 0 {
                    (*from_file.0, *from_file.1) = (None, Some(file.clone()));
                }
                let outcome = once(own, &server);
                let shown = outcome.to_string();
                let is_plain = |it: char| it.is_ascii_alphanumeric();
                let mut runs: Vec<&str> = password.split(|it| !is_plain(it)).collect();
                runs.retain(|run| run.len() >= 3);
                runs.extend([password, "\\\"b'", "a\"b'c"]);
                assert!(runs.iter().all(|run| !shown.contains(run)), "{kind:?} {said:?}: {shown}");
            }
        }
    }
}

#[test]
fn megabytes_of_message_and_escapes_become_one_short_harmless_line() {
    let text = b"\x1b[2J\x1b]0;title\x07\r\n\xe2\x80\xae".repeat(2000);
    for kind in KINDS {
        let mut text = text.clone();
        if matches!(kind, Kind::Redis) {
            text.retain(|byte| *byte != b'\n');
        }
        let server = refuses(!matches!(kind, Kind::Mysql), kind.refusal(&text));
        let outcome = once(kind.probe(PASSWORD), &server);
        let shown = outcome.to_string();
        assert_eq!(outcome.result, ProbeResult::LoginFailed, "{shown}");
        assert!(shown.len() < 2000 && !shown.contains(maitred::border::text::commands), "{shown}");
    }
}

/// A server of `kind` that goes on answering one client after its login, but does `idle` after each answer.
fn goes_on(
    kind: Kind,
    idle: impl Fn(usize, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> Server {
    server(move |number, stream| {
        let mut turns = kind.turns();
        play(&turns, stream)?;
        idle(number, stream)?;
        let question = turns.pop().unwrap();
        loop {
            play(std::slice::from_ref(&question), stream)?;
        }
    })
}

/// Waits until the probe has read its answer; nothing tells the server when.
fn a_moment() {
    // Nothing of the probe can be seen from here.
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_connection_is_kept_and_one_that_ended_meanwhile_is_made_anew_in_the_same_probe() {
    for kind in KINDS {
        let asks = Asks::new(kept(kind.probe(PASSWORD)));
        let server = goes_on(kind, |_, _| Ok(()));
        for _ in 0..3 {
            assert_says(&asks.once(server.address), ProbeResult::Passed, "");
        }
        assert_eq!(server.clients.load(Relaxed), 1, "{kind:?}");
        for resets in [false, true] {
            let asks = Asks::new(kept(kind.probe(PASSWORD)));
            let server = goes_on(kind, move |_, stream| {
                if resets {
                    SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                }
                Err(std::io::ErrorKind::Other.into())
            });
            for count in 1..=3 {
                assert_says(&asks.once(server.address), ProbeResult::Passed, "");
                assert_eq!(server.clients.load(Relaxed), count, "{kind:?}");
                // For the end of the connection to arrive, or not: both must do.
                a_moment();
            }
        }
    }
}

#[test]
fn what_postgresql_says_unasked_on_a_kept_connection() {
    let idle = [
        (1, [pg(b'S', b"work_mem\x004MB\0"), pg(b'N', b"SNOTICE\0Mhello\0\0")].concat()),
        (2, pg_error("57P01", b"terminating connection")),
    ];
    for (connections, says) in idle {
        let asks = Asks::new(kept(Kind::Postgres.probe(PASSWORD)));
        // In the same segment as the answer, in two pieces, or later.
        for split in [0, 3, says.len()] {
            let says = says.clone();
            let server = goes_on(Kind::Postgres, move |number, stream| {
                if number > 0 {
                    return Ok(());
                }
                stream.write_all(&says[..split])?;
                a_moment();
                stream.write_all(&says[split..])?;
                if connections == 2 { Err(std::io::ErrorKind::Other.into()) } else { Ok(()) }
            });
            asks.kept.take();
            for _ in 0..2 {
                assert_says(&asks.once(server.address), ProbeResult::Passed, "");
                a_moment();
                a_moment();
            }
            // Half a message is not kept: the next probe begins anew.
            let connections = if split == 3 { 2 } else { connections };
            assert_eq!(server.clients.load(Relaxed), connections, "split at {split}");
        }
    }
}

#[test]
fn a_kept_connection_that_is_asked_nothing_does_not_hide_a_dead_server() {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let mut probe = kind.probe(PASSWORD);
        match &mut probe {
            Probe::Postgres(own) => own.role = config::Role::Any,
            Probe::Mysql(own) => own.role = config::Role::Any,
            _ => {}
        }
        let asks = Asks::new(kept(probe));
        let (listener, address) = balancer::loopback();
        let serving = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut turns = kind.turns();
            turns.pop();
            play(&turns, &mut stream).unwrap();
        });
        assert_says(&asks.once(address), ProbeResult::Passed, "");
        serving.join().unwrap();
        assert_says(&asks.once(address), ProbeResult::Refused, "");
    }
}

#[test]
fn thousands_of_probes_leave_no_descriptors() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let asks = Asks::new(kept(Kind::Redis.probe(PASSWORD)));
    let server = goes_on(Kind::Redis, |number, _| match number % 3 {
        0 => Ok(()),
        _ => Err(std::io::ErrorKind::Other.into()),
    });
    let before = count();
    for _ in 0..2000 {
        assert_says(&asks.once(server.address), ProbeResult::Passed, "");
    }
    drop(asks);
    // Other tests of this process come and go.
    wait_for("few descriptors", || count() < before + 1000);
}

/// Remembers how each connection ended: the last bytes of its client.
fn recorder(kind: Kind) -> (Server, Arc<Mutex<Vec<Vec<u8>>>>) {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let server = server(move |_, stream| {
        let turns = kind.turns();
        play(&turns[..turns.len() - 1], stream)?;
        let mut last = Vec::new();
        while let Ok(heard) = hear(stream) {
            last = heard;
            stream.write_all(&turns[turns.len() - 1].1)?;
        }
        told.lock().unwrap().push(last);
        Ok(())
    });
    (server, ends)
}

#[test]
fn at_the_end_each_kept_connection_is_told_goodbye() {
    for (kind, goodbye) in [
        (Kind::Postgres, &b"X\0\0\0\x04"[..]),
        (Kind::Mysql, b"\x01\0\0\0\x01"),
        (Kind::Redis, b"*1\r\n$4\r\nQUIT\r\n"),
    ] {
        let (server, ends) = recorder(kind);
        let mut config = balancer::config(&[server.address]);
        balancer::pool(&mut config).health =
            Health { interval: Duration::from_millis(100), ..kept(kind.probe(PASSWORD)) };
        let balancer = Balancer::start(config);
        let passed = || {
            let snapshot = balancer.supervisor().plane.snapshot.load();
            let pool = snapshot.pools.values().next().unwrap();
            pool.backends[0].live.probes.of(ProbeResult::Passed).value()
        };
        wait_for("probes", || passed() >= 3);
        drop(balancer);
        wait_for("the end of the connection", || !ends.lock().unwrap().is_empty());
        assert_eq!(*ends.lock().unwrap(), [goodbye], "{kind:?}");
    }
}

/// Whether the probes of the pool are blind.
fn is_blind(balancer: &Balancer) -> bool {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    let pool = snapshot.pools.values().next().unwrap();
    pool.shared.is_blind.load(Relaxed)
}

#[test]
fn nothing_stays_blind_when_the_probes_that_were_are_gone() {
    let server = refuses(true, Kind::Postgres.refusal(b"no"));
    let mut config = balancer::config(&[server.address]);
    let usual = config.clone();
    let often = Duration::from_millis(50);
    balancer::pool(&mut config).health =
        Health { interval: often, ..health(Kind::Postgres.probe(PASSWORD), PLENTY) };
    let mut balancer = Balancer::start(config.clone());
    let mut empty = config.clone();
    balancer::pool(&mut empty).backends.clear();
    let mut tcp = config.clone();
    balancer::pool(&mut tcp).health = Health { interval: often, ..health(Probe::Tcp, PLENTY) };
    for other in [usual, tcp, empty] {
        wait_for("blind", || is_blind(&balancer));
        balancer.supervisor.as_mut().unwrap().reload(other).unwrap();
        wait_for("no longer blind", || !is_blind(&balancer));
        balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
    }
    let asked = server.clients.load(Relaxed);
    wait_for("probes", || server.clients.load(Relaxed) > asked);
}

#[test]
fn a_pool_that_is_gone_is_no_longer_probed() {
    let (server, ends) = recorder(Kind::Redis);
    let mut config = balancer::config(&[server.address]);
    let mut without = config.clone();
    balancer::pool(&mut without).backends.clear();
    let probes =
        Health { interval: Duration::from_millis(20), ..kept(Kind::Redis.probe(PASSWORD)) };
    balancer::pool(&mut config).health = probes;
    let mut balancer = Balancer::start(config.clone());
    let start = Instant::now();
    for round in 1..=20 {
        wait_for("a connection", || server.clients.load(Relaxed) == round);
        balancer.supervisor.as_mut().unwrap().reload(without.clone()).unwrap();
        wait_for("its end", || ends.lock().unwrap().len() == round);
        balancer.supervisor.as_mut().unwrap().reload(config.clone()).unwrap();
    }
    assert!(start.elapsed() < PLENTY * 4);
}
