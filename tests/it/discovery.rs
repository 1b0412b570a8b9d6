//! Backends by name, before a server of names that lies: what is found becomes backends, what is not known leaves them as
//! they are, and sessions go on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use maitred::config::{Config, Origin, Source, load};
use maitred::data::pool::Pool;

use crate::balancer::{Balancer, wait_for};
use crate::name_server::{NameServer, Say, alias, records, srv};
use crate::reload::scrape;
use crate::server::{Conduct, Server, first_byte};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(pool: &str) -> Config {
    let text = format!(
        "version: 1
process: {{workers: 2}}
log: {{sessions: all}}
listeners: {{main: {{bind: \"127.0.0.1:0\", pool: main}}}}
pools: {{main: {{health: {{probe: none}}, {pool}}}}}
"
    );
    match load(&[Source { name: "test.yaml".into(), text }], &|_| None) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("{}", report.render(false)),
    }
}

/// A name asked of our server each second.
fn dns(server: &NameServer, name: &str, more: &str) -> String {
    format!("discovery: {{dns: {{name: {name}, servers: [\"{}\"], {more}}}}}", server.address)
}

/// These names instead of the one: in a file there is no short form for whom to ask.
fn with_names(mut config: Config, hosts: &[String]) -> Config {
    let pool = Arc::make_mut(&mut config.pools[0]);
    let discovery = Arc::make_mut(pool.discovery.as_mut().unwrap());
    let first = discovery.finders.remove(0);
    discovery.finders.extend(hosts.iter().map(|host| {
        let mut finder = first.clone();
        if let Origin::Dns(question) = &mut finder.origin {
            question.name.clone_from(host);
        }
        finder
    }));
    config
}

fn pool(balancer: &Balancer) -> Arc<Pool> {
    Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"])
}

fn addresses(balancer: &Balancer) -> Vec<String> {
    pool(balancer).backends.iter().map(|backend| backend.address.to_string()).collect()
}

/// For something that is found.
const LOOK: Duration = Duration::from_millis(250);

/// Takes over what is found until it is so.
fn settle(balancer: &mut Balancer, what: &str, condition: impl Fn(&Balancer) -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    wait_for(what, || {
        let supervisor = balancer.supervisor.as_mut().unwrap();
        // Longer than what comes together is gathered.
        let next = async { tokio::time::timeout(LOOK, supervisor.next_found()).await };
        if let Ok(found) = runtime.block_on(next) {
            supervisor.renew_found(found);
        }
        condition(balancer)
    });
}

fn settle_to(balancer: &mut Balancer, expected: &[&str]) {
    settle(balancer, &format!("{expected:?}"), |balancer| addresses(balancer) == expected);
}

fn failures(balancer: &Balancer, reason: &str) -> u64 {
    let series = format!("maitred_discovery_failures_total{{pool=\"main\",reason=\"{reason}\"}} ");
    let text = scrape(balancer);
    let line = text.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

/// Echo servers on one port of several addresses.
fn servers(ips: &[&str]) -> (Vec<Server>, u16) {
    let first = Server::at(SocketAddr::new(ip(ips[0]), 0), Conduct::Echo);
    let port = first.address.port();
    let others = ips[1..].iter().map(|it| Server::at(SocketAddr::new(ip(it), port), Conduct::Echo));
    (std::iter::once(first).chain(others).collect(), port)
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"x").unwrap();
    assert_eq!(first_byte(client), Some('x'));
}

/// Sessions on the backend with this address.
fn in_flight(balancer: &Balancer, address: &str) -> u32 {
    let pool = pool(balancer);
    let backend = pool.backends.iter().find(|it| it.address.to_string() == address);
    backend.map_or(0, |backend| backend.live.slot.hot().in_flight())
}

/// Without those that are named in brackets.
fn without_names(message: &str) -> String {
    let pieces = message.split(" (").map(|piece| piece.split_once(')').map_or(piece, |it| it.1));
    pieces.collect()
}

#[test]
fn sessions_go_on_while_backends_come_and_go() {
    let names = NameServer::start();
    let (_servers, port) = servers(&["127.0.1.1", "127.0.1.2", "127.0.1.3"]);
    let [a, b, c] = ["127.0.1.1", "127.0.1.2", "127.0.1.3"].map(ip);
    let at = |ip: IpAddr| SocketAddr::new(ip, port).to_string();
    names.has("db.test", 1, &[b, a]);
    let mut balancer = Balancer::start(config(&dns(&names, "db.test", &format!("port: {port}"))));
    settle_to(&mut balancer, &[&at(a), &at(b)]);
    let before = pool(&balancer);
    let mut clients: Vec<TcpStream> =
        (0..4).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    clients.iter_mut().for_each(echo);
    assert_eq!([a, b].map(|ip| in_flight(&balancer, &at(ip))), [2, 2]);
    names.has("db.test", 1, &[c, a]);
    settle_to(&mut balancer, &[&at(a), &at(c)]);
    assert!(Arc::ptr_eq(&before.backends[0], &pool(&balancer).backends[0]), "it stays as it is");
    clients.iter_mut().for_each(echo);
    assert_eq!([a, c].map(|ip| in_flight(&balancer, &at(ip))), [2, 0]);
    let gone = format!("backend_sessions_active{{pool=\"main\",backend=\"{}\"}} 2", at(b));
    assert!(scrape(&balancer).contains(&gone), "they are counted to their end");
    // New ones go to those that are there now.
    let mut late: Vec<TcpStream> =
        (0..2).map(|_| TcpStream::connect(balancer.address()).unwrap()).collect();
    late.iter_mut().for_each(echo);
    assert_eq!([a, c].map(|ip| in_flight(&balancer, &at(ip))), [2, 2]);
    // One that comes back while it still has sessions is the one it was.
    names.has("db.test", 1, &[a, b, c]);
    settle_to(&mut balancer, &[&at(a), &at(b), &at(c)]);
    assert_eq!(in_flight(&balancer, &at(b)), 2);
    let told: Vec<String> = balancer
        .supervisor()
        .events
        .all()
        .into_iter()
        .map(|event| without_names(&event.message))
        .collect();
    let expected = [
        "main: 2 backends added",
        "main: 1 backend added, 1 backend gone",
        "main: 1 backend added",
    ];
    assert_eq!(told, expected);
}

#[test]
fn every_lie_keeps_the_last_good_answer_and_is_counted() {
    let names = NameServer::start();
    let good = |last: usize| records("unused.test", 1, &[ip(&format!("192.0.2.{last}"))]);
    // A part of an answer is none.
    let too_many: Vec<IpAddr> = (0..5000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
    let too_many = records("n7.test", 1, &too_many);
    let lies = [
        (Say::Code(ResponseCode::ServFail), "servfail"),
        (Say::Code(ResponseCode::Refused), "servfail"),
        (Say::Code(ResponseCode::NXDomain), "nxdomain"),
        (Say::Empty, "empty"),
        (Say::Records(good(66), Vec::new()), "empty"),
        (Say::Silence, "timeout"),
        (Say::Garbage, "malformed"),
        (Say::TooLong(too_many), "malformed"),
        (Say::WrongNumber(good(66)), "malformed"),
        (Say::WrongQuestion(good(66)), "malformed"),
        (
            Say::Records(
                vec![alias("n10.test", "m.test"), alias("m.test", "n10.test")],
                Vec::new(),
            ),
            "malformed",
        ),
    ];
    let hosts: Vec<String> = (0..lies.len()).map(|number| format!("n{number}.test")).collect();
    for (number, host) in hosts.iter().enumerate() {
        names.has(host, 1, &[ip(&format!("192.0.2.{number}"))]);
    }
    let config = with_names(config(&dns(&names, "n0.test", "port: 1")), &hosts);
    let mut balancer = Balancer::start(config);
    let all: Vec<String> = (0..lies.len()).map(|number| format!("192.0.2.{number}:1")).collect();
    settle_to(&mut balancer, &all.iter().map(String::as_str).collect::<Vec<_>>());
    for (host, (lie, _)) in hosts.iter().zip(&lies) {
        names.says_of(host, lie);
    }
    let reasons: BTreeSet<&str> = lies.iter().map(|(_, reason)| *reason).collect();
    let expected = |reason: &str| lies.iter().filter(|(_, it)| *it == reason).count() as u64;
    for reason in reasons {
        settle(&mut balancer, reason, |it| failures(it, reason) >= expected(reason));
    }
    assert_eq!(addresses(&balancer), all, "nobody is lost");
    names.has("n5.test", 1, &[ip("192.0.2.55")]);
    settle(&mut balancer, "the truth", |it| addresses(it).contains(&"192.0.2.55:1".to_owned()));
    assert_eq!(addresses(&balancer).len(), all.len());
}

#[test]
fn what_anybody_may_send_is_not_believed() {
    let names = NameServer::start();
    names.says("db.test", RecordType::A, Say::Forged(records("db.test", 60, &[ip("192.0.2.1")])));
    names.says("db.test", RecordType::AAAA, Say::Empty);
    let mut balancer = Balancer::start(config(&dns(&names, "db.test", "port: 1")));
    settle_to(&mut balancer, &["192.0.2.1:1"]);
    assert_eq!(names.asked("db.test"), 2, "once for each family");
}

#[test]
fn a_family_that_cannot_be_asked_for_stays_as_it_was() {
    let names = NameServer::start();
    names.says(
        "db.test",
        RecordType::A,
        Say::Records(records("db.test", 1, &[ip("192.0.2.1")]), vec![]),
    );
    names.says(
        "db.test",
        RecordType::AAAA,
        Say::Records(records("db.test", 1, &[ip("2001:db8::1")]), vec![]),
    );
    let mut balancer = Balancer::start(config(&dns(&names, "db.test", "port: 1")));
    settle_to(&mut balancer, &["192.0.2.1:1", "[2001:db8::1]:1"]);
    names.says("db.test", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    names.says(
        "db.test",
        RecordType::A,
        Say::Records(records("db.test", 1, &[ip("192.0.2.2")]), vec![]),
    );
    settle_to(&mut balancer, &["192.0.2.2:1", "[2001:db8::1]:1"]);
    assert!(failures(&balancer, "servfail") > 0);
}

#[test]
fn five_thousand_addresses_come_by_tcp_and_one_of_them_changes() {
    // A name so short that they fit: whoever writes our answers repeats it in each.
    let names = NameServer::start();
    let fours: Vec<IpAddr> =
        (0..3500_u32).map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes())).collect();
    let sixes: Vec<IpAddr> = (0..1500_u128)
        .map(|n| IpAddr::from(((0x2001_0db8_u128 << 96) + n).to_be_bytes()))
        .collect();
    names.says("d", RecordType::A, Say::TooLong(records("d", 1, &fours)));
    names.says("d", RecordType::AAAA, Say::TooLong(records("d", 1, &sixes)));
    let text = format!("balance: consistent_hash, {}", dns(&names, "d", "port: 5432"));
    let mut balancer = Balancer::start(config(&text));
    settle(&mut balancer, "5000 backends", |balancer| addresses(balancer).len() == 5000);
    let before = pool(&balancer);
    let mut others = fours.clone();
    others[0] = ip("10.1.0.0");
    names.says("d", RecordType::A, Say::TooLong(records("d", 1, &others)));
    let is_there = |it: &Balancer| addresses(it).contains(&"10.1.0.0:5432".to_owned());
    settle(&mut balancer, "the other one", is_there);
    let now = pool(&balancer);
    let same = |it: &Arc<_>| now.backends.iter().any(|other| Arc::ptr_eq(it, other));
    assert_eq!(before.backends.iter().filter(|it| same(it)).count(), 4999);
    assert_eq!(now.backends.len(), 5000);
    let last = balancer.supervisor().events.all().pop().unwrap().message;
    assert_eq!(last, "main: 1 backend added (10.1.0.0:5432), 1 backend gone (10.0.0.0:5432)");
    // The same in another order, as our server has it each time, is nothing at all.
    let asked = names.asked("d");
    settle(&mut balancer, "two more questions", |_| names.asked("d") > asked + 3);
    assert!(Arc::ptr_eq(&now, &pool(&balancer)), "not even the table is built anew");
}

#[test]
fn five_thousand_names_are_found_in_some_batches_and_one_of_them_changes() {
    let names = NameServer::start();
    let at = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let hosts: Vec<String> = (0..5000).map(|number| format!("n{number}.test")).collect();
    for (number, host) in (0..).zip(&hosts) {
        // All but one are asked for once.
        names.has(host, if number == 7 { 1 } else { 300 }, &[at(number)]);
    }
    let config = with_names(config(&dns(&names, "n0.test", "port: 1")), &hosts);
    let mut balancer = Balancer::start(config);
    settle(&mut balancer, "5000 backends", |it| pool(it).backends.len() == 5000);
    assert!(!balancer.supervisor().plane.is_settling());
    let before = pool(&balancer);
    names.has("n7.test", 1, &[ip("10.1.0.0")]);
    let is_there = |it: &Balancer| addresses(it).contains(&"10.1.0.0:1".to_owned());
    settle(&mut balancer, "the other one", is_there);
    let now = pool(&balancer);
    let stays = before.backends.iter().zip(&now.backends).filter(|(a, b)| Arc::ptr_eq(a, b));
    assert_eq!((stays.count(), now.backends.len()), (4999, 5000));
}

#[test]
fn a_name_that_nobody_knows_does_not_stop_the_start() {
    let names = NameServer::start();
    let (_servers, port) = servers(&["127.0.1.1"]);
    names.says_of("db.test", &Say::Silence);
    let listed = format!("backends: [\"127.0.1.1:{port}\"], {}", dns(&names, "db.test", "port: 1"));
    let mut balancer = Balancer::start(config(&listed));
    assert!(balancer.supervisor().plane.is_settling(), "clients may still be kept away");
    echo(&mut TcpStream::connect(balancer.address()).unwrap());
    settle(&mut balancer, "the end of patience", |it| !it.supervisor().plane.is_settling());
    assert_eq!(addresses(&balancer), [format!("127.0.1.1:{port}")]);
    let text = scrape(&balancer);
    assert!(text.contains("discovery_last_success_timestamp_seconds{pool=\"main\"} 0"));
    names.has("db.test", 60, &[ip("192.0.2.1")]);
    settle(&mut balancer, "the name", |it| addresses(it).len() == 2);
}

#[test]
fn a_reload_forgets_nothing_of_what_was_found() {
    let names = NameServer::start();
    names.has("db.test", 60, &[ip("192.0.2.1"), ip("192.0.2.2")]);
    let text = dns(&names, "db.test", "port: 1");
    let mut balancer = Balancer::start(config(&text));
    settle_to(&mut balancer, &["192.0.2.1:1", "192.0.2.2:1"]);
    names.says_of("db.test", &Say::Silence);
    let before = pool(&balancer);
    for (more, told) in [
        (
            "balance: round_robin",
            vec!["pool main changed: balance least_connections → round_robin"],
        ),
        ("balance: round_robin", vec![]),
        (
            "backends: [\"192.0.2.1:1\"], slow_start: 1s",
            vec![
                "pool main changed: balance round_robin → least_connections, slow_start none → 1s",
            ],
        ),
    ] {
        let supervisor = balancer.supervisor.as_mut().unwrap();
        let changes =
            supervisor.reload_with(Ok(config(&format!("{text}, {more}"))), Instant::now());
        assert_eq!(changes.unwrap(), told);
        assert_eq!(addresses(&balancer), ["192.0.2.1:1", "192.0.2.2:1"]);
        let now = pool(&balancer);
        let lives = before.backends.iter().zip(&now.backends);
        assert!(lives.into_iter().all(|(a, b)| Arc::ptr_eq(&a.live, &b.live)));
    }
    // What is not asked for any more is forgotten. Whoever asked may not even have noticed that for a moment nobody
    // wanted to know.
    names.has("other.test", 60, &[ip("192.0.2.3")]);
    reload(&mut balancer, &dns(&names, "other.test", "port: 1"));
    settle_to(&mut balancer, &["192.0.2.3:1"]);
    reload(&mut balancer, &text);
    names.has("db.test", 60, &[ip("192.0.2.1"), ip("192.0.2.2")]);
    settle_to(&mut balancer, &["192.0.2.1:1", "192.0.2.2:1"]);
}

fn reload(balancer: &mut Balancer, pool: &str) {
    let supervisor = balancer.supervisor.as_mut().unwrap();
    supervisor.reload_with(Ok(config(pool)), Instant::now()).unwrap();
}

#[test]
fn a_reload_that_asks_in_another_way_takes_nobody_away_before_there_is_an_answer() {
    let (names, others) = (NameServer::start(), NameServer::start());
    let (_servers, port) = servers(&["127.0.1.1", "127.0.1.2"]);
    let [a, b] = ["127.0.1.1", "127.0.1.2"].map(|ip| format!("{ip}:{port}"));
    others.says_of("db.test", &Say::Silence);
    let mut balancer = Balancer::start(config(&format!("backends: [\"{a}\"]")));
    let asks = |server: &NameServer| dns(server, "db.test", &format!("port: {port}"));
    for server in [&others, &names] {
        // A name in place of the address, mistyped at first.
        reload(&mut balancer, &asks(server));
        assert_eq!(addresses(&balancer), [a.as_str()]);
        echo(&mut TcpStream::connect(balancer.address()).unwrap());
    }
    names.has("db.test", 60, &[ip("127.0.1.2")]);
    settle_to(&mut balancer, &[&b]);
    // Other servers, who say nothing either.
    reload(&mut balancer, &asks(&others));
    assert_eq!(addresses(&balancer), [b.as_str()]);
    echo(&mut TcpStream::connect(balancer.address()).unwrap());
    let told: Vec<String> =
        balancer.supervisor().events.all().iter().map(|it| it.message.clone()).collect();
    let stays = "main: 1 backend stays until the names that replace them are resolved";
    assert_eq!(told.iter().filter(|it| *it == stays).count(), 2, "{told:?}");
}

#[test]
fn a_spare_waits_for_the_names_of_the_tier_before_it() {
    let names = NameServer::start();
    let (_servers, port) = servers(&["127.0.1.1", "127.0.1.2"]);
    let spare = format!("127.0.1.2:{port}");
    names.says_of("db.test", &Say::Code(ResponseCode::ServFail));
    let found = dns(&names, "db.test", &format!("port: {port}"));
    let listed = format!("backends: [{{address: \"{spare}\", tier: 1}}]");
    let mut balancer = Balancer::start(config(&format!("{listed}, {found}")));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"x").unwrap();
    wait_for("the client to be held", || {
        scrape(&balancer).contains("maitred_pool_held_sessions{pool=\"main\"} 1")
    });
    settle(&mut balancer, "a failure", |it| failures(it, "servfail") > 0);
    assert_eq!(in_flight(&balancer, &spare), 0, "who was never answered for is waited for");
    names.has("db.test", 60, &[ip("127.0.1.1")]);
    let first = format!("127.0.1.1:{port}");
    settle(&mut balancer, "the first tier", |it| in_flight(it, &first) == 1);
    assert_eq!(first_byte(&mut client), Some('x'));
}

#[test]
fn nothing_that_comes_between_puts_off_what_was_found() {
    let names = NameServer::start();
    names.has("db.test", 60, &[ip("192.0.2.1")]);
    let mut balancer = Balancer::start(config(&dns(&names, "db.test", "port: 1")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    wait_for("what was found", || {
        let supervisor = balancer.supervisor.as_mut().unwrap();
        // As a signal ends it, each time before what comes together was gathered.
        let next =
            async { tokio::time::timeout(Duration::from_millis(5), supervisor.next_found()).await };
        if let Ok(found) = runtime.block_on(next) {
            supervisor.renew_found(found);
        }
        addresses(&balancer) == ["192.0.2.1:1"]
    });
}

#[test]
fn a_name_is_asked_for_when_its_answer_has_expired_and_not_before() {
    let names = NameServer::start();
    names.has("now.test", 0, &[ip("192.0.2.1")]);
    names.has("later.test", u32::MAX >> 1, &[ip("192.0.2.2")]);
    let servers = format!("servers: [\"{}\"]", names.address);
    let text = format!(
        "version: 1
process: {{workers: 1}}
pools:
  now: {{discovery: {{dns: {{name: now.test, port: 1, {servers}}}}}}}
  later: {{discovery: {{dns: {{name: later.test, port: 1, {servers}}}}}}}
"
    );
    let read = |text| load(&[Source { name: "test.yaml".into(), text }], &|_| None).unwrap().config;
    let mut balancer = Balancer::start(read(text.clone()));
    settle(&mut balancer, "a third question", |_| names.asked("now.test") >= 6);
    // Another pool that wants to know has what is known, and since when.
    let joined = text.replace(
        "  now:",
        "  joins: {discovery: {dns: {name: later.test, port: 2, SERVERS}}}\n  now:",
    );
    let joined = read(joined.replace("SERVERS", &servers));
    balancer.supervisor.as_mut().unwrap().reload_with(Ok(joined), Instant::now()).unwrap();
    let snapshot = balancer.supervisor().plane.snapshot.load_full();
    assert_eq!(&*snapshot.pools["joins"].backends[0].name, "192.0.2.2:2");
    let since = |pool: &str| snapshot.pools[pool].shared.finding.last().unwrap().success;
    wait_for("its last success", || since("joins").is_some() && since("joins") == since("later"));
    assert_eq!(names.asked("later.test"), 2, "once for each family");
}

#[test]
fn services_have_ports_tiers_and_weights_of_their_own() {
    let names = NameServer::start();
    let service = "_db._tcp.test";
    let found = vec![
        srv(service, (20, 0, 7001), "a.test"),
        srv(service, (10, 60000, 7002), "b.test"),
        srv(service, (10, 30000, 7003), "c.test"),
        srv(service, (10, 0, 7004), "gone.test"),
    ];
    // Of one host the server says the address at once; one is an alias that it leaves to us.
    let more = records("b.test", 60, &[ip("192.0.2.2")]);
    // It said nothing of the other family.
    names.says(
        "b.test",
        RecordType::AAAA,
        Say::Records(records("b.test", 60, &[ip("2001:db8::2")]), Vec::new()),
    );
    names.says(service, RecordType::SRV, Say::Records(found, more));
    names.has("a.test", 60, &[ip("192.0.2.1")]);
    // There was nothing yet of the family that cannot be asked for.
    names.says("a.test", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    names.says_of("c.test", &Say::Records(vec![alias("c.test", "d.test")], Vec::new()));
    names.has("d.test", 60, &[ip("2001:db8::3")]);
    let mut balancer = Balancer::start(config(&dns(&names, service, "type: srv")));
    let both = ["192.0.2.2:7002", "[2001:db8::2]:7002"];
    settle_to(&mut balancer, &[both[0], both[1], "[2001:db8::3]:7003", "192.0.2.1:7001"]);
    let terms: Vec<(u32, u32)> =
        pool(&balancer).backends.iter().map(|it| (it.tier, it.weight)).collect();
    assert_eq!(terms, [(0, 256), (0, 256), (0, 128), (1, 1)]);
    assert_eq!((names.asked("b.test"), failures(&balancer, "servfail")), (1, 1));
}

#[test]
fn what_is_listed_and_found_is_one_backend() {
    let names = NameServer::start();
    names.has("db.test", 1, &[ip("192.0.2.1"), ip("192.0.2.2")]);
    let listed = "backends: [{address: \"192.0.2.1:1\", name: one, weight: 7}]";
    let text = format!("{listed}, {}", dns(&names, "db.test", "port: 1"));
    let mut balancer = Balancer::start(config(&text));
    settle_to(&mut balancer, &["192.0.2.1:1", "192.0.2.2:1"]);
    assert_eq!(
        (&*pool(&balancer).backends[0].name, pool(&balancer).backends[0].weight),
        ("one", 7)
    );
    let asked = names.asked("db.test");
    settle(&mut balancer, "more questions", |_| names.asked("db.test") > asked + 2);
    let events = balancer.supervisor().events.all();
    let told: Vec<String> = events.iter().map(|event| without_names(&event.message)).collect();
    let expected = ["main: 192.0.2.1:1 was found, but is there already", "main: 1 backend added"];
    assert_eq!(told, expected, "and it is said once");
}

#[test]
fn a_session_that_waits_for_a_backend_gets_the_first_one_found() {
    let names = NameServer::start();
    let (_servers, port) = servers(&["127.0.1.1"]);
    names.says_of("db.test", &Say::Code(ResponseCode::ServFail));
    let found = dns(&names, "db.test", &format!("port: {port}"));
    let text = format!("when_none_up: {{hold: {{for: 20s, max: 10}}}}, {found}");
    let mut balancer = Balancer::start(config(&text));
    let mut client = TcpStream::connect(balancer.address()).unwrap();
    client.write_all(b"x").unwrap();
    wait_for("the client to be held", || {
        scrape(&balancer).contains("maitred_pool_held_sessions{pool=\"main\"} 1")
    });
    names.has("db.test", 1, &[ip("127.0.1.1")]);
    settle(&mut balancer, "a backend", |it| addresses(it).len() == 1);
    let mut byte = [0];
    client.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}
