//! What a worker allocates: nothing for a round trip, and a known number of blocks for a session. A binary of its own,
//! because counting needs the global allocator; it counts on the worker's thread only, and only while told to.

// A test that meets what it does not expect is to fail on the spot.
#![allow(clippy::unwrap_used)]
// The allocator interface is unsafe by nature; this one only counts and hands on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use maitred::border::addr::{BackendAddr, ListenAddr, LocalAddr};
use maitred::border::session_log::SessionLog;
use maitred::config::{self, Config, SourcePorts};
use maitred::control::supervisor::Supervisor;

/// 10 were measured. Among them are the session, its task, what reaches a backend and its list of sources, two entries in
/// the event loop, the lease of a source port, and the timers of the connect and of the relay.
const MOST_A_SESSION: f64 = 12.0;

struct Counting;

static IS_ON: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Known from the first allocation on that is to be counted: by then every thread has its name.
    static IS_WORKER: Cell<Option<bool>> = const { Cell::new(None) };
}

/// By its name, asked from the kernel: std's own would allocate.
fn is_worker() -> bool {
    IS_WORKER.get().unwrap_or_else(|| {
        let mut name = [0_u8; 16];
        // SAFETY: the kernel writes at most 16 bytes, the size of `name`, which lives on this stack frame.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let is_worker = name.starts_with(b"tcp-0\0");
        IS_WORKER.set(Some(is_worker));
        is_worker
    })
}

// SAFETY: every call is passed on to the system's allocator unchanged; what decides whether it is counted are atomics
// and a plain cell of this thread, which need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if IS_ON.load(SeqCst) && is_worker() {
            ALLOCATIONS.fetch_add(1, SeqCst);
        }
        // SAFETY: the caller keeps `alloc`'s contract, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block came from `alloc` above, that is, from there.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What the worker allocates meanwhile.
fn counted(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(SeqCst);
    IS_ON.store(true, SeqCst);
    work();
    IS_ON.store(false, SeqCst);
    ALLOCATIONS.load(SeqCst) - before
}

/// Echoes, a thread for each client.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    stream.write_all(&buffer[..count]).unwrap();
                }
            });
        }
    });
    address
}

fn balancer(backend: SocketAddr) -> Supervisor {
    let backend = config::Backend {
        name: "b".into(),
        address: BackendAddr::Inet(backend),
        ..config::Backend::default()
    };
    let mut pool = config::Pool { backends: vec![backend], ..config::Pool::default() };
    pool.health.probe = config::Probe::None;
    pool.source_ports = SourcePorts::Own;
    let listener = config::Listener {
        bind: vec![ListenAddr::Inet("127.0.0.1:0".parse().unwrap())],
        pool: Some("main".into()),
        ..config::Listener::default()
    };
    let config = Config {
        process: config::Process { workers: Some(1), ..config::Process::default() },
        log: config::Log { sessions: config::SessionLog::None, ..config::Log::default() },
        listeners: vec![Arc::new(listener)],
        pools: vec![Arc::new(pool)],
        ..Config::default()
    };
    let log = SessionLog::start(config.log.sessions, |_| {}).unwrap();
    Supervisor::start(config, log).unwrap()
}

fn round_trip(stream: &mut TcpStream) {
    stream.write_all(b"ping").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
}

fn wait_for_no_session(supervisor: &Supervisor) {
    let start = Instant::now();
    while supervisor.plane.open_sessions() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "sessions do not end");
        // Between two looks.
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn session(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).unwrap();
    round_trip(&mut stream);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 4]).unwrap(), 0);
}

#[test]
fn a_round_trip_allocates_nothing_and_a_session_little() {
    const SESSIONS: u64 = 500;
    let supervisor = balancer(backend());
    let LocalAddr::Inet(address) = supervisor.served().next().unwrap().1.local else {
        panic!("the listener has an internet address")
    };

    let mut streams: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut round_trips = |count| {
        for _ in 0..count {
            streams.iter_mut().for_each(round_trip);
        }
    };
    round_trips(10);
    assert_eq!(counted(|| round_trips(1000)), 0, "of 8000 round trips");
    drop(streams);
    wait_for_no_session(&supervisor);

    let sessions = || {
        (0..SESSIONS).for_each(|_| session(address));
        wait_for_no_session(&supervisor);
    };
    // Lists and the table of ports grow once.
    sessions();
    let each = counted(sessions) as f64 / SESSIONS as f64;
    println!("{each:.2} allocations a session");
    assert!((1.0..=MOST_A_SESSION).contains(&each), "{each} allocations a session");
    supervisor.stop();
}
