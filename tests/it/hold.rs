//! `when_none_up: hold` and `when_full: hold`: clients wait for a place, with their bytes, within bounds.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use maitred::border::addr::ClientAddr;
use maitred::border::record::{CloseReason, Record, Stage};
use maitred::config::{self, Config, Hold, Probe, Start, WhenFull, WhenNoneUp};
use maitred::data::pool::backend::BackendState;
use maitred::data::pool::{PickKey, Tried};
use maitred::sys::socket::reset_on_close;

use crate::balancer::{self, Balancer, wait_for};
use crate::server::{Conduct, Refusal, Server, first_byte, served_by};

const LONG: Hold = Hold { time: Duration::from_secs(60), max: 1000 };

fn held(balancer: &Balancer) -> u32 {
    let snapshot = balancer.supervisor().plane.snapshot.load();
    snapshot.pools["main"].shared.queue.held()
}

/// One backend that takes nothing before its first passed probe.
fn none_up(refusal: &Refusal, hold: Hold) -> Config {
    let mut config = balancer::config(&[refusal.address]);
    let pool = balancer::pool(&mut config);
    pool.when_none_up = WhenNoneUp::Hold(hold);
    pool.health = config::Health {
        probe: Probe::Tcp,
        interval: Duration::from_millis(50),
        start: Start::Down,
        ..config::Pool::default().health
    };
    config
}

#[test]
fn held_clients_are_served_with_their_bytes_the_moment_a_backend_is_up() {
    let refusal = Refusal::new();
    let balancer = Balancer::start(none_up(&refusal, LONG));
    let mut clients: Vec<TcpStream> = (0..20_u8)
        .map(|number| {
            let mut client = TcpStream::connect(balancer.address()).unwrap();
            client.write_all(&[b'a' + number]).unwrap();
            client
        })
        .collect();
    wait_for("twenty held", || held(&balancer) == 20);
    let _server = refusal.revive(Conduct::Echo);
    for (number, client) in (0..20_u8).zip(&mut clients) {
        assert_eq!(first_byte(client), Some((b'a' + number).into()));
    }
    assert_eq!(held(&balancer), 0);
}

#[test]
fn no_more_than_max_are_held() {
    let refusal = Refusal::new();
    let balancer = Balancer::start(none_up(&refusal, Hold { max: 2, ..LONG }));
    let clients: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    wait_for("two held", || held(&balancer) == 2);
    assert_eq!(served_by(balancer.address()), None);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::NoBackend));
    drop(clients);
    wait_for("those that left to be forgotten", || held(&balancer) == 0);
    let reasons: Vec<CloseReason> =
        balancer.endings(3).iter().map(|record| record.reason).collect();
    assert_eq!(reasons[..2], [CloseReason::ClientClosed; 2]);
}

#[test]
fn holding_ends_after_its_time() {
    let refusal = Refusal::new();
    let hold = Hold { time: Duration::from_millis(300), ..LONG };
    let balancer = Balancer::start(none_up(&refusal, hold));
    let begun = Instant::now();
    assert_eq!(served_by(balancer.address()), None);
    assert!(begun.elapsed() >= hold.time);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::HoldTimeout));
    assert_eq!(held(&balancer), 0);
    let snapshot = balancer.supervisor().plane.snapshot.load();
    assert_eq!(snapshot.pools["main"].shared.no_backend.value(), 1, "nobody was up for it");
}

#[test]
fn a_held_client_is_served_by_what_a_reload_brings() {
    let (refusal, server) = (Refusal::new(), Server::start(Conduct::Say(&["n"])));
    let mut config = none_up(&refusal, LONG);
    let mut balancer = Balancer::start(config.clone());
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    wait_for("one held", || held(&balancer) == 1);
    let pool = balancer::pool(&mut config);
    pool.backends = vec![balancer::backend(server.address)];
    pool.health.probe = Probe::None;
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    assert_eq!(first_byte(&mut client), Some('n'));
}

#[test]
fn a_freed_slot_goes_to_who_waits_for_it() {
    let server = Server::start(Conduct::Echo);
    let mut config = balancer::config(&[server.address]);
    let pool = balancer::pool(&mut config);
    pool.when_full = WhenFull::Hold(LONG);
    pool.backends[0].max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let open = || {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(b"x").unwrap();
        client
    };
    let mut first = open();
    assert_eq!(first_byte(&mut first), Some('x'));
    let mut waiting: Vec<TcpStream> = (0..5).map(|_| open()).collect();
    wait_for("five held", || held(&balancer) == 5);
    drop(first);
    // Whoever is served gives the slot on by leaving; all get it in the end, one at a time.
    let mut served = 0;
    wait_for("all to be served", || {
        waiting.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            let is_served = matches!(client.read(&mut [0]), Ok(1));
            served += usize::from(is_served);
            !is_served
        });
        waiting.is_empty()
    });
    assert_eq!(served, 5);
}

#[test]
fn without_hold_a_full_pool_refuses() {
    let server = Server::start(Conduct::Say(&["a"]));
    let mut config = balancer::config(&[server.address]);
    balancer::pool(&mut config).backends[0].max_sessions = Some(1);
    let balancer = Balancer::start(config);
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    assert_eq!(first_byte(&mut client), Some('a'));
    assert_eq!(served_by(balancer.address()), None);
    assert_eq!(balancer.ending(), (Stage::Route, CloseReason::BackendFull));
}

/// Clients, each held before the next one connects, and each with its number as first bytes.
fn queue(balancer: &Balancer, count: u16) -> Vec<TcpStream> {
    let before = held(balancer);
    let clients = (0..count).map(|number| {
        let mut client = TcpStream::connect(balancer.address()).unwrap();
        client.write_all(&number.to_be_bytes()).unwrap();
        let position = before + u32::from(number) + 1;
        wait_for("the next to be held", || held(balancer) == position);
        client
    });
    clients.collect()
}

/// Connections in the order in which they came to a backend: when, and the number that the client sent.
struct Arrivals {
    seen: Arc<Mutex<Vec<(Instant, u16)>>>,
    /// The most connections at once.
    most: Arc<AtomicUsize>,
}

/// Accepts until the listener is closed by the end of the process; ends each connection after `stay`.
fn arrivals(listener: TcpListener, stay: Duration) -> Arrivals {
    let (seen, most) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let arrivals = Arrivals { seen: Arc::clone(&seen), most: Arc::clone(&most) };
    std::thread::spawn(move || {
        let open = Arc::new(AtomicUsize::new(0));
        while let Ok((mut stream, _)) = listener.accept() {
            let when = Instant::now();
            most.fetch_max(open.fetch_add(1, SeqCst) + 1, SeqCst);
            let mut number = [0; 2];
            stream.read_exact(&mut number).unwrap();
            seen.lock().unwrap().push((when, u16::from_be_bytes(number)));
            let open = Arc::clone(&open);
            std::thread::spawn(move || {
                let _ = stream.write_all(b"!");
                stream.set_read_timeout(Some(stay)).unwrap();
                // Until the client leaves, or long enough.
                let _ = stream.read(&mut [0]);
                open.fetch_sub(1, SeqCst);
                reset_on_close(&stream);
            });
        }
    });
    arrivals
}

impl Arrivals {
    fn wait_for(&self, count: usize) -> Vec<(Instant, u16)> {
        wait_for("all to arrive", || self.seen.lock().unwrap().len() >= count);
        self.seen.lock().unwrap().clone()
    }
}

/// Two places out of turn are allowed.
fn assert_in_order(seen: &[(Instant, u16)]) {
    for (position, (_, number)) in seen.iter().enumerate() {
        assert!(position.abs_diff(usize::from(*number)) <= 2, "{number} came as {position}");
    }
}

/// The most arrivals within a second.
fn most_per_second(seen: &[(Instant, u16)]) -> usize {
    let within = |from: &[(Instant, u16)]| {
        from.iter().take_while(|(when, _)| *when - from[0].0 < Duration::from_secs(1)).count()
    };
    (0..seen.len()).map(|from| within(&seen[from..])).max().unwrap_or(0)
}

fn workers_of(balancer: &Balancer) -> Vec<usize> {
    let workers = &balancer.supervisor().plane.workers;
    workers.iter().map(|worker| worker.sessions.load(Relaxed)).collect()
}

#[test]
fn the_oldest_of_all_workers_come_first_and_no_faster_than_the_backend_bears() {
    let refusal = Refusal::new();
    let mut config = none_up(&refusal, LONG);
    balancer::pool(&mut config).health.interval = Duration::from_secs(3600);
    let balancer = Balancer::start(config);
    let mut clients = queue(&balancer, 300);
    let workers = workers_of(&balancer);
    assert!(workers.iter().all(|held| *held > 50), "spread over workers: {workers:?}");
    let address = refusal.address;
    drop(refusal);
    let arrivals = arrivals(TcpListener::bind(address).unwrap(), Duration::from_secs(60));
    let backend = Arc::clone(&pool_now(&balancer).backends[0]);
    backend.set_state(BackendState::Up, "the test says so", Instant::now(), SystemTime::now());
    // A newcomer waits for its turn, too, and the oldest goes in its place.
    let mut newcomer = TcpStream::connect(balancer.address()).unwrap();
    newcomer.write_all(&300_u16.to_be_bytes()).unwrap();
    let seen = arrivals.wait_for(301);
    assert_in_order(&seen);
    let most = most_per_second(&seen);
    assert!(most <= 112, "{most} within a second");
    assert!(seen[300].0 - seen[0].0 >= Duration::from_millis(2_500));
    clients.push(newcomer);
    clients.iter_mut().for_each(|client| assert_eq!(first_byte(client), Some('!')));
    assert_eq!(held(&balancer), 0);
}

fn pool_now(balancer: &Balancer) -> Arc<maitred::data::pool::Pool> {
    Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"])
}

/// Nothing but an attempt can tell that the backend is back.
#[test]
fn a_lone_backend_that_restarts_is_sent_the_oldest_first_and_at_the_same_pace() {
    let refusal = Refusal::new();
    let mut config = balancer::config(&[refusal.address]);
    balancer::pool(&mut config).when_none_up = WhenNoneUp::Hold(LONG);
    let balancer = Balancer::start(config);
    let mut clients = queue(&balancer, 100);
    let address = refusal.address;
    drop(refusal);
    let arrivals = arrivals(TcpListener::bind(address).unwrap(), Duration::from_secs(60));
    let seen = arrivals.wait_for(100);
    assert_in_order(&seen);
    assert!(seen[99].0 - seen[0].0 >= Duration::from_millis(700));
    clients.iter_mut().for_each(|client| assert_eq!(first_byte(client), Some('!')));
}

#[test]
fn two_backends_that_come_are_sent_twice_as_many_in_the_order_of_the_queue() {
    let refusals = [Refusal::new(), Refusal::new()];
    let mut config = none_up(&refusals[0], LONG);
    let pool = balancer::pool(&mut config);
    pool.health.interval = Duration::from_secs(3600);
    pool.balance = config::Balance::RoundRobin;
    pool.backends.push(balancer::backend(refusals[1].address));
    let balancer = Balancer::start(config);
    let clients = queue(&balancer, 200);
    let arrivals = refusals.map(|refusal| {
        let address = refusal.address;
        drop(refusal);
        arrivals(TcpListener::bind(address).unwrap(), Duration::from_secs(60))
    });
    for backend in &pool_now(&balancer).backends {
        backend.set_state(BackendState::Up, "the test says so", Instant::now(), SystemTime::now());
    }
    wait_for("all to arrive", || {
        arrivals.iter().map(|it| it.seen.lock().unwrap().len()).sum::<usize>() == 200
    });
    let each = arrivals.each_ref().map(|it| it.seen.lock().unwrap().clone());
    let [a, b] = each.each_ref().map(|seen| most_per_second(seen));
    assert!(a <= 112 && b <= 112, "{a} and {b} within a second");
    assert!(each.iter().all(|seen| seen.len() >= 80), "{} and {}", each[0].len(), each[1].len());
    for seen in &each {
        let numbers: Vec<u16> = seen.iter().map(|(_, number)| *number).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        for (position, number) in numbers.iter().enumerate() {
            let place = sorted.iter().position(|it| it == number).unwrap();
            assert!(place.abs_diff(position) <= 2, "{number} came as {position}: {numbers:?}");
        }
    }
    drop(clients);
}

#[test]
fn freed_slots_go_to_the_oldest_of_all_workers_and_never_too_many() {
    let (listener, address) = balancer::loopback();
    let mut config = balancer::config(&[address]);
    let pool = balancer::pool(&mut config);
    pool.when_full = WhenFull::Hold(LONG);
    pool.backends[0].max_sessions = Some(3);
    let balancer = Balancer::start(config);
    let permits: Vec<_> = (0..3)
        .map(|_| {
            let client = PickKey::new(ClientAddr::new("127.0.0.1:1".parse().unwrap()));
            pool_now(&balancer).pick(&client, &Tried::default(), Instant::now()).unwrap()
        })
        .collect();
    let clients = queue(&balancer, 300);
    let stay = Duration::from_millis(5);
    let arrivals = arrivals(listener, stay);
    let begun = Instant::now();
    drop(permits);
    // Newcomers see slots that are free for a moment, and must not take them.
    let late: Vec<TcpStream> = (300..400_u16)
        .map(|number| {
            let mut client = TcpStream::connect(balancer.address()).unwrap();
            client.write_all(&number.to_be_bytes()).unwrap();
            client
        })
        .collect();
    let seen = arrivals.wait_for(400);
    assert_in_order(&seen[..300]);
    assert!(seen[300..].iter().all(|(_, number)| *number >= 300), "nobody was overtaken");
    assert!(arrivals.most.load(SeqCst) <= 3, "{:?} at once", arrivals.most);
    assert_eq!(pool_now(&balancer).backends[0].live.slot.peak(), 3);
    // The backend was there before: nothing but its slots holds anybody up.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    drop((clients, late));
}

#[test]
fn whoever_leaves_or_is_refused_a_place_does_not_stop_the_queue() {
    let refusal = Refusal::new();
    let mut config = none_up(&refusal, Hold { max: 20, ..LONG });
    balancer::pool(&mut config).health.interval = Duration::from_secs(3600);
    let balancer = Balancer::start(config);
    let mut clients = queue(&balancer, 20);
    // Too many while nobody is up.
    assert_eq!(served_by(balancer.address()), None);
    // The first, some in the middle, the last.
    for number in [19, 10, 9, 0] {
        // Who asked and only half-closed still waits.
        reset_on_close(clients.remove(number));
    }
    let left: Vec<u16> = (1..19).filter(|number| ![9, 10].contains(number)).collect();
    let address = refusal.address;
    drop(refusal);
    let arrivals = arrivals(TcpListener::bind(address).unwrap(), Duration::from_secs(60));
    wait_for("those that left to be forgotten", || held(&balancer) == 16);
    let backend = Arc::clone(&pool_now(&balancer).backends[0]);
    backend.set_state(BackendState::Up, "the test says so", Instant::now(), SystemTime::now());
    let seen = arrivals.wait_for(left.len());
    let order: Vec<u16> = seen.iter().map(|(_, number)| *number).collect();
    let is_near = |(position, number): (usize, &u16)| {
        left.iter().position(|it| it == number).unwrap().abs_diff(position) <= 2
    };
    assert!(order.iter().enumerate().all(is_near), "{order:?}");
}

/// The backend has room, the queue is as long as it may be, and nobody has told those who wait. `None`: somebody of them
/// looked just then.
fn newcomer_at_a_full_queue(limit: Option<u32>) -> Option<bool> {
    let refusal = Refusal::new();
    let mut config = none_up(&refusal, Hold { max: 40, ..LONG });
    let pool = balancer::pool(&mut config);
    pool.health.interval = Duration::from_secs(3600);
    pool.backends[0].max_sessions = limit;
    let balancer = Balancer::start(config);
    let clients = queue(&balancer, 40);
    let _server = refusal.revive(Conduct::Say(&["n"]));
    pool_now(&balancer).backends[0].live.slot.set_weights(256, 256);
    let mut newcomer = TcpStream::connect(balancer.address()).unwrap();
    let is_refused = |record: &Record| record.reason == CloseReason::BackendFull;
    let mut was_shorter = false;
    newcomer.set_nonblocking(true).unwrap();
    let mut served = false;
    wait_for("the newcomer's fate", || {
        served = matches!(newcomer.read(&mut [0]), Ok(1));
        was_shorter = was_shorter || held(&balancer) < 40;
        served || was_shorter || balancer.records.lock().unwrap().iter().any(is_refused)
    });
    clients.iter().chain([&newcomer]).for_each(reset_on_close);
    let refused = balancer.records.lock().unwrap().iter().any(is_refused);
    (served || refused).then_some(served)
}

#[test]
fn a_full_queue_turns_newcomers_away_only_from_room_that_others_wait_for() {
    for (limit, served) in [(None, true), (Some(10), false)] {
        // One of those who wait looks every 250 ms.
        let fate = (0..20).find_map(|_| newcomer_at_a_full_queue(limit));
        assert_eq!(fate, Some(served), "with limit {limit:?}");
    }
}
