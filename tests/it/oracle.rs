//! The oracle: every byte is a function of its session, direction and position, so that a lost, doubled,
//! swapped or foreign byte is seen where it happens; and each way of ending must arrive as what it was.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use maitred::config::RelayMode;
use maitred::sys::socket::{reset_on_close, unsent_bytes};

use crate::balancer::{self, Balancer, loopback};

/// What one session does; the client tells the backend in a header of `HEADER` bytes.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    to_backend: usize,
    to_client: usize,
    end: Ending,
    chunk: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Each side ends when it has sent everything.
    Fins,
    /// The backend speaks only after the client's FIN.
    ClientHalfCloses,
    /// The client speaks only after the backend's FIN.
    BackendHalfCloses,
    /// The client resets after its bytes are acknowledged; it reads nothing.
    ClientResets,
    BackendResets,
}

impl Ending {
    /// In the order of their numbers in the header.
    const ALL: [Ending; 5] = [
        Ending::Fins,
        Ending::ClientHalfCloses,
        Ending::BackendHalfCloses,
        Ending::ClientResets,
        Ending::BackendResets,
    ];
}

const HEADER: usize = 40;

impl Plan {
    fn draw(random: &mut fastrand::Rng) -> Plan {
        // Sizes around the scratch buffer and pipe sizes, and everything below.
        let size = |random: &mut fastrand::Rng| match random.u8(0..10) {
            0 => 0,
            1 => 65_536,
            2 => random.usize(65_530..65_545),
            3 => random.usize(0..1_500_000),
            bits => {
                let bits = u32::from(bits) * 2;
                random.usize(0..1 << bits)
            }
        };
        Plan {
            seed: random.u64(..),
            to_backend: size(random),
            to_client: size(random),
            end: Ending::ALL[random.usize(..Ending::ALL.len())],
            chunk: 1 << random.u32(6..18),
        }
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let words = [
            self.seed,
            self.to_backend as u64,
            self.to_client as u64,
            self.end as u64,
            self.chunk as u64,
        ];
        for (place, word) in header.chunks_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    fn parse(header: &[u8; HEADER]) -> Plan {
        let word =
            |index: usize| u64::from_le_bytes(header[index * 8..index * 8 + 8].try_into().unwrap());
        Plan {
            seed: word(0),
            to_backend: word(1) as usize,
            to_client: word(2) as usize,
            end: Ending::ALL[word(3) as usize],
            chunk: word(4) as usize,
        }
    }
}

/// The byte at `position` of a direction's stream. Period far above every size used here.
fn byte_at(seed: u64, position: usize) -> u8 {
    let word = seed ^ ((position / 8) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((word ^ (word >> 32)) >> ((position % 8) * 4)) as u8
}

fn send(mut stream: &TcpStream, seed: u64, total: usize, chunk: usize) -> io::Result<()> {
    let mut position = 0;
    while position < total {
        let count = chunk.min(total - position);
        let bytes: Vec<u8> = (position..position + count).map(|p| byte_at(seed, p)).collect();
        stream.write_all(&bytes)?;
        position += count;
    }
    Ok(())
}

/// How a received stream ended, after how many right bytes.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Fin(usize),
    Reset(usize),
}

fn receive(mut stream: &TcpStream, seed: u64, chunk: usize) -> Seen {
    let mut buffer = vec![0; chunk];
    let mut position = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Seen::Fin(position),
            Ok(count) => {
                for (offset, byte) in buffer[..count].iter().enumerate() {
                    assert_eq!(
                        *byte,
                        byte_at(seed, position + offset),
                        "wrong byte at {} of seed {seed}",
                        position + offset
                    );
                }
                position += count;
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Seen::Reset(position);
            }
            Err(error) => panic!("after {position} bytes of seed {seed}: {error}"),
        }
    }
}

fn reset(stream: TcpStream) {
    let start = std::time::Instant::now();
    while unsent_bytes(stream.as_fd()).unwrap() > 0 && start.elapsed() < Duration::from_secs(20) {
        // Between two looks.
        std::thread::sleep(Duration::from_micros(200));
    }
    reset_on_close(&stream);
}

/// One side's part. `own` and `other` are the seeds of what it sends and receives.
fn play(stream: TcpStream, plan: &Plan, me_client: bool) {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let (own, other) = if me_client { (plan.seed, !plan.seed) } else { (!plan.seed, plan.seed) };
    let (mine, theirs) = if me_client {
        (plan.to_backend, plan.to_client)
    } else {
        (plan.to_client, plan.to_backend)
    };
    let (i_reset, they_reset) = match plan.end {
        Ending::ClientResets => (me_client, !me_client),
        Ending::BackendResets => (!me_client, me_client),
        _ => (false, false),
    };
    let (i_wait, they_wait) = match plan.end {
        Ending::ClientHalfCloses => (!me_client, me_client),
        Ending::BackendHalfCloses => (me_client, !me_client),
        _ => (false, false),
    };
    if i_reset {
        send(&stream, own, mine, plan.chunk).unwrap();
        return reset(stream);
    }
    if they_reset {
        // Everything they sent, then a reset: never a clean end, never a byte less.
        assert_eq!(receive(&stream, other, plan.chunk), Seen::Reset(theirs), "{plan:?}");
        return;
    }
    if i_wait {
        assert_eq!(receive(&stream, other, plan.chunk), Seen::Fin(theirs), "{plan:?}");
        send(&stream, own, mine, plan.chunk).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    } else if they_wait {
        send(&stream, own, mine, plan.chunk).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(receive(&stream, other, plan.chunk), Seen::Fin(theirs), "{plan:?}");
    } else {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                send(&stream, own, mine, plan.chunk).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(receive(&stream, other, plan.chunk), Seen::Fin(theirs), "{plan:?}");
        });
    }
}

/// Plays the backend's part of every session until told to stop.
fn serve(listener: &TcpListener, stop: &AtomicBool, faults: &AtomicU64) {
    std::thread::scope(|scope| {
        for stream in listener.incoming() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let stream = stream.unwrap();
            scope.spawn(move || {
                let outcome = std::panic::catch_unwind(|| {
                    let mut header = [0; HEADER];
                    (&stream).read_exact(&mut header).unwrap();
                    play(stream, &Plan::parse(&header), false);
                });
                if outcome.is_err() {
                    faults.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
}

/// Runs `sessions` sessions, 32 at a time, and counts the faults of either side.
fn run(address: SocketAddr, backends: Vec<TcpListener>, sessions: u64, seed: u64) -> u64 {
    let faults = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for listener in &backends {
            let (stop, faults) = (Arc::clone(&stop), Arc::clone(&faults));
            scope.spawn(move || serve(listener, &stop, &faults));
        }
        std::thread::scope(|clients| {
            for _ in 0..32 {
                clients.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= sessions {
                            return;
                        }
                        let plan = Plan::draw(&mut fastrand::Rng::with_seed(seed ^ number));
                        let outcome = std::panic::catch_unwind(|| {
                            let stream = TcpStream::connect(address).unwrap();
                            (&stream).write_all(&plan.header()).unwrap();
                            play(stream, &plan, true);
                        });
                        if outcome.is_err() {
                            eprintln!("session {number} of seed {seed}: {plan:?}");
                            faults.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        stop.store(true, Ordering::Relaxed);
        for listener in &backends {
            drop(TcpStream::connect(listener.local_addr().unwrap()));
        }
    });
    faults.load(Ordering::Relaxed)
}

/// Sessions of one path; `scripts/check` raises it to a third of 10^5.
fn sessions() -> u64 {
    std::env::var("MAITRED_ORACLE_SESSIONS")
        .map_or(600, |text| text.parse().expect("MAITRED_ORACLE_SESSIONS is a count"))
}

/// Descriptors this process has open.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The same once the balancer's threads have opened theirs.
fn settled_descriptors() -> usize {
    let mut count = descriptors();
    loop {
        // Nothing announces that a thread has started; half a second without a change is taken for it.
        std::thread::sleep(Duration::from_millis(500));
        let now = descriptors();
        if now == count {
            return now;
        }
        count = now;
    }
}

fn no_fault_by(relay: RelayMode) {
    // One after the other, so that each can count its descriptors.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (listeners, addresses): (Vec<_>, Vec<_>) = (0..3).map(|_| loopback()).unzip();
    let mut config = balancer::config(&addresses);
    balancer::listener(&mut config).relay = relay;
    let balancer = Balancer::start(config);
    let seed = fastrand::u64(..);
    let count = sessions();
    let kept: Vec<TcpListener> = listeners.iter().map(|it| it.try_clone().unwrap()).collect();
    let idle = settled_descriptors();
    assert_eq!(run(balancer.address(), listeners, count, seed), 0, "seed {seed}");
    assert_eq!(balancer.endings(count as usize).len() as u64, count);
    if std::env::var_os("MAITRED_ORACLE_SESSIONS").is_some() {
        // Then nothing else runs in this process. The run took the listeners with it; `kept` has their copies.
        let idle = idle - kept.len();
        balancer::wait_for("the idle number of descriptors", || descriptors() == idle);
    }
}

#[test]
fn every_byte_and_every_end_arrives_by_copy() {
    no_fault_by(RelayMode::Copy);
}

#[test]
fn every_byte_and_every_end_arrives_by_splice() {
    no_fault_by(RelayMode::Splice);
}

#[test]
fn every_byte_and_every_end_arrives_by_promotion() {
    no_fault_by(RelayMode::Auto);
}
