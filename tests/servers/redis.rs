//! Redis behind maitred: redis-benchmark before and after a server is killed and comes back, and own clients
//! that count what breaks meanwhile.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::failover::{ADDRESSES, Database, Stay, Visit};
use crate::harness::{Maitred, Process, balanced, free_port, output, pause, program, wait_for};

/// With settings of its own; it is not waited for, as it may want a password.
pub fn start_with(port: u16, more: &[&str]) -> Process {
    let mut command = Command::new(program("redis-server", "redis-server"));
    command.args(["--port", &port.to_string(), "--save", ""]);
    if !more.contains(&"--bind") {
        command.args(["--bind", "127.0.0.1"]);
    }
    command.args(["--appendonly", "no", "--dir", "/tmp"]).args(more).stdout(Stdio::null());
    Process::start(command.stderr(Stdio::null()))
}

fn server(port: u16) -> Process {
    let process = start_with(port, &[]);
    wait_for("redis", || exchange(port, 1).is_ok());
    process
}

/// One connection: stores and reads a value so many times.
fn exchange(port: u16, times: u32) -> io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    for number in 0..times {
        let value = format!("value {:>8}", number % 100);
        stream.write_all(format!("SET key:{port} \"{value}\"\r\n").as_bytes())?;
        expect(&mut stream, "+OK\r\n")?;
        stream.write_all(format!("ECHO \"{value}\"\r\n").as_bytes())?;
        expect(&mut stream, &format!("${}\r\n{value}\r\n", value.len()))?;
    }
    Ok(())
}

fn expect(stream: &mut TcpStream, answer: &str) -> io::Result<()> {
    let mut buffer = vec![0; answer.len()];
    stream.read_exact(&mut buffer)?;
    assert_eq!(String::from_utf8_lossy(&buffer), answer, "not what Redis says");
    Ok(())
}

/// A primary and two replicas, for `failover`.
pub struct Trio {
    servers: Vec<Process>,
    ports: Vec<u16>,
}

pub const SECRET: &str = "a_secret";

impl Trio {
    pub fn start() -> Trio {
        let ports: Vec<u16> = ADDRESSES.iter().map(|_| free_port()).collect();
        let primary = ports[0].to_string();
        let follows = ["--replicaof", ADDRESSES[0], &primary];
        let start = |(number, port): (usize, &u16)| {
            let follows = if number == 0 { &[][..] } else { &follows };
            start_with(*port, &[&own(number)[..], follows].concat())
        };
        let servers = ports.iter().enumerate().map(start).collect();
        let trio = Trio { servers, ports };
        wait_for("replication", || trio.on(1, "role").contains("connected"));
        wait_for("replication", || trio.on(2, "role").contains("connected"));
        trio
    }

    /// The first one again, as it was at the beginning: as a primary.
    pub fn restart(&mut self) {
        self.servers[0] = start_with(self.ports[0], &own(0));
    }

    fn on(&self, number: usize, command: &str) -> String {
        let mut client = Command::new(program("redis-cli", "redis-tools"));
        client.args(["-h", ADDRESSES[number], "-p", &self.ports[number].to_string()]);
        client.args(["--no-auth-warning", "-a", SECRET]).args(command.split(' '));
        String::from_utf8_lossy(&output(&mut client).stdout).into_owned()
    }
}

/// Settings of the server at this place, where it is also to be found by Sentinel.
fn own(number: usize) -> [&'static str; 8] {
    let at = ADDRESSES[number];
    let places = ["--bind", at, "--replica-announce-ip", at];
    let secrets = ["--requirepass", SECRET, "--masterauth", SECRET];
    std::array::from_fn(|index| if index < 4 { places[index] } else { secrets[index - 4] })
}

/// Logs in and waits for what the server says to each command.
struct Client(TcpStream);

impl Client {
    fn connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut client = Client(stream);
        client.command(&format!("AUTH {SECRET}"))?;
        Ok(client)
    }

    fn command(&mut self, line: &str) -> io::Result<()> {
        self.0.write_all(format!("{line}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            answer.push(byte[0]);
        }
        match &*answer {
            b"+OK\r\n" => Ok(()),
            other => Err(io::Error::other(String::from_utf8_lossy(other).into_owned())),
        }
    }
}

impl Database for Trio {
    fn name(&self) -> &'static str {
        "Redis"
    }

    fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    fn probe(&self, role: &str) -> String {
        format!("{{redis: {{password: {SECRET}, role: {role}}}}}")
    }

    fn visit(&self, port: u16) -> Visit {
        Box::new(move || {
            let write = || Client::connect(port)?.command("SET key value");
            write().map_err(|error| error.to_string())
        })
    }

    fn stay(&self, port: u16) -> Stay {
        Box::new(move || {
            let write = || {
                let mut client = Client::connect(port)?;
                loop {
                    client.command("SET key value")?;
                    // Not as fast as it can: six of these would keep the machine busy.
                    std::thread::sleep(Duration::from_millis(1));
                }
            };
            let ended: io::Result<()> = write();
            ended.err().map(|error| error.to_string()).unwrap_or_default()
        })
    }

    fn is_refusal(&self, error: &str) -> bool {
        error.contains("READONLY")
    }

    fn kill(&mut self) {
        self.servers[0].kill();
    }

    fn freeze(&mut self, is_frozen: bool) {
        self.servers[0].signal_all(if is_frozen { Signal::STOP } else { Signal::CONT });
    }

    /// Before anybody is promoted: a replica of one that is none yet. Its sessions stay, and are told at their next write.
    fn demote(&mut self) {
        let port = self.ports[1];
        self.on(0, &format!("replicaof {} {port}", ADDRESSES[1]));
    }

    fn promote(&mut self) {
        self.on(1, "replicaof no one");
        let port = self.ports[1];
        self.on(2, &format!("replicaof {} {port}", ADDRESSES[1]));
    }

    fn follow(&mut self) {}
}

/// Clients that come and go until they are told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<u64>>,
}

impl Clients {
    fn start(port: u16, count: u32) -> Clients {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let run = |_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut errors = 0;
                while !stop.load(Relaxed) {
                    match exchange(port, 20) {
                        Ok(()) => done.fetch_add(1, Relaxed),
                        Err(_) => {
                            errors += 1;
                            errors
                        }
                    };
                }
                errors
            })
        };
        let threads = (0..count).map(run).collect();
        Clients { stop, done, threads }
    }

    /// How many sessions broke.
    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    }
}

fn benchmark(port: u16) {
    let mut command = Command::new(program("redis-benchmark", "redis-tools"));
    command.args(["-p", &port.to_string(), "-n", "20000", "-c", "20", "-t", "set,get", "-q"]);
    let output = output(&mut command);
    let said = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
    let said = said + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("rror"), "redis-benchmark: {said}");
    let lines = said.lines().filter(|line| line.contains("requests per second"));
    let lines: Vec<&str> = lines.collect();
    println!("redis-benchmark: {}", lines.join("; "));
    assert_eq!(lines.len(), 2, "{said}");
}

#[test]
fn a_killed_server_costs_no_more_than_its_own_sessions() {
    const CLIENTS: u32 = 8;
    let ports = [free_port(), free_port(), free_port()];
    let mut servers = ports.map(server);
    let port = free_port();
    let probe = "{exchange: {send: \"PING\\r\\n\", expect: \"+PONG\"}}";
    let maitred = Maitred::start(&balanced(port, &ports, probe));
    benchmark(port);
    let clients = Clients::start(port, CLIENTS);
    wait_for("sessions on s1", || maitred.sessions_total("s1") > 20.0);
    servers[1].kill();
    maitred.wait_for_state("s1", "down");
    let at_down = maitred.sessions_total("s1");
    let done = clients.done.load(Relaxed);
    pause(400);
    assert!((maitred.sessions_total("s1") - at_down).abs() < 0.5, "new sessions on a dead server");
    assert!(clients.done.load(Relaxed) > done, "the others served on");
    servers[1] = server(ports[1]);
    maitred.wait_for_state("s1", "up");
    wait_for("new sessions on s1", || maitred.sessions_total("s1") > at_down + 20.0);
    let done = clients.done.load(Relaxed);
    let broken = clients.stop();
    println!("redis: {done} sessions, {broken} broke");
    assert!(broken <= u64::from(2 * CLIENTS), "{broken} sessions broke");
    let before = maitred.sessions_total("s1");
    benchmark(port);
    assert!(maitred.sessions_total("s1") >= before + 6.0, "it takes its share again");
}
