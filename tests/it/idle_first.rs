//! `on_down: {idle_first: …}`: quiet sessions are closed first, busy ones at the deadline; and many are closed at a pace.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use maitred::border::plane::SessionFilter;
use maitred::border::record::CloseReason;
use maitred::config::{self, Bandwidth, OnDown, OnDownReasons, Probe};
use maitred::data::pool::backend::BackendState;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::balancer::{self, Balancer, wait_for};
use crate::by_hand::Program;
use crate::server::{Conduct, Refusal, Server, first_byte};
use crate::tls::{DIAL, Files};

const WELL: Conduct = Conduct::Say(&["up"]);

/// A backend whose health is on a port of its own.
struct Scene {
    balancer: Balancer,
    config: config::Config,
    listener: TcpListener,
}

/// Both ends of a session.
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Scene {
    fn new(on_down: OnDown, on_down_reasons: OnDownReasons) -> (Scene, Server) {
        Scene::with(on_down, on_down_reasons, |_| {})
    }

    fn with(
        on_down: OnDown,
        on_down_reasons: OnDownReasons,
        more: impl FnOnce(&mut config::Config),
    ) -> (Scene, Server) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let health = Server::start(WELL);
        let mut config = balancer::config(&[listener.local_addr().unwrap()]);
        let pool = balancer::pool(&mut config);
        (pool.on_down, pool.on_down_reasons) = (on_down, on_down_reasons);
        pool.health = config::Health {
            probe: Probe::Tcp,
            port: Some(health.address.port()),
            interval: Duration::from_millis(50),
            timeout: Duration::from_millis(500),
            ..config::Pool::default().health
        };
        more(&mut config);
        let balancer = Balancer::start(config.clone());
        let scene = Scene { balancer, config, listener };
        scene.wait_until(BackendState::Up);
        (scene, health)
    }

    fn wait_until(&self, state: BackendState) {
        wait_for(&format!("{state:?}"), || {
            let snapshot = self.balancer.supervisor().plane.snapshot.load();
            let found = snapshot.pools["main"].backends[0].status().state;
            found == state
        });
    }

    fn session(&self) -> Pair {
        let client = dial(self.balancer.address());
        let mut pair = Pair { client, server: self.listener.accept().unwrap().0 };
        pair.goes_on();
        pair
    }

    fn fall(&self, health: Server) -> Refusal {
        let refusal = health.kill();
        self.wait_until(BackendState::Down);
        refusal
    }
}

impl Pair {
    fn goes_on(&mut self) {
        self.client.write_all(b"x").unwrap();
        assert_eq!(first_byte(&mut self.server), Some('x'));
    }

    fn is_cut(&mut self) {
        for side in [&mut self.client, &mut self.server] {
            side.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            assert_eq!(side.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
}

/// A session on which a byte is always on its way, unless this machine is too busy itself.
struct Busy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Pair, Duration)>,
}

impl Busy {
    fn start(mut pair: Pair) -> Busy {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        pair.server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let thread = std::thread::spawn(move || {
            let (mut last, mut pause) = (Instant::now(), Duration::ZERO);
            while !stopped.load(Relaxed) {
                let is_cut = pair.client.write_all(b"x").is_err()
                    || pair.server.read_exact(&mut [0]).is_err();
                pause = pause.max(last.elapsed());
                if is_cut {
                    return (pair, pause);
                }
                last = Instant::now();
            }
            (pair, Duration::ZERO)
        });
        Busy { stop, thread }
    }

    /// If it was cut before, there was a quiet moment.
    fn stop(self) -> Pair {
        let was_cut = self.thread.is_finished();
        self.stop.store(true, Relaxed);
        let (pair, pause) = self.thread.join().unwrap();
        assert!(!was_cut || pause > Duration::from_millis(80), "cut after {pause:?}");
        pair
    }
}

/// Takes few bytes, so that those it does not read are on their way.
fn dial(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Sends until nobody takes any more: our buffers, pipes and all kernels on the way are full. Returns how much.
fn clog(mut from: &TcpStream) -> usize {
    const LEAST: usize = 512 * 1024;
    from.set_nonblocking(true).unwrap();
    let (mut sent, mut last) = (0, Instant::now());
    while sent < LEAST || last.elapsed() < Duration::from_millis(300) {
        match from.write(&[7; 65_536]) {
            Ok(count) => (sent, last) = (sent + count, Instant::now()),
            // Nobody says when there is room again.
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(last.elapsed() < Duration::from_secs(20), "{sent}");
    }
    from.set_nonblocking(false).unwrap();
    sent
}

/// Reads all of it.
fn unclog(mut to: &TcpStream, sent: usize) {
    let mut received = vec![0; sent];
    to.read_exact(&mut received).unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
}

fn idle_first(milliseconds: u64) -> OnDown {
    OnDown::IdleFirst(Duration::from_millis(milliseconds))
}

#[test]
fn who_is_quiet_goes_first_and_who_is_busy_at_the_deadline() {
    const TIME: u64 = 1_500;
    let (scene, health) = Scene::new(idle_first(TIME), OnDownReasons::default());
    let (mut quiet, busy) = (scene.session(), scene.session());
    clog(&busy.server);
    let begun = Instant::now();
    let _refusal = scene.fall(health);
    quiet.is_cut();
    assert_eq!(scene.balancer.ending().1, CloseReason::BackendDown);
    let records = scene.balancer.endings(2);
    assert!(begun.elapsed() >= Duration::from_millis(TIME));
    assert_eq!(records[1].reason, CloseReason::BackendDown);
}

#[test]
fn who_is_busy_is_closed_in_its_first_pause() {
    let (scene, health) = Scene::new(idle_first(600_000), OnDownReasons::default());
    let (busy, mut quiet) = (Busy::start(scene.session()), scene.session());
    let _refusal = scene.fall(health);
    quiet.is_cut();
    busy.stop().is_cut();
}

/// Nothing moves, and yet it is not quiet: what the backend sent is on its way to a client that reads slowly.
#[test]
fn who_has_bytes_under_way_is_not_quiet() {
    let (scene, health) = Scene::new(idle_first(600_000), OnDownReasons::default());
    let (mut slow, mut quiet) = (scene.session(), scene.session());
    let sent = clog(&slow.server);
    let _refusal = scene.fall(health);
    quiet.is_cut();
    unclog(&slow.client, sent);
    slow.is_cut();
}

/// In TLS bytes may wait in more places; with a bandwidth, in the kernel until it is their time.
#[test]
fn in_tls_and_with_a_bandwidth_a_quiet_moment_is_one_as_well() {
    let files = Files::new();
    let bandwidth = Bandwidth { to_client: Some(1 << 20), to_backend: Some(1 << 20) };
    let (scene, health) = Scene::with(idle_first(600_000), OnDownReasons::default(), |config| {
        let listener = balancer::listener(config);
        listener.tls = files.server(false, &[]);
        listener.limits.bandwidth = Some(bandwidth);
    });
    let mut client = files.dial(scene.balancer.address(), DIAL);
    client.write_all(b"x").unwrap();
    let mut server = scene.listener.accept().unwrap().0;
    assert_eq!(first_byte(&mut server), Some('x'));
    server.write_all(b"y").unwrap();
    client.read_exact(&mut [0]).unwrap();
    let _refusal = scene.fall(health);
    client.sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(scene.balancer.ending().1, CloseReason::BackendDown);
}

#[test]
fn who_recovers_keeps_those_that_are_left() {
    let (scene, health) = Scene::new(idle_first(1_500), OnDownReasons::default());
    let (mut kept, mut quiet) = (scene.session(), scene.session());
    let sent = clog(&kept.server);
    let refusal = scene.fall(health);
    quiet.is_cut();
    let _health = refusal.revive(WELL);
    scene.wait_until(BackendState::Up);
    // Quiet from here on, which is nobody's business any more.
    unclog(&kept.client, sent);
    // Nothing to wait for: it is about what does not happen, for longer than the time and a tick.
    std::thread::sleep(Duration::from_millis(1_800));
    kept.goes_on();
}

#[test]
fn a_removed_backend_has_the_same_policy() {
    let removed = OnDownReasons { removed: Some(idle_first(1_000)), ..Default::default() };
    let (mut scene, _health) = Scene::new(OnDown::Keep, removed);
    let (mut quiet, busy) = (scene.session(), scene.session());
    clog(&busy.server);
    let mut config = scene.config.clone();
    balancer::pool(&mut config).backends = vec![balancer::backend("127.0.0.1:9".parse().unwrap())];
    let begun = Instant::now();
    scene.balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    quiet.is_cut();
    let records = scene.balancer.endings(2);
    assert!(begun.elapsed() >= Duration::from_millis(1_000));
    assert!(records.iter().all(|it| it.reason == CloseReason::BackendRemoved));
}

/// More than may end at once, on both workers.
const MANY: usize = 2_000;

/// Those beyond the first 512, at 10 000 a second.
const PACE: Duration = Duration::from_millis(148);

/// Far less than that, as the first end may be seen late.
const LEAST: Duration = Duration::from_millis(60);

fn crowd(scene: &Scene) -> Vec<Pair> {
    (0..MANY).map(|_| scene.session()).collect()
}

fn time_from_first_to_last(scene: &Scene) -> Duration {
    let ended = || scene.balancer.records.lock().unwrap().len();
    wait_for("the first end", || ended() > 0);
    let first = Instant::now();
    wait_for("the last end", || ended() == MANY);
    first.elapsed()
}

#[test]
fn many_are_not_reset_all_at_once() {
    let (scene, health) = Scene::new(OnDown::Reset, OnDownReasons::default());
    let mut crowd = crowd(&scene);
    let _refusal = health.kill();
    assert!(time_from_first_to_last(&scene) >= LEAST);
    crowd.iter_mut().for_each(Pair::is_cut);
    assert!(scene.balancer.endings(MANY).iter().all(|it| it.reason == CloseReason::BackendDown));
}

#[test]
fn many_are_killed_at_the_same_pace_and_counted_at_once() {
    let (scene, _health) = Scene::new(OnDown::Keep, OnDownReasons::default());
    let mut crowd = crowd(&scene);
    let all = SessionFilter { pool: Some("main".into()), ..SessionFilter::default() };
    let before = Instant::now();
    let mut counts = scene.balancer.supervisor().kill(all);
    let mut killed = 0;
    while let Some(count) = counts.blocking_recv() {
        killed += count;
    }
    assert_eq!(killed, MANY);
    assert_eq!(scene.balancer.endings(MANY)[0].reason, CloseReason::Killed);
    assert!(before.elapsed() >= PACE);
    crowd.iter_mut().for_each(Pair::is_cut);
}

/// In maintenance, with the command line: what is left is seen until it is closed.
#[test]
fn it_is_seen_how_many_are_left_and_until_when() {
    let a = Server::start(Conduct::Echo);
    let program = Program::start(&format!(
        "backends: [{{address: \"{}\", name: a}}], on_down_reasons: {{by_hand: {{idle_first: 1h}}}}",
        a.address
    ));
    let mut open: Vec<TcpStream> = (0..3).map(|_| dial(program.address())).collect();
    for stream in &mut open {
        stream.write_all(b"x").unwrap();
        assert_eq!(first_byte(stream), Some('x'));
    }
    assert_eq!(program.backend("a")["closing"], Value::Null);
    let mut busy = open.pop().unwrap();
    // The server cannot send it back while nobody reads.
    let sent = clog(&busy);
    program.does(&["backend", "maintenance", "main", "a"]);
    wait_for("the quiet ones to be closed", || program.backend("a")["closing"]["left"] == 1);
    let closing = &program.backend("a")["closing"];
    assert_eq!(closing["policy"], "idle_first");
    let until: jiff::Timestamp = closing["until"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now());
    assert!((3_000..=3_600).contains(&left.as_secs()), "{until}");
    let table = program.does(&["show", "pools"]);
    assert!(table.contains("idle_first 1 left until 2"), "{table}");
    program.does(&["backend", "up", "main", "a"]);
    wait_for("the end of it", || program.backend("a")["closing"] == Value::Null);
    unclog(&busy, sent);
    busy.write_all(b"z").unwrap();
    assert_eq!(first_byte(&mut busy), Some('z'));
}
