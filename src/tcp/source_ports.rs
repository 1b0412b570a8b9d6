//! Source ports of backend connections. The kernel chooses them until that would collapse: once the ports
//! towards one backend are full of TIME_WAIT, its search is linear and a connection costs milliseconds. Then
//! we hand them out ourselves: an explicitly bound port in TIME_WAIT is reused at once where both ends agreed
//! on TCP timestamps.
//!
//! Per (source or any, backend address):
//!
//! ```text
//!   free, least recently used first ──lease──▶ in use ──session over──▶ back of free
//!        ▲                                        │ no timestamps and we closed first, or the kernel refused it
//!        └──────────────60 s──── resting ◀────────┘
//! ```
//!
//! Ours are only the ports at an odd offset from the start of `ip_local_port_range`: automatic choice prefers
//! the even ones, and a port bound explicitly is closed to every other program's automatic choice.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use socket2::{SockAddr, Socket};

use crate::config::SourcePorts as Mode;
use crate::plane::PortStats;
use crate::sys::port_range::PortRange;
use crate::sys::socket;

/// How long a port rests; the kernel's TIME_WAIT.
const REST: Duration = Duration::from_secs(60);

/// Ports tried for one connection before the kernel is asked again.
const TRIES: usize = 8;

/// Half of the window in which openings are counted.
const HALF_WINDOW: Duration = Duration::from_secs(30);

/// Destinations remembered at most; beyond, those without ports in use are forgotten.
const DESTINATIONS: usize = 65_536;

/// All workers' ports; lives as long as the process.
pub struct SourcePorts {
    range: PortRange,
    stats: Arc<PortStats>,
    /// Off the byte path, one look per connection; no guard is held across anything.
    destinations: DashMap<(Option<IpAddr>, SocketAddr), Arc<Destination>>,
    next_source: AtomicUsize,
}

/// A std lock: held for a pop or a push.
type Destination = Mutex<Book>;

/// The ports towards one destination. Pure: time is passed in.
#[derive(Debug)]
struct Book {
    opened: Window,
    /// `None` until ports of our own were needed.
    free: Option<VecDeque<u16>>,
    resting: VecDeque<(Instant, u16)>,
    in_use: usize,
    /// Whether the backend agrees on timestamps; `None` = not yet seen.
    timestamps: Option<bool>,
}

/// Openings in about the last minute: the current half and the one before.
#[derive(Debug)]
struct Window {
    since: Instant,
    now: u32,
    before: u32,
}

/// A port of ours in use; given back on drop.
pub struct Lease {
    port: u16,
    destination: Arc<Destination>,
    stats: Arc<PortStats>,
    /// The connection ended with our FIN first: the kernel keeps it in TIME_WAIT.
    pub closed_by_us: bool,
}

/// Where connections of a pool come from.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub sources: &'a [IpAddr],
    pub mode: Mode,
}

impl SourcePorts {
    /// `listening` are ports of our own listeners, never to be handed out.
    pub fn new(mut range: PortRange, listening: &[u16], stats: Arc<PortStats>) -> SourcePorts {
        range.reserved.extend(listening);
        SourcePorts { range, stats, destinations: DashMap::new(), next_source: AtomicUsize::new(0) }
    }

    /// Begins a connection to `address`. `make` creates the socket, anew for each port tried.
    pub fn connect(
        &self,
        address: SocketAddr,
        from: From<'_>,
        make: &dyn Fn() -> io::Result<Socket>,
    ) -> io::Result<(Socket, Option<Lease>)> {
        let sources: Vec<Option<IpAddr>> = self.sources_for(address, from.sources);
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
    fn sources_for(&self, address: SocketAddr, sources: &[IpAddr]) -> Vec<Option<IpAddr>> {
        let mut fitting: Vec<Option<IpAddr>> = sources
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
        source: Option<IpAddr>,
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
                let Some(lease) = self.lease(&destination, source, address) else { break };
                match own_port(source, lease.port, address, make) {
                    Ok(socket) => return Ok((socket, Some(lease))),
                    Err(error) if is_out_of_ports(&error) => lease.rest(),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((kernel_port(source, address, make)?, None))
    }

    /// All that `connect` does about a port of our own, but for the socket: for the benchmark, which connects to nobody.
    #[doc(hidden)]
    pub fn lease_unconnected(&self, address: SocketAddr) -> Option<Lease> {
        let destination = self.destination(None, address);
        let wants_own = self.wants_own(&destination, Mode::Own);
        wants_own.then(|| self.lease(&destination, None, address)).flatten()
    }

    fn destination(&self, source: Option<IpAddr>, address: SocketAddr) -> Arc<Destination> {
        if self.destinations.len() >= DESTINATIONS {
            self.destinations.retain(|_, destination| lock(destination).in_use > 0);
        }
        let entry = self.destinations.entry((source, address));
        Arc::clone(&entry.or_insert_with(|| Arc::new(Mutex::new(Book::new(Instant::now())))))
    }

    /// Counts an opening; says whether the kernel's own choice would come near to collapsing.
    fn wants_own(&self, destination: &Destination, mode: Mode) -> bool {
        let opened = lock(destination).opened.count(Instant::now());
        mode == Mode::Own || opened as usize > self.range.len() / 4
    }

    fn lease(
        &self,
        destination: &Arc<Destination>,
        source: Option<IpAddr>,
        address: SocketAddr,
    ) -> Option<Lease> {
        let mut book = lock(destination);
        let port = book.take(Instant::now(), || self.range.own(spread(source, address)))?;
        self.stats.in_use.fetch_add(1, Relaxed);
        Some(Lease {
            port,
            destination: Arc::clone(destination),
            stats: Arc::clone(&self.stats),
            closed_by_us: false,
        })
    }
}

/// Where a destination's ports begin: any fixed spread will do.
fn spread(source: Option<IpAddr>, address: SocketAddr) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = siphasher::sip::SipHasher13::new();
    (source, address).hash(&mut hasher);
    hasher.finish()
}

impl Book {
    fn new(now: Instant) -> Book {
        Book {
            opened: Window { since: now, now: 0, before: 0 },
            free: None,
            resting: VecDeque::new(),
            in_use: 0,
            timestamps: None,
        }
    }

    /// The port that was free the longest.
    fn take(&mut self, now: Instant, own: impl FnOnce() -> VecDeque<u16>) -> Option<u16> {
        let free = self.free.get_or_insert_with(own);
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        let port = free.pop_front()?;
        self.in_use += 1;
        Some(port)
    }

    fn give_back(&mut self, port: u16, rest_until: Option<Instant>) {
        self.in_use -= 1;
        match (rest_until, &mut self.free) {
            // All rest equally long, so the queue is in order of time.
            (Some(until), _) => self.resting.push_back((until, port)),
            (None, Some(free)) => free.push_back(port),
            (None, None) => {}
        }
    }
}

impl Window {
    fn count(&mut self, now: Instant) -> u32 {
        let halves = now.saturating_duration_since(self.since).as_secs() / HALF_WINDOW.as_secs();
        if halves > 0 {
            self.before = if halves == 1 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
        }
        self.now = self.now.saturating_add(1);
        self.now.saturating_add(self.before)
    }
}

impl Lease {
    /// The kernel refused the port: somebody else has it, or it cannot be reused yet.
    fn rest(self) {
        let mut lease = std::mem::ManuallyDrop::new(self);
        lease.end(Some(Instant::now() + REST));
    }

    /// To be told once connected; without timestamps a port we closed must rest.
    pub fn learn(&self, socket: impl std::os::fd::AsFd) {
        let mut book = lock(&self.destination);
        if book.timestamps.is_none() {
            book.timestamps = socket::timestamps_agreed(socket).ok();
        }
    }

    fn end(&mut self, rest_until: Option<Instant>) {
        self.stats.in_use.fetch_sub(1, Relaxed);
        lock(&self.destination).give_back(self.port, rest_until);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let without_timestamps = lock(&self.destination).timestamps == Some(false);
        let rests = self.closed_by_us && without_timestamps;
        self.end(rests.then(|| Instant::now() + REST));
    }
}

fn lock(destination: &Destination) -> MutexGuard<'_, Book> {
    destination.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kernel_port(
    source: Option<IpAddr>,
    address: SocketAddr,
    make: &dyn Fn() -> io::Result<Socket>,
) -> io::Result<Socket> {
    let socket = make()?;
    if let Some(source) = source {
        // Else bind() would take a port for every destination at once.
        socket::set_bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    begin(socket, address)
}

fn own_port(
    source: Option<IpAddr>,
    port: u16,
    address: SocketAddr,
    make: &dyn Fn() -> io::Result<Socket>,
) -> io::Result<Socket> {
    let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = make()?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(source.unwrap_or(any), port).into())?;
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
    use super::*;

    #[test]
    fn the_least_recently_used_port_comes_first_and_a_refused_one_rests() {
        let start = Instant::now();
        let mut book = Book::new(start);
        let own = || VecDeque::from([1, 3, 5]);
        assert_eq!(book.take(start, own), Some(1));
        assert_eq!(book.take(start, own), Some(3));
        book.give_back(1, None);
        assert_eq!(book.take(start, own), Some(5));
        assert_eq!(book.take(start, own), Some(1));
        assert_eq!(book.take(start, own), None);
        book.give_back(3, Some(start + REST));
        assert_eq!(book.take(start + Duration::from_secs(59), own), None);
        assert_eq!(book.take(start + REST, own), Some(3));
    }

    #[test]
    fn openings_of_the_last_minute_are_counted() {
        let start = Instant::now();
        let mut window = Window { since: start, now: 0, before: 0 };
        assert_eq!(window.count(start), 1);
        assert_eq!(window.count(start + Duration::from_secs(29)), 2);
        assert_eq!(window.count(start + Duration::from_secs(31)), 3);
        assert_eq!(window.count(start + Duration::from_secs(200)), 1);
    }

    #[test]
    fn a_thousand_connections_through_ten_own_ports_closed_by_us() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stats = Arc::new(PortStats::default());
        let range = PortRange { range: 61_100..=61_119, reserved: Default::default() };
        let ports = SourcePorts::new(range, &[], Arc::clone(&stats));
        let from = From { sources: &[], mode: Mode::Own };
        let make = || Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        for _ in 0..1000 {
            let (socket, lease) = ports.connect(address, from, &make).unwrap();
            let mut lease = lease.expect("a port of our own is always to be had");
            lease.learn(&socket);
            lease.closed_by_us = true;
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
