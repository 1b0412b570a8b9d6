//! What every case needs: processes that never outlive their test, maitred itself, its metrics and its API.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take that takes well below a second.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program: what ships, if it is named, or else what was built with the tests.
pub fn binary() -> PathBuf {
    let named = std::env::var_os("MAITRED_BINARY").map(PathBuf::from);
    // Tests run it in other folders.
    let named = named.map(|path| fs::canonicalize(&path).unwrap_or(path));
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_maitred").into())
}

/// Whether it is as small and as fast as what ships.
pub fn is_optimized() -> bool {
    !cfg!(debug_assertions) || std::env::var_os("MAITRED_BINARY").is_some()
}

/// Starts maitred as it is.
pub const SHELL: &str = "exec \"$0\" \"$@\"";

/// A deadline instead of a sleep.
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(PATIENCE, condition), "waited in vain for {what}");
}

/// Whether it comes true in time.
pub fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > time {
            return false;
        }
        // Between two looks.
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Lets the load run on.
pub fn pause(milliseconds: u64) {
    // The caller measures what happens, or does not happen, in that time.
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Tells a thread to stop, also if the test fails before it would.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// A port nobody has: below those that the kernel gives to clients, so that nobody takes it while its server is dead.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let start = (std::process::id() % 97) as u16 * 100;
        let port = 20_000 + (start + NEXT.fetch_add(1, Relaxed)) % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Where a program is. A test that cannot run has failed: nobody reads what a skipped one says.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin", "/usr/lib/postgresql/15/bin"]);
    places
        .map(|place| Path::new(place).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("`{name}` is missing: install the package `{package}`"))
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a program that must succeed, and returns what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = output(command);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// A process and all it started: killed, by their ids, when dropped.
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    pub fn start(command: &mut Command) -> Process {
        let child = command.stdin(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process { child, ended: None }
    }

    /// With pipes to its input and from its output.
    pub fn piped(command: &mut Command) -> (Process, ChildStdin, ChildStdout) {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.expect("both were asked for");
        (Process { child, ended: None }, input, output)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.id(), signal);
    }

    /// To it and all its descendants.
    pub fn signal_all(&self, signal: Signal) {
        family(self.id()).into_iter().for_each(|id| kill(id, signal));
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// How it ends, by itself.
    pub fn end(&mut self) -> ExitStatus {
        wait_for("the end of a process", || self.has_ended().is_some());
        self.ended.unwrap()
    }

    /// What it printed, when it has ended; its output is to be piped, and short.
    pub fn outcome(self) -> (ExitStatus, String, String) {
        self.outcome_within(20)
    }

    pub fn outcome_within(mut self, seconds: u64) -> (ExitStatus, String, String) {
        let ended = within(Duration::from_secs(seconds), || self.has_ended().is_some());
        assert!(ended, "a process does not end");
        let status = self.ended.unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut pipe) = self.child.stdout.take() {
            pipe.read_to_string(&mut out).unwrap();
        }
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_string(&mut err).unwrap();
        }
        (status, out, err)
    }

    /// SIGKILL for it and all its descendants.
    pub fn kill(&mut self) {
        if self.has_ended().is_some() {
            return;
        }
        let doomed = family(self.id());
        for id in &doomed {
            kill(*id, Signal::KILL);
        }
        self.ended = self.child.wait().ok();
        let gone = |id: &u32| parent_of(*id).is_none();
        within(Duration::from_secs(5), || doomed.iter().all(gone));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn kill(id: u32, signal: Signal) {
    let id = Pid::from_raw(id.cast_signed()).unwrap();
    // One that is gone already is as good as killed.
    let _ = kill_process(id, signal);
}

/// A process and its descendants, the oldest first.
fn family(id: u32) -> Vec<u32> {
    let mut family = vec![id];
    let mut next = 0;
    while next < family.len() {
        family.extend(children(family[next]));
        next += 1;
    }
    family
}

fn children(parent: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").unwrap();
    let ids = ids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| parent_of(*id) == Some(parent)).collect()
}

/// The fields of /proc/ID/stat from the state on: the name before may hold blanks.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// None if it is not alive.
fn parent_of(id: u32) -> Option<u32> {
    let fields = stat(id)?;
    (fields[0] != "Z").then(|| fields[1].parse().ok())?
}

/// Processor time of a process, user and system.
pub fn processor_time(id: u32) -> Duration {
    let fields = stat(id).unwrap();
    let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every Linux.
    Duration::from_millis(ticks * 10)
}

/// The same of one of its threads, to the nanosecond; the scheduler counts it.
pub fn thread_time(id: u32, name: &str) -> Duration {
    let threads = fs::read_dir(format!("/proc/{id}/task")).unwrap().map(|it| it.unwrap().path());
    let is_it = |path: &PathBuf| fs::read_to_string(path.join("comm")).unwrap().trim() == name;
    let path = threads.filter(is_it).next().expect("a thread of that name").join("schedstat");
    let text = fs::read_to_string(path).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Anonymous memory in use, in bytes.
pub fn anonymous(id: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// The real binary, with a configuration of its own.
pub struct Maitred {
    pub process: Process,
    pub admin: SocketAddr,
    pub dir: TempDir,
    head: String,
}

impl Maitred {
    /// `rest` is the configuration from `listeners` on.
    pub fn start(rest: &str) -> Maitred {
        Maitred::start_as(SHELL, "", rest)
    }

    /// Started by this line of shell, which is to `exec "$0" "$@"`; `more` are further sections.
    pub fn start_as(shell: &str, more: &str, rest: &str) -> Maitred {
        let dir = tempfile::tempdir().unwrap();
        let out = File::create(dir.path().join("out")).unwrap();
        Maitred::start_to(out.into(), dir, shell, more, rest)
    }

    pub fn start_to(out: Stdio, dir: TempDir, shell: &str, more: &str, rest: &str) -> Maitred {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let log = if more.contains("log:") { "" } else { "log: {sessions: all, format: json}" };
        let socket = dir.path().join("admin.sock");
        let head = format!(
            "version: 1\nadmin: {{listen: \"{admin}\", socket: {}}}\n{log}\n{more}\n",
            socket.display()
        );
        let err = File::create(dir.path().join("err")).unwrap();
        let config = dir.path().join("maitred.yaml");
        fs::write(&config, format!("{head}{rest}")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(binary()).args(["run", "--config"]).arg(config);
        let mut process = Process::start(command.stdout(out).stderr(err));
        let is_ready = || {
            let error = fs::read_to_string(dir.path().join("err")).unwrap();
            assert!(process.has_ended().is_none(), "maitred ended: {error}");
            try_get(admin, "/readyz").is_some_and(|(status, _)| status == 200)
        };
        wait_for("maitred to be ready", is_ready);
        Maitred { process, admin, dir, head }
    }

    pub fn write_config(&self, rest: &str) {
        fs::write(self.dir.path().join("maitred.yaml"), format!("{}{rest}", self.head)).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("out")).unwrap()
    }

    /// The records of sessions that have ended.
    pub fn records(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line.get("stage").is_some()).collect()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics(self.get("/metrics"))
    }

    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().value(name, labels)
    }

    pub fn get(&self, path: &str) -> String {
        let (status, body) = try_get(self.admin, path).unwrap();
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Of a backend of the pool `main`.
    /// What `maitred show` says.
    pub fn show(&self, what: &str) -> String {
        let mut command = Command::new(binary());
        succeed(command.args(["show", what, "--admin", &self.admin.to_string()]))
    }

    pub fn state(&self, backend: &str) -> String {
        self.said("main", backend, "state")
    }

    /// What the API says about a backend.
    pub fn said(&self, pool: &str, backend: &str, key: &str) -> String {
        let pool: Value =
            serde_json::from_str(&self.get(&format!("/api/v1/pools/{pool}"))).unwrap();
        let backends = pool["backends"].as_array().unwrap();
        let found = backends.iter().find(|it| it["name"] == backend).unwrap();
        found[key].as_str().unwrap_or_default().to_owned()
    }

    pub fn wait_for_said(&self, pool: &str, backend: &str, key: &str, wanted: &str) {
        let is_so = || self.said(pool, backend, key) == wanted;
        if !within(PATIENCE, is_so) {
            let why = self.said(pool, backend, "why");
            let state = self.said(pool, backend, "state");
            panic!("{pool}/{backend}: {key} is not {wanted}; {state}: {why}");
        }
    }

    pub fn wait_for_state(&self, backend: &str, state: &str) {
        wait_for(&format!("{backend} to be {state}"), || self.state(backend) == state);
    }

    pub fn sessions_total(&self, backend: &str) -> f64 {
        self.metric("maitred_backend_sessions_total", &[("backend", backend)])
    }

    pub fn wait_for_no_session(&self) {
        wait_for("all sessions to end", || {
            self.metric("maitred_listener_sessions_active", &[]) < 0.5
        });
    }
}

/// Of a UDP listener.
impl Maitred {
    /// Every flow has ended, and each that ever began is among those that are counted as ended, by stage and reason.
    pub fn wait_for_no_flow(&self) {
        wait_for("all flows to end", || self.metric("maitred_udp_flows_active", &[]) < 0.5);
        self.wait_for_no_session();
        let metrics = self.metrics();
        let begun = metrics.value("maitred_listener_sessions_total", &[]);
        let ended = metrics.value("maitred_session_closed_total", &[]);
        assert!((begun - ended).abs() < 0.5, "{begun} flows begun, {ended} ended");
    }

    pub fn closed(&self, reason: &str) -> f64 {
        self.metric("maitred_session_closed_total", &[("reason", reason)])
    }

    pub fn datagrams(&self, direction: &str) -> f64 {
        self.metric("maitred_udp_datagrams_total", &[("direction", direction)])
    }

    pub fn dropped(&self) -> f64 {
        self.metric("maitred_udp_dropped_total", &[])
    }
}

/// One scrape.
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over all series of the name that have these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut found = false;
        let mut sum = 0.0;
        for line in self.0.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let has =
                |(label, value): &(&str, &str)| rest.contains(&format!("{label}=\"{value}\""));
            if rest.starts_with(['{', ' ']) && labels.iter().all(has) {
                found = true;
                sum += rest.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
            }
        }
        assert!(found, "no series {name}{labels:?} in:\n{}", self.0);
        sum
    }
}

/// Status and body, if the server answers.
pub fn try_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// `s0`, `s1`, … at these ports.
pub fn backends(ports: &[u16]) -> String {
    let backend = |(index, port)| format!("{{address: \"127.0.0.1:{port}\", name: s{index}}}");
    ports.iter().enumerate().map(backend).collect::<Vec<_>>().join(", ")
}

/// A listener `main` on this port, and a pool of these servers that is probed often.
pub fn balanced(port: u16, ports: &[u16], probe: &str) -> String {
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools:
  main:
    balance: least_connections
    backends: [{}]
    health: {{probe: {probe}, interval: 100ms, timeout: 1s, rise: 2, fall: 2}}
",
        backends(ports)
    )
}

/// One listener `main`, and a pool of this one backend without probes.
pub fn plain(port: u16, backend: u16) -> String {
    format!(
        "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main}}}}
pools: {{main: {{backends: [{}], health: {{probe: none}}}}}}
",
        backends(&[backend])
    )
}

/// Whether it ended by itself with this code.
pub fn ended_with(status: ExitStatus, code: i32) -> bool {
    status.signal().is_none() && status.code() == Some(code)
}

/// The ids of a user of the system that a package makes.
pub fn user(name: &str, package: &str) -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with(&format!("{name}:")));
    let line = line.unwrap_or_else(|| panic!("no user {name}: install the package `{package}`"));
    let fields: Vec<&str> = line.split(':').collect();
    (fields[2].parse().unwrap(), fields[3].parse().unwrap())
}

/// A command that runs as this user.
pub fn run_as((uid, gid): (u32, u32), program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(uid).gid(gid).current_dir("/");
    command
}
