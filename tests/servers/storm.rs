//! Two thousand clients that connect at the same instant where twenty may: no moment sees a twenty-first, on its backend
//! or in the gauge, and each of the others is refused and counted. `MAITRED_STORM_ROUNDS` says how often.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::AsyncReadExt;

use crate::harness::{Maitred, SHELL, Stop, free_port, wait_for};
use crate::namespace::alone;

const CLIENTS: usize = 2_000;
const THREADS: usize = 4;
const LIMIT: usize = 20;

fn rounds() -> usize {
    let asked = std::env::var("MAITRED_STORM_ROUNDS");
    asked.map_or(5, |text| text.parse().expect("MAITRED_STORM_ROUNDS is a number"))
}

/// A server that greets its connections with a byte, and counts how many it has at once.
#[derive(Default)]
struct Counting {
    open: AtomicUsize,
    most: AtomicUsize,
    stop: AtomicBool,
}

impl Counting {
    fn serve(&self, listener: &TcpListener) {
        listener.set_nonblocking(true).unwrap();
        let mut open: Vec<TcpStream> = Vec::new();
        while !self.stop.load(Relaxed) {
            let mut fds: Vec<PollFd> =
                open.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
            fds.push(PollFd::new(listener, PollFlags::IN));
            // Now and then it looks whether it is to stop.
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
            drop(fds);
            let accepted = listener.accept();
            // Whoever ended before this one came is told apart from it: its end was there before.
            open.retain(|stream| {
                let ended = stream.peek(&mut [0]);
                ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            });
            if let Ok((stream, _)) = accepted {
                stream.set_nonblocking(true).unwrap();
                // One that is gone already is none.
                let _ = std::io::Write::write_all(&mut &stream, b"!");
                open.push(stream);
            }
            self.open.store(open.len(), Relaxed);
            self.most.fetch_max(open.len(), Relaxed);
        }
    }
}

/// A share of the clients: those that were served and stay, and how many were served. If there is `coming_and_going`,
/// every other one leaves as soon as it is served, and makes room.
fn clients(port: u16, barrier: &Barrier, coming_and_going: bool) -> (Vec<TcpStream>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        barrier.wait();
        let each = (0..CLIENTS / THREADS).map(|number| {
            let stays = !coming_and_going || number % 2 == 0;
            tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
                // An end or a reset: it was refused.
                let is_served = matches!(stream.read(&mut [0]).await, Ok(1));
                is_served.then(|| stays.then(|| stream.into_std().unwrap()))
            })
        });
        let (mut staying, mut served) = (Vec::new(), 0);
        for client in each.collect::<Vec<_>>() {
            if let Some(client) = client.await.unwrap() {
                served += 1;
                staying.extend(client);
            }
        }
        (staying, served)
    })
}

/// All clients at once; how many were served.
fn round(maitred: &Maitred, port: u16, counting: &Counting, coming_and_going: bool) -> usize {
    let barrier = Barrier::new(THREADS);
    let is_over = AtomicBool::new(false);
    let (staying, served) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                let active = maitred.metric("maitred_listener_sessions_active", &[]);
                assert!(active < LIMIT as f64 + 0.5, "{active} sessions active");
            }
        });
        let stop = Stop(&is_over);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| clients(port, &barrier, coming_and_going)))
            .collect();
        let (mut staying, mut served) = (Vec::new(), 0);
        for thread in threads {
            let (own, count) = thread.join().unwrap();
            staying.extend(own);
            served += count;
        }
        drop(stop);
        watching.join().unwrap();
        (staying, served)
    });
    assert!(staying.len() <= LIMIT && served >= LIMIT);
    if !coming_and_going {
        assert_eq!((staying.len(), served), (LIMIT, LIMIT));
        let active = maitred.metric("maitred_listener_sessions_active", &[]);
        assert!((active - LIMIT as f64).abs() < 0.5, "{active} sessions active");
    }
    drop(staying);
    maitred.wait_for_no_session();
    wait_for("the backend to be left", || counting.open.load(Relaxed) == 0);
    served
}

fn storm(limit: &str) {
    let (port, backend) = (free_port(), free_port());
    let maitred = Maitred::start_as(
        SHELL,
        "log: {sessions: none}\nprocess: {workers: 3}",
        &format!(
            "listeners: {{main: {{bind: \"127.0.0.1:{port}\", pool: main, limits: {{{limit}: {LIMIT}}}}}}}
pools: {{main: {{backends: [\"127.0.0.1:{backend}\"], health: {{probe: none}}, passive: none}}}}
"
        ),
    );
    let listener = TcpListener::bind(("127.0.0.1", backend)).unwrap();
    let counting = Counting::default();
    let rounds = rounds();
    let mut served = 0;
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| counting.serve(&listener));
        let stop = Stop(&counting.stop);
        for number in 0..rounds {
            served += round(&maitred, port, &counting, number % 2 == 1);
        }
        drop(stop);
        serving.join().unwrap();
    });
    let closed = |labels: &[(&str, &str)]| {
        maitred.metric("maitred_session_closed_total", labels).round() as usize
    };
    let refused = closed(&[("stage", "admit"), ("reason", "over_limit")]);
    println!("{limit}: {rounds} rounds, {served} served, {refused} refused");
    assert_eq!(counting.most.load(Relaxed), LIMIT, "never more at once, and once as many");
    assert_eq!(refused, rounds * CLIENTS - served);
    assert_eq!(closed(&[]), rounds * CLIENTS);
}

#[test]
fn a_storm_of_clients_meets_the_limit_of_the_listener() {
    alone("storm::a_storm_of_clients_meets_the_limit_of_the_listener", || storm("sessions"));
}

#[test]
fn a_storm_of_one_client_meets_its_own_limit() {
    alone("storm::a_storm_of_one_client_meets_its_own_limit", || storm("sessions_per_client"));
}
