//! Source ports of backend connections. The kernel chooses them until that would collapse: once the ports
//! towards one backend are full of TIME_WAIT, its search is linear and a connection costs milliseconds. Then
//! we hand them out ourselves: an explicitly bound port in TIME_WAIT is reused at once where both ends agreed
//! on TCP timestamps.
//!
//! Per (source or any, backend address):
//!
//! ```text
//!   free, least recently used first ──lease──▶ in use ──session over──▶ back of free
//!        ▲                                        │ no timestamps and we closed first, the kernel refused it,
//!        └──────────────60 s──── resting ◀────────┘ or a listener of ours has it
//! ```
//!
//! Ours are only the ports at an odd offset from the start of `ip_local_port_range`: automatic choice prefers
//! the even ones, and a port bound explicitly is closed to every other program's automatic choice.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
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

/// A destination that nobody connected to for so long is forgotten: then its openings do not count any more, and
/// no port of it rests.
const FORGET: Duration = Duration::from_secs(120);

/// All workers' ports; lives as long as the process.
pub struct SourcePorts {
    range: PortRange,
    stats: Arc<PortStats>,
    /// Off the byte path, one look per connection; no guard is held across anything.
    destinations: DashMap<(Option<IpAddr>, SocketAddr), Arc<Destination>>,
    /// When those that nobody needs any more were last looked for.
    swept: Mutex<Instant>,
    /// Ports of our own listeners, as the last reload left them.
    listening: ArcSwap<BTreeSet<u16>>,
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
    /// Whether the backend agrees on timestamps, and when it was asked; `None` = not yet.
    timestamps: Option<(Instant, bool)>,
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
    end: End,
}

/// How a connection of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The kernel did not take the port: somebody else has it, or it cannot be used again yet.
    Refused,
    /// It was never made, was reset, or the backend's FIN came first: the kernel keeps nothing.
    Free,
    /// Our FIN may have been first: the kernel keeps it in TIME_WAIT.
    ClosedByUs,
}

/// Where connections of a pool come from.
#[derive(Clone, Copy)]
pub struct From<'a> {
    pub sources: &'a [IpAddr],
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

    /// Our listeners have these ports from now on: they are not handed out. To be told at each reload.
    pub fn keep_off(&self, listening: BTreeSet<u16>) {
        self.listening.store(Arc::new(listening));
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

    /// All that `connect` does about a port of our own, but for the socket: for the benchmark, which connects to nobody.
    #[doc(hidden)]
    pub fn lease_unconnected(&self, address: SocketAddr) -> Option<Lease> {
        let destination = self.destination(None, address);
        let wants_own = self.wants_own(&destination, Mode::Own);
        wants_own.then(|| self.lease(&destination, None, address)).flatten()
    }

    fn destination(&self, source: Option<IpAddr>, address: SocketAddr) -> Arc<Destination> {
        if let Some(known) = self.destinations.get(&(source, address)) {
            return Arc::clone(&known);
        }
        let now = Instant::now();
        self.sweep(now);
        let entry = self.destinations.entry((source, address));
        Arc::clone(&entry.or_insert_with(|| Arc::new(Mutex::new(Book::new(now)))))
    }

    /// Forgets the destinations that nobody needs any more, at most once in a while: there are only those of about
    /// the last minutes, and those with ports in use.
    fn sweep(&self, now: Instant) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(*swept) < REST {
            return;
        }
        *swept = now;
        drop(swept);
        // One that somebody is just about to take a port of is not forgotten: it would be taken a second time.
        self.destinations.retain(|_, destination| {
            Arc::strong_count(destination) > 1 || !lock(destination).is_forgotten(now)
        });
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
        let own = || self.range.own(spread(source, address));
        let listening = self.listening.load();
        let port = book.take(Instant::now(), own, |port| listening.contains(&port))?;
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

    /// The port that was free the longest. One that is `listening` rests: its listener may go.
    fn take(
        &mut self,
        now: Instant,
        own: impl FnOnce() -> VecDeque<u16>,
        listening: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let free = self.free.get_or_insert_with(own);
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        loop {
            let port = free.pop_front()?;
            if !listening(port) {
                self.in_use += 1;
                return Some(port);
            }
            self.resting.push_back((now + REST, port));
        }
    }

    fn give_back(&mut self, port: u16, end: End, now: Instant) {
        self.in_use -= 1;
        let without_timestamps = matches!(self.timestamps, Some((_, false)));
        let rests = end == End::Refused || (end == End::ClosedByUs && without_timestamps);
        match &mut self.free {
            // All rest equally long, so the queue is in order of time.
            _ if rests => self.resting.push_back((now + REST, port)),
            Some(free) => free.push_back(port),
            None => {}
        }
    }

    /// Whether timestamps are to be asked for: a backend may be replaced by another at the same address.
    fn asks(&self, now: Instant) -> bool {
        self.timestamps.is_none_or(|(asked, _)| now.saturating_duration_since(asked) >= REST)
    }

    /// Whether it holds nothing that anybody may still need. The resting ones have been over for a while then.
    fn is_forgotten(&self, now: Instant) -> bool {
        self.in_use == 0
            && self.resting.back().is_none_or(|(until, _)| *until <= now)
            && now.saturating_duration_since(self.opened.since) >= FORGET
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
    /// To be told once connected; without timestamps a port we closed must rest.
    pub fn connected(&mut self, socket: impl std::os::fd::AsFd) {
        // Until told otherwise.
        self.end = End::ClosedByUs;
        let now = Instant::now();
        let mut book = lock(&self.destination);
        if book.asks(now) {
            book.timestamps = socket::timestamps_agreed(socket).ok().map(|agreed| (now, agreed));
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

    const fn nobody(_: u16) -> bool {
        false
    }

    fn own() -> VecDeque<u16> {
        VecDeque::from([1, 3, 5])
    }

    #[test]
    fn the_least_recently_used_port_comes_first_and_a_refused_one_rests() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert_eq!(book.take(start, own, nobody), Some(1));
        assert_eq!(book.take(start, own, nobody), Some(3));
        book.give_back(1, End::Free, start);
        assert_eq!(book.take(start, own, nobody), Some(5));
        assert_eq!(book.take(start, own, nobody), Some(1));
        assert_eq!(book.take(start, own, nobody), None);
        book.give_back(3, End::Refused, start);
        assert_eq!(book.take(start + Duration::from_secs(59), own, nobody), None);
        assert_eq!(book.take(start + REST, own, nobody), Some(3));
    }

    #[test]
    fn a_port_we_closed_rests_only_without_timestamps() {
        let start = Instant::now();
        for (agreed, end, rests) in [
            (true, End::ClosedByUs, false),
            (false, End::ClosedByUs, true),
            (false, End::Free, false),
            (true, End::Refused, true),
        ] {
            let mut book = Book::new(start);
            book.timestamps = Some((start, agreed));
            let port = book.take(start, || VecDeque::from([7]), nobody).unwrap();
            book.give_back(port, end, start);
            let again = book.take(start + Duration::from_secs(59), own, nobody);
            assert_eq!(again, (!rests).then_some(7), "timestamps {agreed}, {end:?}");
        }
    }

    #[test]
    fn timestamps_are_asked_for_again_after_a_minute() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert!(book.asks(start));
        book.timestamps = Some((start, false));
        assert!(!book.asks(start + Duration::from_secs(59)));
        assert!(book.asks(start + REST));
    }

    #[test]
    fn a_listeners_port_is_passed_over_until_the_listener_is_gone() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert_eq!(book.take(start, own, |port| port == 1), Some(3));
        book.give_back(3, End::Free, start);
        let taken: Vec<u16> = std::iter::from_fn(|| book.take(start, own, nobody)).collect();
        assert_eq!(taken, [5, 3], "a look at 1 is due in a minute");
        assert_eq!(book.take(start + REST, own, nobody), Some(1));
    }

    #[test]
    fn every_port_is_in_exactly_one_place_whatever_happens() {
        let mut random = fastrand::Rng::with_seed(7);
        let start = Instant::now();
        let mut now = start;
        let mut book = Book::new(start);
        book.timestamps = Some((start, false));
        let all = || (0..100).collect::<VecDeque<u16>>();
        let mut out = BTreeSet::new();
        for _ in 0..100_000 {
            now += Duration::from_millis(random.u64(0..200));
            if random.bool() {
                if let Some(port) = book.take(now, all, |port| port < 3) {
                    assert!(port >= 3 && out.insert(port), "{port} was handed out twice");
                }
            } else if let Some(port) = out.pop_first() {
                let ends = [End::Refused, End::Free, End::ClosedByUs];
                book.give_back(port, ends[random.usize(0..3)], now);
            }
            let free = book.free.as_ref().map_or(100, VecDeque::len);
            assert_eq!(free + book.resting.len() + out.len(), 100);
            assert_eq!(book.in_use, out.len());
            assert!(book.resting.iter().is_sorted_by_key(|(until, _)| *until));
        }
    }

    #[test]
    fn a_destination_is_forgotten_once_nothing_of_it_counts() {
        let start = Instant::now();
        let ports = SourcePorts::new(PortRange::of_this_host(), Arc::default());
        for port in 1..=1000 {
            ports.destination(None, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        let used = ports.destination(None, SocketAddr::from(([127, 0, 0, 1], 1)));
        lock(&used).take(start, own, nobody).unwrap();
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
