//! More sessions than there are source ports, one after the other, in a network of the test's own.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Instant;

use socket2::{Domain, Socket, Type};

use crate::harness::{Maitred, Process, free_port, plain, program, succeed};
use crate::local::{Conduct, ROLE, again, backend, complete};

const TEST: &str = "source_ports::ports_do_not_run_out";
const INSIDE: &str = "in a network of its own";
const THREADS: u8 = 4;
const SESSIONS: usize = 10_000;

/// A network namespace, gone when dropped.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Namespace {
        let name = format!("maitred-test-{}", std::process::id());
        succeed(ip().args(["netns", "add", &name]));
        let namespace = Namespace { name };
        succeed(ip().args(["-n", &namespace.name, "link", "set", "lo", "up"]));
        let range = "echo 40000 41999 > /proc/sys/net/ipv4/ip_local_port_range";
        succeed(ip().args(["netns", "exec", &namespace.name, "sh", "-c", range]));
        namespace
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that cannot be deleted is empty: its processes are gone.
        let _ = ip().args(["netns", "delete", &self.name]).status();
    }
}

fn ip() -> Command {
    Command::new(program("ip", "iproute2"))
}

#[test]
fn ports_do_not_run_out() {
    if std::env::var(ROLE).is_ok_and(|role| role == INSIDE) {
        return inside();
    }
    let namespace = Namespace::new();
    let inner = again(TEST, INSIDE);
    let mut command = ip();
    command.args(["netns", "exec", &namespace.name]).arg(inner.get_program());
    command.args(inner.get_args()).env(ROLE, INSIDE);
    let process = Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (status, out, err) = process.outcome_within(90);
    assert!(status.success(), "{out}\n{err}");
    let figures = out.lines().find(|line| line.contains("sessions in")).unwrap();
    println!("{figures}");
}

/// A connection from this address and port, used once. The port is outside of the range that maitred has: clients
/// that are elsewhere take none of its ports either.
fn connect_from(source: SocketAddr, port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&source.into())?;
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket)
}

fn inside() {
    let port = free_port();
    let maitred = Maitred::start(&plain(port, backend(Conduct::Echo)));
    let begun = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut errors = Vec::new();
                for number in 0..SESSIONS / usize::from(THREADS) {
                    let address = [127, 1, thread + 1, (number % 100) as u8 + 1];
                    let source = SocketAddr::from((address, 50_000 + (number / 100) as u16));
                    let outcome = connect_from(source, port);
                    if let Err(error) = outcome.and_then(|socket| complete(socket.into())) {
                        errors.push(error.to_string());
                    }
                }
                errors
            })
        })
        .collect();
    let errors: Vec<String> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let took = begun.elapsed();
    let exhausted = maitred.metric("maitred_source_ports_exhausted_total", &[]);
    println!(
        "{SESSIONS} sessions in {took:?} over 2000 ports: {} errors, exhausted {exhausted} times",
        errors.len()
    );
    assert!(errors.is_empty(), "{} errors, the first: {:?}", errors.len(), errors.first());
    assert!(exhausted < 0.5);
}
