//! Who may ask the admin server for what, and how much of it anybody may take.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use maitred::admin::http::{Bounds, serve, serve_socket};
use maitred::admin::listen::{bind, bind_socket};
use maitred::admin::{Ask, State};
use maitred::config::Token;
use maitred::telemetry::history::History;
use maitred::telemetry::metrics::Sources;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

use crate::balancer::{self, Balancer, loopback, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);
/// The outcome of a reload that does not end.
const UNANSWERED: &str = "unanswered";
const TOKEN: &str = "0123456789abcdef0123";

/// An admin server on TCP and on a socket, whose reloads have this outcome.
pub struct Admin {
    pub state: Arc<State>,
    address: SocketAddr,
    dir: TempDir,
    _balancer: Balancer,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    fn start(listen: &str, token: Option<&str>, bounds: Bounds) -> Admin {
        Admin::reloading(listen, token, bounds, Ok(vec!["pool main changed".to_owned()]))
    }

    fn reloading(
        listen: &str,
        token: Option<&str>,
        bounds: Bounds,
        outcome: Result<Vec<String>, String>,
    ) -> Admin {
        let (_backend, backend) = loopback();
        let balancer = Balancer::start(balancer::config(&[backend]));
        Admin::around(balancer, listen, token, bounds, outcome)
    }

    pub fn around(
        balancer: Balancer,
        listen: &str,
        token: Option<&str>,
        bounds: Bounds,
        outcome: Result<Vec<String>, String>,
    ) -> Admin {
        let dir = tempfile::tempdir().unwrap();
        let bound = bind(listen.parse().unwrap(), None).unwrap();
        let socket = bind_socket(&dir.path().join("admin.sock")).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], bound.address.port()));
        let (asks, mut asked) = mpsc::channel(1);
        let state = Arc::new(state(&balancer, token, asks));
        let served = Arc::clone(&state);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let _tcp = serve(bound, Arc::clone(&served), bounds).unwrap();
                let _unix = serve_socket(socket, Arc::clone(&served), bounds).unwrap();
                let mut unanswered = Vec::new();
                let answering = async {
                    while let Some(ask) = asked.recv().await {
                        match ask {
                            Ask::Drain => {}
                            Ask::Reload(answer) if outcome == Err(UNANSWERED.to_owned()) => {
                                unanswered.push(answer);
                            }
                            Ask::Reload(answer) => answer.send(outcome.clone()).unwrap(),
                            Ask::Kill { answer, .. } => answer.send(2).unwrap(),
                            Ask::SetByHand { place: (pool, _), answer, .. } => {
                                let pools = &served.sources.plane.snapshot.load().pools;
                                let first = Arc::clone(&pools[&*pool].backends[0]);
                                assert!(answer.send(Ok(Some(first))).is_ok());
                            }
                        }
                    }
                };
                tokio::select! {
                    _ = stopped => {}
                    () = answering => {}
                }
            });
        });
        Admin { state, address, dir, _balancer: balancer, stop: Some(stop), thread: Some(thread) }
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

pub fn state(balancer: &Balancer, token: Option<&str>, asks: mpsc::Sender<Ask>) -> State {
    let supervisor = balancer.supervisor();
    State {
        sources: Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::default(),
        },
        events: Arc::clone(&supervisor.events),
        history: History::new(Instant::now(), SystemTime::now()),
        started: supervisor.started,
        version: "test",
        sessions: Box::new(supervisor.lister()),
        flows: Box::new(supervisor.flow_lister()),
        token: ArcSwapOption::from_pointee(token.map(|token| Token::read(token).unwrap())),
        asks,
        has_socket: true.into(),
    }
}

/// Status and body of the answer to one request, which is to close the connection.
fn ask(mut stream: impl Read + Write, line: &str, headers: &str) -> (u16, String) {
    // In one piece: once it has what it needs, it may answer and close.
    let request = format!("{line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    answer(&mut stream)
}

fn answer(stream: &mut impl Read) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub fn ask_socket(path: &Path, line: &str) -> (u16, Value) {
    ask_socket_with(path, line, "")
}

pub fn ask_socket_with(path: &Path, line: &str, body: &str) -> (u16, Value) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers = format!("Host: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // An empty line behind the body is allowed (RFC 9112, section 2.2).
    let (status, body) = ask(stream, line, &headers);
    (status, serde_json::from_str(&body).unwrap())
}

/// An answer that is no JSON.
pub fn ask_text(path: &Path, route: &str) -> String {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, &format!("GET {route}"), "Host: localhost\r\n").1
}

#[test]
fn a_foreign_name_or_origin_is_refused_on_loopback() {
    let admin = Admin::start("127.0.0.1:0", None, Bounds::default());
    let get = |headers: &str| ask(admin.tcp(), "GET /metrics", headers);
    assert_eq!(get("Host: localhost:9900\r\n").0, 200);
    let (status, why) = get("Host: evil.example:9900\r\n");
    assert_eq!((status, why.as_str()), (403, "Host must be localhost or an IP address\n"));
    let (status, why) = get("Host: localhost\r\nOrigin: http://evil.example\r\n");
    assert_eq!((status, why.as_str()), (403, "requests from other origins are refused\n"));
    assert_eq!(get("Host: localhost\r\nOrigin: http://localhost\r\n").0, 200);
}

/// A scraper calls us by the name of a container or a service.
#[test]
fn elsewhere_any_name_may_read_and_nobody_may_change() {
    let admin = Admin::start("0.0.0.0:0", None, Bounds::default());
    let host = "Host: maitred:9900\r\n";
    assert_eq!(ask(admin.tcp(), "GET /metrics", host).0, 200);
    let (status, why) = ask(admin.tcp(), "POST /api/v1/reload", host);
    assert_eq!(status, 403);
    assert!(why.contains("admin.socket") && why.contains("admin.token_file"), "{why}");
    let foreign = "Host: maitred:9900\r\nOrigin: http://evil.example\r\n";
    assert_eq!(ask(admin.tcp(), "GET /", foreign).0, 403);
}

#[test]
fn a_change_takes_the_token_or_the_socket() {
    let admin = Admin::start("127.0.0.1:0", Some(TOKEN), Bounds::default());
    let post = |header: &str| {
        ask(admin.tcp(), "POST /api/v1/reload", &format!("Host: localhost\r\n{header}"))
    };
    assert_eq!(post("").0, 401);
    assert_eq!(post("Authorization: Bearer 0123456789abcdef0124\r\n").0, 401);
    let (status, body) = post(&format!("Authorization: Bearer {TOKEN}\r\n"));
    assert_eq!((status, body.as_str()), (200, r#"{"changes":["pool main changed"]}"#));
    assert_eq!(fs::metadata(admin.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    let (status, body) = ask_socket(&admin.socket(), "POST /api/v1/reload");
    assert_eq!((status, &body["changes"][0]), (200, &"pool main changed".into()));
    assert_eq!(ask_socket(&admin.socket(), "POST /api/v1/drain").0, 202);
    // A read never changes anything.
    assert_eq!(ask(admin.tcp(), "GET /api/v1/reload", "Host: localhost\r\n").0, 405);
    assert_eq!(ask_socket(&admin.socket(), "GET /api/v1/info").0, 200);
}

#[test]
fn a_refused_reload_is_answered_with_its_report() {
    let refused = Err("error[E0010]: unknown key".to_owned());
    let admin = Admin::reloading("127.0.0.1:0", None, Bounds::default(), refused);
    let (status, body) = ask_socket(&admin.socket(), "POST /api/v1/reload");
    assert_eq!((status, &body["error"]), (422, &"error[E0010]: unknown key".into()));
}

#[test]
fn heads_and_bodies_are_bounded() {
    let admin = Admin::start("127.0.0.1:0", None, Bounds::default());
    let get =
        |headers: &str| ask(admin.tcp(), "GET /livez", &format!("Host: localhost\r\n{headers}"));
    let many = |count: usize| (0..count).map(|it| format!("X-{it}: 1\r\n")).collect::<String>();
    assert_eq!(get(&many(50)).0, 200);
    assert_eq!(get(&many(70)).0, 431);
    assert_eq!(get(&format!("X: {}\r\n", "x".repeat(40_000))).0, 200);
    assert_eq!(get("Content-Length: 1000000000\r\n").0, 413);
    // More than fits: the server may close while the client still writes.
    let mut stream = admin.tcp();
    let head = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(80_000));
    let written = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let is_431 = answer.starts_with(b"HTTP/1.1 431");
    assert!(is_431 || written.is_err() || read.is_err(), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_client_that_dawdles_is_let_go() {
    let short = Duration::from_millis(100);
    let bounds = Bounds { headers: short, ..Bounds::default() };
    let admin = Admin::start("127.0.0.1:0", None, bounds);
    for head in
        ["", "GET /livez HTTP/1.1\r\nHost: loc", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    {
        let mut stream = admin.tcp();
        stream.write_all(head.as_bytes()).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.starts_with(b"HTTP/1.1 200"), head.ends_with("\r\n\r\n"), "{head:?}");
    }
    let bounds = Bounds { connection: short, ..Bounds::default() };
    let admin = Admin::start("127.0.0.1:0", None, bounds);
    let mut stream = admin.tcp();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream), (200, "ok\n".to_owned()), "answered, then closed");
}

const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

#[test]
fn who_is_silent_for_longest_makes_room_and_the_socket_has_places_of_its_own() {
    let admin = Admin::start("127.0.0.1:0", None, Bounds { connections: 2, ..Bounds::default() });
    let [mut silent, mut slow] = [admin.tcp(), admin.tcp()];
    for stream in [&mut silent, &mut slow] {
        stream.write_all(b"GET /livez HTTP/1.1\r\n").unwrap();
    }
    // It has read both.
    // Only time tells who was silent for longest.
    std::thread::sleep(Duration::from_millis(50));
    slow.write_all(b"Host: localhost\r\n").unwrap();
    // The same.
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        let mut more = admin.tcp();
        more.write_all(LIVEZ).unwrap();
        assert_eq!(answer(&mut more), (200, "ok\n".to_owned()));
    }
    assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)), "it went");
    slow.write_all(b"Connection: close\r\n\r\n").unwrap();
    assert_eq!(answer(&mut slow), (200, "ok\n".to_owned()), "it stayed");
    assert_eq!(ask_socket(&admin.socket(), "GET /api/v1/info").0, 200);
}

/// Who is let go comes again at once: a rush, in which each newcomer still gets the time to say something.
#[test]
fn a_rush_of_silent_ones_keeps_nobody_out() {
    let admin = Admin::start("127.0.0.1:0", None, Bounds { connections: 4, ..Bounds::default() });
    let over = std::sync::atomic::AtomicBool::new(false);
    let address = admin.tcp().peer_addr().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let mut silent = TcpStream::connect(address).unwrap();
                    silent.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                    let _ = silent.read(&mut [0]);
                }
            });
        }
        let answers: Vec<_> = (0..10)
            .map(|_| {
                let mut stream = admin.tcp();
                stream.write_all(LIVEZ)?;
                let mut said = [0; 12];
                stream.read_exact(&mut said).map(|()| said)
            })
            .collect();
        over.store(true, Relaxed);
        for said in answers {
            assert_eq!(&said.unwrap(), b"HTTP/1.1 200");
        }
    });
}

#[test]
fn while_all_places_wait_for_answers_livez_and_readyz_are_answered() {
    let bounds = Bounds { connections: 2, ..Bounds::default() };
    let outcome = Err(UNANSWERED.to_owned());
    let admin = Admin::reloading("127.0.0.1:0", Some(TOKEN), bounds, outcome);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = admin.tcp();
            let head = format!(
                "Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 0\r\n"
            );
            write!(stream, "POST /api/v1/reload HTTP/1.1\r\n{head}\r\n").unwrap();
            stream
        })
        .collect();
    let ask_for = |path: &str| ask(admin.tcp(), &format!("GET {path}"), "Host: localhost\r\n").0;
    wait_for("both to wait", || ask_for("/api/v1/info") == 503);
    assert_eq!([ask_for("/livez"), ask_for("/readyz")], [200, 200]);
    drop(waiting);
    wait_for("a place", || ask_for("/api/v1/info") == 200);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let bounds = Bounds { stall: Duration::from_millis(100), ..Bounds::default() };
    let admin = Admin::start("127.0.0.1:0", None, bounds);
    let mut stream = UnixStream::connect(admin.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head =
        "PATCH /api/v1/pools/main/backends/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    write!(stream, "{head}Content-Length: 20\r\n\r\n{{\"state\"").unwrap();
    assert_eq!(answer(&mut stream), (408, "the body did not arrive in time\n".to_owned()));
}

/// The real binary, which reads its configuration again.
struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    fn start(admin: &str) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("maitred.yaml");
        fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        fs::write(&file, configuration(admin, "")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
        command.args(["run", "--config"]).arg(&file).env_remove("MAITRED_CONFIG");
        command.env("XDG_RUNTIME_DIR", dir.path()).stdin(Stdio::null());
        command.stdout(File::create(dir.path().join("out")).unwrap()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap(), dir }
    }

    fn log(&self) -> Vec<Value> {
        let file = File::open(self.dir.path().join("out")).unwrap();
        let lines = BufReader::new(file).lines();
        // The last one may not be whole yet.
        lines.filter_map(|line| serde_json::from_str(&line.unwrap()).ok()).collect()
    }

    /// What the log says of the admin server under this key.
    fn listening(&self, key: &str) -> String {
        let find = || {
            let log = self.log();
            let mut lines = log.iter().filter(|line| line["message"] == "admin listening");
            lines.find_map(|line| line[key].as_str().map(str::to_owned))
        };
        wait_for("the admin server", || find().is_some());
        find().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is as good as killed.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn configuration(admin: &str, more: &str) -> String {
    format!(
        "version: 1\nprocess: {{workers: 1}}\nadmin: {{{admin}}}\n\
         listeners: {{main: {{bind: \"127.0.0.1:0\", pool: main}}}}\n\
         pools: {{main: {{backends: [\"127.0.0.1:9\"], health: {{probe: none}}}}{more}}}\n"
    )
}

#[test]
fn the_real_one_reloads_and_drains_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let admin = format!("listen: \"127.0.0.1:0\", socket: {}, token_file: token", socket.display());
    let mut running = Running::start(&admin);
    let file = running.dir.path().join("maitred.yaml");
    assert_eq!(running.listening("socket"), socket.display().to_string());
    let reload = || ask_socket(&socket, "POST /api/v1/reload");
    assert_eq!(reload().1["changes"], Value::Array(Vec::new()));
    let extra = ", extra: {backends: [\"127.0.0.1:10\"]}";
    fs::write(&file, configuration(&admin, extra)).unwrap();
    assert_eq!(reload().1["changes"][0], "pool extra added");
    fs::write(&file, configuration(&admin, ", extra: {backend: []}")).unwrap();
    let (status, body) = reload();
    assert_eq!(status, 422);
    assert!(body["error"].as_str().unwrap().contains("unknown key `backend`"), "{body}");
    let info = || ask_socket(&socket, "GET /api/v1/info").1;
    let refused = info()["reload_refused"].as_str().unwrap().to_owned();
    assert!(
        body["error"].as_str().unwrap().starts_with(refused.split(" --> ").next().unwrap())
            && refused.ends_with("maitred.yaml:5:67"),
        "{refused}"
    );
    assert_eq!(info()["changes"], "token");
    let moved = configuration(&admin, "").replace("admin.sock", "other.sock");
    fs::write(&file, moved).unwrap();
    let (_, body) = reload();
    let expected = "admin.socket cannot change while running; restart to change it";
    assert_eq!(body["error"], expected);

    // Another token counts from the reload on.
    fs::write(&file, configuration(&admin, extra)).unwrap();
    fs::write(running.dir.path().join("token"), "another-token-of-some-length").unwrap();
    assert_eq!(reload().1["changes"][0], "admin changed: token");
    assert_eq!(info()["reload_refused"], Value::Null);
    let address = running.listening("address");
    let drain = |token| {
        let stream = TcpStream::connect(&*address).unwrap();
        let headers = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
        ask(stream, "POST /api/v1/drain", &headers).0
    };
    assert_eq!(drain(TOKEN), 401);
    assert_eq!(drain("another-token-of-some-length"), 202);
    wait_for("the end", || running.child.try_wait().unwrap().is_some());
    assert!(running.child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn a_named_socket_that_cannot_be_had_is_an_error_and_a_token_file_must_hold_one() {
    for (admin, expected) in [
        (
            "listen: none, socket: /no-such-folder/s",
            "cannot bind the admin socket /no-such-folder/s",
        ),
        ("listen: none, socket: none, token_file: maitred.yaml", "something else than one token"),
        ("listen: none, socket: none, token_file: absent", "cannot be read: No such file"),
    ] {
        let mut running = Running::start(admin);
        let mut error = String::new();
        running.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert_eq!(running.child.wait().unwrap().code(), Some(1));
        assert!(error.contains(expected), "{expected} is not in {error}");
    }
}
