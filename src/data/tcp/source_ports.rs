//! Source ports of backend connections. The kernel chooses them until that would collapse: once the ports towards one
//! backend are full of TIME_WAIT, its search is linear and a connection costs milliseconds. Then maitred chooses: an
//! explicitly bound port in TIME_WAIT can be reused at once if both ends agreed on TCP timestamps.
//!
//! Per (source or any, backend address):
//!
//! ```text
//!   free, least recently used first ──lease──▶ in use ──session over──▶ back of free
//!        ▲                                        │ no timestamps and we closed first, the kernel refused it,
//!        └──────────────60 s──── resting ◀────────┘ or a listener of ours has it
//! ```
//!
//! maitred chooses only ports at an odd offset from the start of `ip_local_port_range`: automatic choice prefers the
//! even ones, and a port that is bound explicitly is closed to the automatic choice of every other program.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use socket2::{SockAddr, Socket};

use super::port_book::{Book, End, REST};
use crate::border::addr::ZonedIp;
use crate::border::plane::PortStats;
use crate::config::SourcePorts as Mode;
use crate::sys::port_range::PortRange;
use crate::sys::{connection, socket};

/// Ports tried for one connection before the kernel chooses after all.
const TRIES: usize = 8;

/// All workers' ports; lives as long as the process.
pub struct SourcePorts {
    range: PortRange,
    stats: Arc<PortStats>,
    /// Not on the byte path: one look-up per connection. No guard is held across anything.
    destinations: DashMap<(Option<ZonedIp>, SocketAddr), Arc<Destination>>,
    /// When destinations that are not needed any more were last looked for.
    swept: Mutex<Instant>,
    /// Ports of our own listeners, as the last reload left them.
    listening: ArcSwap<BTreeSet<u16>>,
    next_source: AtomicUsize,
}

/// A std lock: held for a pop or a push.
type Destination = Mutex<Book>;

/// A port that maitred chose, in use; given back on drop.
pub struct Lease {
    port: u16,
    destination: Arc<Destination>,
    stats: Arc<PortStats>,
    end: End,
}

/// The source addresses of a pool's connections.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub sources: &'a [ZonedIp],
    pub mode: Mode,
}

impl SourcePorts {
    pub fn new(range: PortRange, stats: Arc<PortStats>) -> SourcePorts {
        SourcePorts {
            range,
            stats,
            destinations: DashMap::new(),
            swept: Mutex::new(Instant::now()),
            listening: ArcSwap::default(),
            next_source: AtomicUsize::new(0),
        }
    }

    /// From now on our listeners have these ports: they are not chosen. Must be called at each reload.
    pub fn keep_off(&self, listening: BTreeSet<u16>) {
        self.listening.store(Arc::new(listening));
    }

    /// Whether the kernel may choose this port as a source port.
    pub fn may_choose(&self, port: u16) -> bool {
        self.range.range.contains(&port)
    }

    /// Begins a connection to `address`. `make` creates the socket, again for each port tried.
    pub fn connect(
        &self,
        address: SocketAddr,
        from: From<'_>,
        make: &dyn Fn() -> io::Result<Socket>,
    ) -> io::Result<(Socket, Option<Lease>)> {
        let sources: Vec<Option<ZonedIp>> = self.sources_for(address, from.sources);
        let mut last = io::Error::from_raw_os_error(libc::EADDRNOTAVAIL);
        for source in sources {
            match self.connect_from(source, address, from.mode, make) {
                Err(error) if is_out_of_ports(&error) => last = error,
                outcome => return outcome,
            }
        }
        self.stats.exhausted.add(1);
        Err(last)
    }

    /// The sources of the address's family, the next one first; any, if none is configured.
    fn sources_for(&self, address: SocketAddr, sources: &[ZonedIp]) -> Vec<Option<ZonedIp>> {
        let mut fitting: Vec<Option<ZonedIp>> = sources
            .iter()
            .filter(|source| source.is_ipv4() == address.is_ipv4())
            .map(|source| Some(*source))
            .collect();
        if fitting.is_empty() {
            return vec![None];
        }
        let turn = self.next_source.fetch_add(1, Relaxed) % fitting.len();
        fitting.rotate_left(turn);
        fitting
    }

    fn connect_from(
        &self,
        source: Option<ZonedIp>,
        address: SocketAddr,
        mode: Mode,
        make: &dyn Fn() -> io::Result<Socket>,
    ) -> io::Result<(Socket, Option<Lease>)> {
        if mode == Mode::Kernel {
            return Ok((kernel_port(source, address, make)?, None));
        }
        let destination = self.destination(source, address);
        if self.wants_own(&destination, mode) {
            for _ in 0..TRIES {
                let Some(mut lease) = self.lease(&destination, source, address) else { break };
                match own_port(source, lease.port, address, make) {
                    Ok(socket) => return Ok((socket, Some(lease))),
                    Err(error) if is_out_of_ports(&error) => lease.ended(End::Refused),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((kernel_port(source, address, make)?, None))
    }

    /// Everything that `connect` does about a port of ours, except the socket: for the benchmark, which does not
    /// connect.
    #[doc(hidden)]
    pub fn lease_unconnected(&self, address: SocketAddr) -> Option<Lease> {
        let destination = self.destination(None, address);
        let wants_own = self.wants_own(&destination, Mode::Own);
        wants_own.then(|| self.lease(&destination, None, address)).flatten()
    }

    fn destination(&self, source: Option<ZonedIp>, address: SocketAddr) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(&(source, address)) {
            return Arc::clone(&known);
        }
        let now = Instant::now();
        self.sweep(now);
        let entry = self.destinations.entry((source, address));
        Arc::clone(&entry.or_insert_with(|| Arc::new(Mutex::new(Book::new(now)))))
    }

    /// Forgets destinations that are not needed any more, at most once in a while: what remains are those of about
    /// the last minutes, and those with ports in use.
    fn sweep(&self, now: Instant) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*swept) < REST {
            return;
        }
        *swept = now;
        drop(swept);
        // A destination from which a port is about to be taken is not forgotten: the port would be taken a second
        // time.
        self.destinations.retain(|_, destination| {
            Arc::strong_count(destination) > 1 || !lock(destination).is_forgotten(now)
        });
    }

    /// Counts a new connection; returns whether the kernel's own choice is close to collapsing.
    fn wants_own(&self, destination: &Destination, mode: Mode) -> bool {
        let opened = lock(destination).opened.count(Instant::now());
        mode == Mode::Own || opened as usize > self.range.len() / 4
    }

    fn lease(
        &self,
        destination: &Arc<Destination>,
        source: Option<ZonedIp>,
        address: SocketAddr,
    ) -> Option<Lease> {
        let mut book = lock(destination);
        let own = || self.range.own(spread(source, address));
        let listening = self.listening.load();
        // From the same port, a connection to a backend on this machine would be connected to itself.
        let is_kept_off = |port| port == address.port() || listening.contains(&port);
        let port = book.take(Instant::now(), own, is_kept_off)?;
        self.stats.in_use.fetch_add(1, Relaxed);
        Some(Lease {
            port,
            destination: Arc::clone(destination),
            stats: Arc::clone(&self.stats),
            end: End::Free,
        })
    }
}

/// Where a destination's ports begin: any fixed spread will do.
fn spread(source: Option<ZonedIp>, address: SocketAddr) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = siphasher::sip::SipHasher13::new();
    (source, address).hash(&mut hasher);
    hasher.finish()
}

impl Lease {
    /// Must be told once connected; without timestamps a port that we closed must wait.
    pub fn connected(&mut self, socket: impl std::os::fd::AsFd) {
        // Until told otherwise.
        self.end = End::ClosedByUs;
        let now = Instant::now();
        let mut book = lock(&self.destination);
        if book.asks(now) {
            book.timestamps =
                connection::timestamps_agreed(socket).ok().map(|agreed| (now, agreed));
        }
    }

    pub fn ended(&mut self, end: End) {
        self.end = end;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stats.in_use.fetch_sub(1, Relaxed);
        lock(&self.destination).give_back(self.port, self.end, Instant::now());
    }
}

fn lock(destination: &Destination) -> MutexGuard<'_, Book> {
    destination.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kernel_port(
    source: Option<ZonedIp>,
    address: SocketAddr,
    make: &dyn Fn() -> io::Result<Socket>,
) -> io::Result<Socket> {
    let socket = make()?;
    if let Some(source) = source {
        // Otherwise bind() would take the port for every destination at once.
        socket::set_bind_address_no_port(&socket)?;
        socket.bind(&source.at(0).into())?;
    }
    begin(socket, address)
}

fn own_port(
    source: Option<ZonedIp>,
    port: u16,
    address: SocketAddr,
    make: &dyn Fn() -> io::Result<Socket>,
) -> io::Result<Socket> {
    let any = if address.is_ipv4() {
        std::net::IpAddr::from([0; 4])
    } else {
        std::net::IpAddr::from([0; 16])
    };
    let socket = make()?;
    socket.set_reuse_address(true)?;
    socket.bind(&source.unwrap_or(any.into()).at(port).into())?;
    begin(socket, address)
}

fn begin(socket: Socket, address: SocketAddr) -> io::Result<Socket> {
    match socket.connect(&SockAddr::from(address)) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::super::port_book::FORGET;
    use super::*;

    #[test]
    fn a_destination_is_forgotten_once_nothing_of_it_counts() {
        let start = Instant::now();
        let ports = SourcePorts::new(PortRange::of_this_host(), Arc::default());
        for port in 1..=1000 {
            ports.destination(None, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        let used = ports.destination(None, SocketAddr::from(([127, 0, 0, 1], 1)));
        lock(&used).take(start, || VecDeque::from([1, 3, 5]), |_| false).unwrap();
        let later = Instant::now() + FORGET;
        ports.sweep(later - REST);
        assert_eq!(ports.destinations.len(), 1000, "openings still count");
        ports.sweep(later);
        assert_eq!(ports.destinations.len(), 1, "one has a port in use");
        lock(&used).give_back(1, End::Refused, later);
        ports.sweep(later + REST - Duration::from_secs(1));
        assert_eq!(ports.destinations.len(), 1, "and then it rests");
        ports.sweep(later + 2 * REST);
        assert_eq!(ports.destinations.len(), 1, "and somebody may be about to take one");
        drop(used);
        ports.sweep(later + 3 * REST);
        assert!(ports.destinations.is_empty());
    }

    #[test]
    fn a_thousand_connections_through_ten_own_ports_closed_by_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stats = Arc::new(PortStats::default());
        let range = PortRange { range: 61_100..=61_119, reserved: Default::default() };
        let ports = SourcePorts::new(range, Arc::clone(&stats));
        let from = From { sources: &[], mode: Mode::Own };
        let make = || Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        for _ in 0..1000 {
            let (socket, lease) = ports.connect(address, from, &make).unwrap();
            let mut lease = lease.expect("a port of our own is always to be had");
            lease.connected(&socket);
            let (accepted, client) = listener.accept().unwrap();
            assert!((61_100..61_120).contains(&client.port()));
            drop(socket);
            drop(accepted);
            drop(lease);
        }
        assert_eq!(stats.in_use.load(Relaxed), 0);
        assert_eq!(stats.exhausted.value(), 0);
    }
}
