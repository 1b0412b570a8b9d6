//! Built-in backends: each answers every byte `b` with `b ^ MASK` after a delay of its own. One has outages: it
//! closes its socket, resets its sessions, and comes back on the same address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::border::addr::BackendAddr;
use crate::config;
use crate::sys::socket::reset_on_close;

/// Answers differ from questions, so that an echo on the way would be noticed.
pub const MASK: u8 = 0x5a;

/// Sessions a backend serves at once; far above what the clients open.
const SESSIONS: usize = 1024;

/// How long a flaky backend stays up, and how long it is away.
#[derive(Clone, Copy)]
pub struct Outage {
    pub up: Duration,
    pub away: Duration,
}

impl Default for Outage {
    fn default() -> Self {
        Outage { up: Duration::from_secs(5), away: Duration::from_secs(4) }
    }
}

/// A backend on a thread of its own; ends on drop.
pub struct Backend {
    name: &'static str,
    address: SocketAddr,
    _thread: Serving,
}

/// The thread of a backend, TCP or UDP.
pub struct Serving {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    pub fn start(
        name: &'static str,
        think: Duration,
        outage: Option<Outage>,
    ) -> io::Result<Backend> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let thread = Serving::start(name, async move |stop| {
            serve(listener, address, think, outage, stop).await;
        })?;
        Ok(Backend { name, address, _thread: thread })
    }

    pub fn config(&self) -> config::Backend {
        backend_config(self.name, self.address)
    }
}

impl Serving {
    /// `serve` must end soon after it is told to stop.
    pub fn start(
        name: &str,
        serve: impl AsyncFnOnce(&AtomicBool) + Send + 'static,
    ) -> io::Result<Serving> {
        let stop = Arc::new(AtomicBool::new(false));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(format!("demo-{name}"));
        let thread = thread.spawn(move || runtime.block_on(serve(&told)))?;
        Ok(Serving { stop, thread: Some(thread) })
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            // The panic was printed by its thread.
            let _ = thread.join();
        }
    }
}

async fn serve(
    first: TcpListener,
    address: SocketAddr,
    think: Duration,
    outage: Option<Outage>,
    stop: &AtomicBool,
) {
    let mut listener = Some(first);
    while !stop.load(Relaxed) {
        let socket = match listener.take().map_or_else(|| rebind(address), Ok) {
            Ok(socket) => socket,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let until = outage.map(|outage| Instant::now() + outage.up);
        if up(socket, think, until, stop).await.is_err() || stop.load(Relaxed) {
            return;
        }
        if let Some(outage) = outage {
            let back = Instant::now() + outage.away;
            while Instant::now() < back && !stop.load(Relaxed) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn rebind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Serves until `until` or `stop`, then resets what is open.
async fn up(
    socket: TcpListener,
    think: Duration,
    until: Option<Instant>,
    stop: &AtomicBool,
) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(socket)?;
    let (alive, _) = watch::channel(());
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted && alive.receiver_count() < SESSIONS {
                    tokio::spawn(answer(stream, think, alive.subscribe()));
                }
            }
            _ = tick.tick() => {
                let over = until.is_some_and(|until| Instant::now() >= until);
                if over || stop.load(Relaxed) {
                    break;
                }
            }
        }
    }
    drop(listener);
    // Dropping the sender ends every session.
    drop(alive);
    tokio::task::yield_now().await;
    Ok(())
}

async fn answer(
    mut stream: tokio::net::TcpStream,
    think: Duration,
    mut alive: watch::Receiver<()>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            },
            // The outage begins.
            _ = alive.changed() => {
                reset_on_close(stream.as_fd());
                return;
            }
        };
        tokio::time::sleep(think).await;
        for byte in &mut buffer[..count] {
            *byte ^= MASK;
        }
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// The address of a backend, for the configuration.
pub(super) fn backend_config(name: &str, address: SocketAddr) -> config::Backend {
    config::Backend {
        name: name.into(),
        address: BackendAddr::Inet(address),
        ..config::Backend::default()
    }
}
