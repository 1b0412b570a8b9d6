//! The UDP side of the demonstration: backends that answer each datagram, one of which has outages, and clients that
//! ask and check every byte of the answers.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use super::backends::{MASK, Outage, Serving, backend_config};
use super::clients::Seen;
use crate::config;

/// Longest wait for an answer: a datagram that its backend received just before an outage gets none.
const PATIENCE: Duration = Duration::from_millis(500);

/// Fits into one packet on any network.
const LARGEST: usize = 1200;

/// Between two datagrams of a client.
const PAUSE: Duration = Duration::from_millis(5);

/// A backend on a thread of its own; ends on drop.
pub struct Backend {
    name: &'static str,
    address: SocketAddr,
    _thread: Serving,
}

impl Backend {
    pub fn start(name: &'static str, outage: Option<Outage>) -> io::Result<Backend> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = socket.local_addr()?;
        let thread = Serving::start(name, async move |stop| {
            serve(socket, address, outage, stop).await;
        })?;
        Ok(Backend { name, address, _thread: thread })
    }

    pub fn config(&self) -> config::Backend {
        backend_config(self.name, self.address)
    }
}

async fn serve(
    first: std::net::UdpSocket,
    address: SocketAddr,
    outage: Option<Outage>,
    stop: &AtomicBool,
) {
    let mut socket = Some(first);
    while !stop.load(Relaxed) {
        let bound = socket.take().map_or_else(|| std::net::UdpSocket::bind(address), Ok);
        let until = outage.map(|outage| Instant::now() + outage.up);
        if let Ok(socket) = bound.and_then(listen) {
            answer(&socket, until, stop).await;
        }
        let back = Instant::now() + outage.map_or(Duration::from_millis(100), |it| it.away);
        while Instant::now() < back && !stop.load(Relaxed) {
            // Away, and checking whether to stop.
            sleep(Duration::from_millis(50)).await;
        }
    }
}

fn listen(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Answers until `until` or `stop`.
async fn answer(socket: &UdpSocket, until: Option<Instant>, stop: &AtomicBool) {
    let mut buffer = [0; LARGEST];
    while !stop.load(Relaxed) && until.is_none_or(|until| Instant::now() < until) {
        let received = timeout(Duration::from_millis(50), socket.recv_from(&mut buffer)).await;
        let Ok(Ok((count, from))) = received else { continue };
        for byte in &mut buffer[..count] {
            *byte ^= MASK;
        }
        // A client that has left needs no answer.
        let _ = socket.send_to(&buffer[..count], from).await;
    }
}

/// Starts `count` clients on a thread of their own; they end soon after `stop`.
pub fn start(
    balancer: SocketAddr,
    count: usize,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("demo-datagrams".into()).spawn(move || {
        runtime.block_on(async {
            let clients = (0..count).map(|_| {
                let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
                tokio::spawn(async move {
                    let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else {
                        return;
                    };
                    while !stop.load(Relaxed) && socket.connect(balancer).await.is_ok() {
                        ask(&socket, &seen).await;
                        sleep(PAUSE).await;
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                // The panic was printed by its thread.
                let _ = client.await;
            }
        });
    })
}

/// One question and its answer, every byte checked.
async fn ask(socket: &UdpSocket, seen: &Seen) {
    let mut question = vec![0; fastrand::usize(1..=LARGEST)];
    fastrand::fill(&mut question);
    let mut answer = vec![0; LARGEST + 1];
    let asked = socket.send(&question).await;
    match (asked, timeout(PATIENCE, socket.recv(&mut answer)).await) {
        (Ok(_), Ok(Ok(count))) => {
            let right = question.iter().map(|byte| byte ^ MASK);
            let is_right = right.eq(answer[..count].iter().copied());
            seen.answered(count, is_right);
        }
        _ => seen.unanswered(),
    }
}
