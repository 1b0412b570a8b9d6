//! `process.busy_poll`: after its last turn a worker goes on looking for that long, and sleeps otherwise.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use crate::balancer::{loopback, wait_for};
use crate::binary;

/// Ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A balancer on `port`, for TCP and UDP, in a process of its own: its threads are known by their names.
fn start(busy_poll: &str, port: u16, backend: u16) -> Running {
    let config = format!(
        "version: 1
process: {{workers: 1, busy_poll: {busy_poll}}}
admin: {{listen: none, socket: none}}
listeners:
  tcp: {{bind: \"127.0.0.1:{port}\", pool: main}}
  udp: {{bind: \"127.0.0.1:{port}\", protocol: udp, pool: main}}
pools:
  main: {{backends: [\"127.0.0.1:{backend}\"], health: {{probe: none}}}}
"
    );
    let mut run = Command::new(env!("CARGO_BIN_EXE_maitred"));
    Running(binary::start(run.args(["run", "--config", "-"]), &config))
}

/// What the thread of that name is doing: `R` runs, `S` sleeps.
fn state(process: &Running, name: &str) -> Option<char> {
    let threads = fs::read_dir(format!("/proc/{}/task", process.0.id())).unwrap();
    let stat = |thread: PathBuf| fs::read_to_string(thread.join("stat")).unwrap_or_default();
    let stats = threads.flatten().map(|thread| stat(thread.path()));
    let stat = stats.into_iter().find(|stat| stat.contains(&format!("({name})")))?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// One exchange by TCP and one by UDP; then how often of fifty looks each thread was running.
fn running_after_an_exchange(busy_poll: &str) -> (usize, usize) {
    let (listener, address) = loopback();
    let answering = UdpSocket::bind(address).unwrap();
    let (_hold, free) = loopback();
    let port = free.port();
    drop(_hold);
    let process = start(busy_poll, port, address.port());
    let mut client = None;
    wait_for("the listener", || {
        client = TcpStream::connect(("127.0.0.1", port)).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(("127.0.0.1", port)).unwrap();
    answering.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    datagrams.set_read_timeout(Some(Duration::from_secs(5))).unwrap();

    let mut from = None;
    wait_for("a datagram to pass", || {
        // That TCP is served does not say that UDP is already: what comes before is lost.
        datagrams.send(b"?").unwrap();
        from = answering.recv_from(&mut [0; 8]).ok().map(|(_, from)| from);
        from.is_some()
    });
    answering.send_to(b"!", from.unwrap()).unwrap();
    assert_eq!(datagrams.recv(&mut [0; 8]).unwrap(), 1);
    client.write_all(b"?").unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();

    let mut running = (0, 0);
    for _ in 0..50 {
        // Looks, spread over a part of the second that a spinning worker spins.
        std::thread::sleep(Duration::from_millis(2));
        running.0 += usize::from(state(&process, "tcp-0") == Some('R'));
        running.1 += usize::from(state(&process, "udp-0") == Some('R'));
    }
    wait_for("both threads to sleep", || {
        state(&process, "tcp-0") == Some('S') && state(&process, "udp-0") == Some('S')
    });
    running
}

#[test]
fn a_worker_that_may_spin_runs_on_after_an_exchange_and_then_sleeps() {
    let (tcp, udp) = running_after_an_exchange("1s");
    assert!(tcp >= 40 && udp >= 40, "of 50 looks, running: TCP {tcp}, UDP {udp}");
}

#[test]
fn a_worker_that_may_not_sleeps_at_once() {
    let (tcp, udp) = running_after_an_exchange("none");
    assert!(tcp <= 10 && udp <= 10, "of 50 looks, running: TCP {tcp}, UDP {udp}");
}
