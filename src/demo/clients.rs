//! Built-in clients: each connects, exchanges a few messages of random size, checks every byte of the answers,
//! and begins again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::backends::MASK;

/// Longest wait for anything; the flaky backend's sessions end by reset long before.
const PATIENCE: Duration = Duration::from_secs(10);

/// Largest message.
const LARGEST: usize = 32 * 1024;

/// What all clients counted.
#[derive(Default)]
pub struct Seen {
    sessions: AtomicU64,
    exchanges: AtomicU64,
    bytes: AtomicU64,
    ended_early: AtomicU64,
    refused: AtomicU64,
    wrong_bytes: AtomicU64,
    datagrams: AtomicU64,
    unanswered: AtomicU64,
}

impl Seen {
    pub fn sessions(&self) -> u64 {
        self.sessions.load(Relaxed)
    }

    pub fn exchanges(&self) -> u64 {
        self.exchanges.load(Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Sessions that began and were reset or closed before their last answer.
    pub fn ended_early(&self) -> u64 {
        self.ended_early.load(Relaxed)
    }

    /// Connections that were not made, or closed before the first answer.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub fn wrong_bytes(&self) -> u64 {
        self.wrong_bytes.load(Relaxed)
    }

    /// Datagrams with an answer.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Relaxed)
    }

    /// Datagrams without an answer: the flaky backend had received them before an outage.
    pub fn datagrams_unanswered(&self) -> u64 {
        self.unanswered.load(Relaxed)
    }

    pub(super) fn answered(&self, bytes: usize, is_right: bool) {
        self.datagrams.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64 * 2, Relaxed);
        self.wrong_bytes.fetch_add(u64::from(!is_right), Relaxed);
    }

    pub(super) fn unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }
}

/// The clients' thread.
pub struct Clients(JoinHandle<()>);

impl Clients {
    pub fn join(self) {
        // The panic was printed by its thread.
        let _ = self.0.join();
    }
}

/// Starts `count` clients on a thread of their own; they end soon after `stop`.
pub fn start(
    address: SocketAddr,
    count: usize,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
) -> io::Result<Clients> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("demo-clients".into()).spawn(move || {
        runtime.block_on(async {
            let clients = (0..count).map(|_| {
                let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Relaxed) {
                        live(address, &seen).await;
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                // The panic was printed by its thread.
                let _ = client.await;
            }
        });
    })?;
    Ok(Clients(thread))
}

async fn live(address: SocketAddr, seen: &Seen) {
    let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(address)).await else {
        seen.refused.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
        return;
    };
    for number in 0..fastrand::usize(2..20) {
        match timeout(PATIENCE, exchange(&mut stream, seen)).await {
            Ok(Ok(())) if number == 0 => {
                seen.sessions.fetch_add(1, Relaxed);
            }
            Ok(Ok(())) => {}
            _ => {
                let count = if number == 0 { &seen.refused } else { &seen.ended_early };
                count.fetch_add(1, Relaxed);
                return;
            }
        }
    }
}

/// One message and its answer, every byte checked.
async fn exchange(stream: &mut TcpStream, seen: &Seen) -> io::Result<()> {
    let size = 1 << fastrand::usize(0..LARGEST.ilog2() as usize + 1);
    let mut message = vec![0; size];
    fastrand::fill(&mut message);
    let mut answer = vec![0; size];
    let (mut read, mut write) = stream.split();
    let (sent, received) = tokio::join!(write.write_all(&message), read.read_exact(&mut answer));
    sent?;
    received?;
    let wrong = message.iter().zip(&answer).filter(|(m, a)| **m ^ MASK != **a).count();
    seen.wrong_bytes.fetch_add(wrong as u64, Relaxed);
    seen.exchanges.fetch_add(1, Relaxed);
    seen.bytes.fetch_add(size as u64 * 2, Relaxed);
    Ok(())
}
