//! Who serves where probes alone do not say it: `single`, `failback`, `flap`. With the real program and its own command
//! line; backends say at once who they are and what for, and change their minds.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use maitred::config::{self, Balance, Expect, Health, Probe, Protocol, Single, UdpProbe};
use maitred::data::pool::backend::BackendState;
use serde_json::Value;

use crate::admin::ask_socket;
use crate::balancer::{self, Balancer, wait_for};
use crate::by_hand::Program;
use crate::server::{first_byte, served_by};

/// A backend that says its name and its role to whoever connects, and keeps the connection.
struct Member {
    name: &'static str,
    address: SocketAddr,
    role: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const PRIMARY: &str = "primary";
const REPLICA: &str = "replica";
/// It closes without a word.
const DEAD: &str = "";
/// It closes after a word that nobody expects.
const MAD: &str = "mad";

impl Member {
    fn start(name: &'static str, role: &'static str) -> Member {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (role, stop) = (Arc::new(Mutex::new(role)), Arc::new(AtomicBool::new(false)));
        let (said, stopped) = (Arc::clone(&role), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !stopped.load(Relaxed) {
                match listener.accept() {
                    Ok((mut stream, _)) => {
                        let role = *said.lock().unwrap();
                        if role != DEAD {
                            // A probe that has left needs no answer.
                            let _ = stream.write_all(format!("{name} {role}").as_bytes());
                        }
                        if [PRIMARY, REPLICA].contains(&role) {
                            open.push(stream);
                        }
                    }
                    // A listener that can be told to stop cannot block in accept.
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Member { name, address, role, stop, thread: Some(thread) }
    }

    fn becomes(&self, role: &'static str) {
        *self.role.lock().unwrap() = role;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

const PROBE: &str = "health: {probe: {exchange: {expect: primary, standby: replica}}, interval: 30ms, \
                     timeout: 20s, rise: 1, fall: 1}";

/// Each in a tier, with these keys besides.
fn pools(members: &[(&Member, u32)], more: &str) -> String {
    let backend = |(member, tier): &(&Member, u32)| {
        format!("{{address: \"{}\", name: {}, tier: {tier}}}", member.address, member.name)
    };
    let backends: Vec<String> = members.iter().map(backend).collect();
    format!("backends: [{}], {PROBE}, {more}", backends.join(", "))
}

fn both<'a>(a: &'a Member, b: &'a Member) -> [(&'a Member, u32); 2] {
    [(a, 0), (b, 0)]
}

impl Program {
    fn state(&self, name: &str) -> String {
        self.backend(name)["state"].as_str().unwrap().to_owned()
    }

    fn why(&self, name: &str) -> String {
        self.backend(name)["why"].as_str().unwrap().to_owned()
    }

    fn pool(&self) -> Value {
        self.show("pools")["pools"][0].clone()
    }

    fn wait_for_states(&self, states: &[(&str, &str)]) {
        let found = || states.iter().map(|(name, _)| self.state(name)).collect::<Vec<_>>();
        let wanted: Vec<&str> = states.iter().map(|(_, state)| *state).collect();
        wait_for(&format!("{states:?}"), || found() == wanted);
    }

    fn events(&self) -> Vec<String> {
        let (_, answer) = ask_socket(&self.socket(), "GET /api/v1/events");
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect()
    }

    fn wait_for_event(&self, what: &str) {
        let has = || self.events().iter().any(|event| event.contains(what));
        wait_for(&format!("{what}; {:?}", self.events()), has);
    }

    fn reloads(&self, pools: &str) {
        self.write(pools);
        self.does(&["reload"]);
    }

    fn conflict(&self) -> Value {
        self.pool()["conflict"].clone()
    }
}

/// Who serves the next sessions; each is with the same.
fn serves(program: &Program) -> Option<char> {
    let address = program.address();
    let all: Vec<Option<char>> = (0..6).map(|_| served_by(address)).collect();
    assert!(all.iter().all(|it| *it == all[0]), "{all:?}");
    all[0]
}

fn is_reset(mut client: TcpStream) {
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    assert_eq!(client.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn the_second_that_says_it_is_right_stands_by_and_the_first_goes_on() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", REPLICA));
    let keep = pools(&both(&a, &b), "single: keep, on_down_reasons: {wrong_role: reset}");
    let program = Program::start(&keep);
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    assert_eq!(program.conflict(), false);
    let mut open = TcpStream::connect(program.address()).unwrap();
    assert_eq!(first_byte(&mut open), Some('a'));
    b.becomes(PRIMARY);
    wait_for("the conflict", || program.conflict() == true);
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    assert!(program.why("b").starts_with("single: a serves, last: passed"), "{}", program.why("b"));
    assert_eq!(serves(&program), Some('a'));
    program.wait_for_event("main: 2 backends say they are right: a, b; a goes on");
    let log = std::fs::read_to_string(program.log()).unwrap();
    assert!(
        log.lines().any(|it| it.contains("ERROR") && it.contains("say they are right")),
        "{log}"
    );
    // A reload knows who served before.
    let more = format!("{keep}, slow_start: 1s");
    program.reloads(&more);
    assert_eq!((program.conflict(), serves(&program)), (true.into(), Some('a')));
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    // The one that was kept dies, and the other takes over.
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down"), ("b", "up")]);
    assert_eq!((program.conflict(), serves(&program)), (false.into(), Some('b')));
    program.wait_for_event("main: the conflict is over: b serves");
    // It is back, and now it is the second.
    a.becomes(PRIMARY);
    program.wait_for_states(&[("a", "standby"), ("b", "up")]);
    assert_eq!((program.conflict(), serves(&program)), (true.into(), Some('b')));
    let metrics = crate::admin::ask_text(&program.socket(), "/metrics");
    assert!(metrics.contains("maitred_pool_conflict{pool=\"main\"} 1"), "{metrics}");
    // Whoever is put aside loses its sessions as one of the wrong role.
    let mut open = TcpStream::connect(program.address()).unwrap();
    assert_eq!(first_byte(&mut open), Some('b'));
    b.becomes(REPLICA);
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    is_reset(open);
    assert_eq!(serves(&program), Some('a'));
}

#[test]
fn of_two_at_the_start_none_serves_until_one_is_left() {
    for single in ["keep", "refuse"] {
        let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
        let program = Program::start(&pools(&both(&a, &b), &format!("single: {single}")));
        wait_for("the conflict", || program.conflict() == true);
        program.wait_for_states(&[("a", "standby"), ("b", "standby")]);
        for name in ["a", "b"] {
            let why = program.why(name);
            let says = "single: 2 backends say they are right: a, b; none serves, last: passed";
            assert!(why.starts_with(says), "{why}");
        }
        assert_eq!(serves(&program), None);
        program.wait_for_event("main: 2 backends say they are right: a, b; none serves");
        program.reloads(&pools(&both(&a, &b), &format!("single: {single}, slow_start: 1s")));
        assert_eq!((program.conflict(), serves(&program)), (true.into(), None));
        a.becomes(REPLICA);
        program.wait_for_states(&[("a", "standby"), ("b", "up")]);
        assert_eq!((program.conflict(), serves(&program)), (false.into(), Some('b')));
        // None of them ever served before both were known.
        assert_eq!(program.backend("a")["sessions_total"], 0);
    }
}

#[test]
fn with_refuse_none_serves_while_two_say_they_are_right() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", REPLICA));
    let more = "single: refuse, on_down_reasons: {wrong_role: reset}";
    let program = Program::start(&pools(&both(&a, &b), more));
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    let mut open = TcpStream::connect(program.address()).unwrap();
    assert_eq!(first_byte(&mut open), Some('a'));
    b.becomes(PRIMARY);
    program.wait_for_states(&[("a", "standby"), ("b", "standby")]);
    is_reset(open);
    assert_eq!((program.conflict(), serves(&program)), (true.into(), None));
    b.becomes(DEAD);
    program.wait_for_states(&[("a", "up"), ("b", "down")]);
    assert_eq!((program.conflict(), serves(&program)), (false.into(), Some('a')));
}

/// `try_all` tries backends that are down; of these at most the one that served.
#[test]
fn nobody_is_tried_in_place_of_the_one_that_served() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", DEAD));
    let program = Program::start(&pools(&both(&a, &b), "single: keep, when_none_up: try_all"));
    program.wait_for_states(&[("a", "up"), ("b", "down")]);
    assert_eq!(serves(&program), Some('a'));
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down"), ("b", "down")]);
    assert_eq!(serves(&program), None);
    // Sessions may see that before probes do.
    b.becomes(MAD);
    let why = || program.why("b");
    wait_for("a mismatch", || why().contains("b mad"));
    assert_eq!(serves(&program), None);
    assert_eq!(program.backend("b")["sessions_total"], 0);
}

#[test]
fn one_that_is_taken_out_by_hand_does_not_serve_and_the_other_does() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", REPLICA));
    let program = Program::start(&pools(&both(&a, &b), "single: keep"));
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    assert_eq!(serves(&program), Some('a'));
    b.becomes(PRIMARY);
    wait_for("the conflict", || program.conflict() == true);
    for state in ["drain", "maintenance"] {
        program.does(&["backend", state, "main", "a"]);
        assert_eq!(serves(&program), Some('b'), "at once");
        program.wait_for_states(&[("a", state), ("b", "up")]);
        assert_eq!(program.conflict(), false);
        program.does(&["backend", "up", "main", "a"]);
        program.wait_for_states(&[("a", "standby"), ("b", "up")]);
        assert_eq!((program.conflict(), serves(&program)), (true.into(), Some('b')));
        program.does(&["backend", "drain", "main", "b"]);
        assert_eq!(serves(&program), Some('a'), "at once");
        program.does(&["backend", "up", "main", "b"]);
        program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    }
}

/// Two are a conflict whatever their tiers, and one serves from whatever tier.
#[test]
fn tiers_do_not_decide_between_two_that_say_they_are_right() {
    let (a, b) = (Member::start("a", REPLICA), Member::start("b", PRIMARY));
    let program = Program::start(&pools(&[(&a, 0), (&b, 1)], "single: keep"));
    program.wait_for_states(&[("a", "standby"), ("b", "up")]);
    assert_eq!(serves(&program), Some('b'));
    a.becomes(PRIMARY);
    wait_for("the conflict", || program.conflict() == true);
    program.wait_for_states(&[("a", "standby"), ("b", "up")]);
    assert_eq!(serves(&program), Some('b'));
    b.becomes(REPLICA);
    program.wait_for_states(&[("a", "up"), ("b", "standby")]);
    assert_eq!(serves(&program), Some('a'));
}

#[test]
fn a_reload_may_switch_it_on_and_off() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
    let of = |more: &str| pools(&both(&a, &b), more);
    let program = Program::start(&of("balance: round_robin"));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    assert_eq!(program.conflict(), Value::Null);
    assert!(
        !crate::admin::ask_text(&program.socket(), "/metrics").contains("maitred_pool_conflict{")
    );
    program.reloads(&of("single: refuse"));
    assert_eq!((program.conflict(), serves(&program)), (true.into(), None));
    program.reloads(&of("balance: round_robin"));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    let served: Vec<char> = (0..4).filter_map(|_| served_by(program.address())).collect();
    assert!(served.contains(&'a') && served.contains(&'b'), "{served:?}");
}

#[test]
fn a_lower_tier_that_is_back_waits_for_a_hand() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
    let of = |more: &str| pools(&[(&a, 0), (&b, 1)], &format!("failback: manual{more}"));
    let program = Program::start(&of(""));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    assert_eq!(serves(&program), Some('a'), "the lowest at the start");
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down")]);
    assert_eq!(serves(&program), Some('b'));
    program.wait_for_event("main: tier 1 serves, instead of tier 0");
    a.becomes(PRIMARY);
    program.wait_for_states(&[("a", "up")]);
    assert_eq!(serves(&program), Some('b'));
    let why = program.why("a");
    assert!(why.starts_with("1 probe passed; waits for failback: by hand, last: passed"), "{why}");
    assert_eq!(program.backend("a")["waits_for_failback"]["until"], Value::Null);
    assert!(program.backend("a")["waits_for_failback"].is_object());
    assert_eq!(program.pool()["serving_tier"], 1);
    program.wait_for_event("main/a up: 1 probe passed; waits for failback: by hand");
    program.reloads(&of(", slow_start: 10ms"));
    assert_eq!(serves(&program), Some('b'), "over a reload");
    program.does(&["backend", "up", "main", "b"]);
    assert_eq!(serves(&program), Some('b'), "it serves anyway");
    program.does(&["backend", "up", "main", "a"]);
    assert_eq!(serves(&program), Some('a'), "at once");
    assert_eq!(program.backend("a")["waits_for_failback"], Value::Null);
    program.wait_for_event("main: tier 0 serves again, instead of tier 1");
    // What was allowed once is not allowed for ever.
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down")]);
    a.becomes(PRIMARY);
    program.wait_for_states(&[("a", "up")]);
    assert_eq!(serves(&program), Some('b'));
    // Nobody is up where it serves: the other does not wait.
    b.becomes(DEAD);
    program.wait_for_states(&[("b", "down")]);
    assert_eq!(serves(&program), Some('a'));
    assert_eq!(program.pool()["serving_tier"], 0);
    b.becomes(PRIMARY);
    program.wait_for_states(&[("b", "up")]);
    assert_eq!(serves(&program), Some('a'));
}

/// Whoever lifts a maintenance means it to serve again, which it does once its probe has passed.
#[test]
fn up_after_maintenance_is_a_hand_and_the_end_of_a_drain_is_none() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
    let program = Program::start(&pools(&[(&a, 0), (&b, 1)], "failback: manual"));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    assert_eq!(serves(&program), Some('a'));
    program.does(&["backend", "maintenance", "main", "a"]);
    assert_eq!(serves(&program), Some('b'));
    program.does(&["backend", "up", "main", "a"]);
    program.wait_for_states(&[("a", "up")]);
    wait_for("a to serve", || program.pool()["serving_tier"] == 0);
    assert_eq!(serves(&program), Some('a'));
    program.does(&["backend", "drain", "main", "a", "--until", "300ms"]);
    assert_eq!(serves(&program), Some('b'));
    program.wait_for_states(&[("a", "up")]);
    assert_eq!(serves(&program), Some('b'));
    assert!(program.why("a").contains("waits for failback: by hand"));
}

#[test]
fn a_lower_tier_returns_after_the_time_or_by_hand_before() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
    let of = |after: &str| pools(&[(&a, 0), (&b, 1)], &format!("failback: {{after: {after}}}"));
    let program = Program::start(&of("1h"));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    assert_eq!(serves(&program), Some('a'));
    let fail = || {
        a.becomes(DEAD);
        program.wait_for_states(&[("a", "down")]);
        assert_eq!(serves(&program), Some('b'));
        a.becomes(PRIMARY);
        program.wait_for_states(&[("a", "up")]);
        assert_eq!(serves(&program), Some('b'));
    };
    fail();
    assert!(program.why("a").contains("; waits for failback until 2"), "{}", program.why("a"));
    let until = program.backend("a")["waits_for_failback"]["until"].clone();
    let until: jiff::Timestamp = until.as_str().unwrap().parse().unwrap();
    let left = until.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((3_500..=3_600).contains(&left), "{until}");
    program.does(&["backend", "up", "main", "a"]);
    assert_eq!(serves(&program), Some('a'));
    fail();
    program.reloads(&of("100ms"));
    wait_for("the end of the time", || program.pool()["serving_tier"] == 0);
    assert_eq!(serves(&program), Some('a'));
    program.wait_for_event("main: tier 0 serves again, instead of tier 1");
}

#[test]
fn who_flaps_is_held_down_until_it_is_over_or_a_hand_ends_it() {
    let (a, b) = (Member::start("a", PRIMARY), Member::start("b", PRIMARY));
    let of = |hold| {
        let flap = format!("flap: {{changes: 3, within: 1h, hold_down: {hold}}}");
        pools(&both(&a, &b), &format!("{flap}, on_down: reset"))
    };
    let program = Program::start(&of("1h"));
    program.wait_for_states(&[("a", "up"), ("b", "up")]);
    let flaps = || {
        a.becomes(DEAD);
        program.wait_for_states(&[("a", "down")]);
        a.becomes(PRIMARY);
        program.wait_for_states(&[("a", "up")]);
        a.becomes(DEAD);
        program.wait_for_states(&[("a", "down")]);
        let why = program.why("a");
        let says = "flapping: 3 changes within 1h; held down until 2";
        assert!(why.starts_with(says) && why.contains(", last: "), "{why}");
        a.becomes(PRIMARY);
        wait_for("a pass", || program.why("a").contains("last: passed"));
        assert_eq!((&*program.state("a"), serves(&program)), ("down", Some('b')));
    };
    flaps();
    program.wait_for_event("main/a down: flapping: 3 changes within 1h; held down until 2");
    program.does(&["backend", "up", "main", "a"]);
    assert_eq!(program.state("a"), "up", "at once");
    flaps();
    program.reloads(&of("300ms"));
    assert_eq!(program.state("a"), "down", "a hold has the length that it began with");
    program.does(&["backend", "up", "main", "a"]);
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down")]);
    a.becomes(PRIMARY);
    program.wait_for_states(&[("a", "up")]);
    a.becomes(DEAD);
    wait_for("a hold", || program.why("a").starts_with("flapping"));
    a.becomes(PRIMARY);
    program.wait_for_states(&[("a", "up")]);
    // The count begins anew.
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down")]);
    assert!(program.why("a").starts_with("1 probe failed"), "{}", program.why("a"));
}

/// The last change is one to `up`: it does not come up at all, which is said.
#[test]
fn a_hold_that_begins_as_it_comes_up_is_told() {
    let a = Member::start("a", PRIMARY);
    let flap = "flap: {changes: 2, within: 1h, hold_down: 1h}";
    let program = Program::start(&pools(&[(&a, 0)], flap));
    program.wait_for_states(&[("a", "up")]);
    a.becomes(DEAD);
    program.wait_for_states(&[("a", "down")]);
    a.becomes(PRIMARY);
    program.wait_for_event("main/a down: flapping: 2 changes within 1h; held down until 2");
    assert_eq!(program.state("a"), "down");
    // A rule that is gone holds nobody.
    program.reloads(&pools(&[(&a, 0)], "flap: none"));
    program.wait_for_states(&[("a", "up")]);
}

/// One that says its role to whoever asks for it, and its name to everybody else.
fn answerer(name: &'static str, role: &'static str) -> (SocketAddr, Arc<Mutex<&'static str>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let role = Arc::new(Mutex::new(role));
    let said = Arc::clone(&role);
    // Ends with the test's process.
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let role = *said.lock().unwrap();
            let reply = if &datagram[..length] == b"role?" { role } else { name };
            // A client that has left needs no answer.
            let _ = socket.send_to(reply.as_bytes(), client);
        }
    });
    (address, role)
}

/// Flows leave the one that is put aside, as they leave one that is down.
#[test]
fn of_datagrams_at_most_one_backend_gets_any_too() {
    let ((a, of_a), (b, of_b)) = (answerer("a", PRIMARY), answerer("b", REPLICA));
    let mut config = balancer::config(&[a, b]);
    balancer::listener(&mut config).protocol = Protocol::Udp;
    let pool = balancer::pool(&mut config);
    (pool.single, pool.balance) = (Single::Refuse, Balance::RoundRobin);
    pool.health = Health {
        probe: Probe::Udp(UdpProbe {
            send: Some(b"role?".to_vec()),
            expect: Some(Expect::Bytes(PRIMARY.as_bytes().to_vec())),
        }),
        interval: Duration::from_millis(50),
        timeout: Duration::from_millis(500),
        ..config::Pool::default().health
    };
    let balancer = Balancer::start(config);
    let state = |index: usize| {
        let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
        pool.backends[index].status().state
    };
    let wait_for_states = |states: [BackendState; 2]| {
        wait_for(&format!("{states:?}"), || [state(0), state(1)] == states);
    };
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let served = || {
        client.send_to(b"hello", balancer.address()).unwrap();
        let mut byte = [0];
        client.recv(&mut byte).ok().map(|_| char::from(byte[0]))
    };
    wait_for_states([BackendState::Up, BackendState::Down]);
    assert_eq!(served(), Some('a'));
    *of_b.lock().unwrap() = PRIMARY;
    wait_for_states([BackendState::Standby, BackendState::Standby]);
    *of_a.lock().unwrap() = REPLICA;
    wait_for_states([BackendState::Down, BackendState::Up]);
    assert_eq!(served(), Some('b'), "the same client");
}
