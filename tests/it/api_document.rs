//! docs/api.md and the API say the same, in both directions: routes and keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use maitred::admin::http::Bounds;
use maitred::config::{self, Origin, Protocol};
use maitred::data::pool::Pool;
use maitred::data::pool::closing::Closing;
use maitred::data::pool::finding::{Failure, Reason};
use maitred::data::pool::hand::{HandState, StateWish, Wish};
use maitred::data::pool::part::Waits;
use serde_json::{Value, json};

use crate::admin::{Admin, ask_socket, ask_socket_with};
use crate::balancer::{self, Balancer, loopback, wait_for};

/// What the document says of one route: type by key.
type Keys = BTreeMap<String, String>;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The routes of the document, as `GET /path`, each with its table.
fn documented() -> BTreeMap<String, Keys> {
    let document = read("docs/api.md");
    let sections = document.split("\n### `").skip(1).map(|section| {
        let (route, rest) = section.split_once('`').unwrap();
        let rows = rest.split("\n## ").next().unwrap().lines();
        let rows = rows.filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let keys =
            rows.map(|(key, rest)| (key.to_owned(), rest.split_once(" |").unwrap().0.to_owned()));
        (route.to_owned(), keys.collect())
    });
    sections.collect()
}

/// The routes of the code, as `GET /path`.
fn routed() -> BTreeSet<String> {
    let mut routes = BTreeSet::new();
    for file in ["src/admin/api.rs", "src/admin/changes.rs"] {
        let text = read(file);
        for route in text.split(".route(").skip(1) {
            let path = route.split('"').nth(1).unwrap();
            let handlers = route.split('"').nth(2).unwrap().split(".route(").next().unwrap();
            let methods = ["get(", "post(", "put(", "patch(", "delete("];
            let methods = methods.iter().filter(|it| {
                handlers.contains(&format!(" {it}")) || handlers.contains(&format!(".{it}"))
            });
            let before = routes.len();
            routes.extend(
                methods.map(|it| format!("{} {path}", it.trim_end_matches('(').to_uppercase())),
            );
            assert!(routes.len() > before, "{file}: {path} has a method");
        }
    }
    routes
}

/// Every key of an answer, as the document writes it, with what it holds.
fn keys_of(answer: &Value, path: &str, document: &Keys, found: &mut BTreeMap<String, Vec<Value>>) {
    let kind = document.get(path).map(String::as_str);
    // An item of a list that is a map has no row of its own.
    let is_rowless = path.is_empty() || path.ends_with("[]") && answer.is_object();
    if !is_rowless {
        found.entry(path.to_owned()).or_default().push(answer.clone());
    }
    let inner = format!("{path}[]");
    // Whose items are described elsewhere has neither.
    let has_items = document.keys().any(|key| key.starts_with(&inner));
    match answer {
        // Their keys are no words of ours.
        Value::Object(_) if matches!(kind, Some("by reason" | "configuration")) => {}
        Value::Object(_) if path == "stale_files" => {}
        Value::Object(pairs) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (key, value) in pairs {
                keys_of(value, &format!("{path}{dot}{key}"), document, found);
            }
        }
        Value::Array(items) if has_items => {
            items.iter().for_each(|item| keys_of(item, &inner, document, found));
        }
        _ => {}
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    if value.is_null() {
        return kind.ends_with(" or null");
    }
    match kind.trim_end_matches(" or null") {
        "text" => value.is_string(),
        "time" => value.as_str().is_some_and(|it| it.parse::<jiff::Timestamp>().is_ok()),
        "number" => value.is_number(),
        "bool" => value.is_boolean(),
        "list" => value.is_array(),
        "map" | "configuration" => value.is_object(),
        "by reason" => value.as_object().is_some_and(|it| it.values().all(Value::is_u64)),
        other => panic!("docs/api.md: `{other}` is no type"),
    }
}

fn of_both_protocols(backend: SocketAddr, answerer: &UdpSocket) -> config::Config {
    let mut config = balancer::config(&[backend]);
    config.listeners.push(Arc::new(config::Listener {
        name: "datagrams".into(),
        protocol: Protocol::Udp,
        bind: config.listeners[0].bind.clone(),
        pool: Some("answerers".into()),
        ..config::Listener::default()
    }));
    // Nobody has that port.
    balancer::listener(&mut config).routes = vec![config::Route {
        server_name: Vec::new(),
        alpn: Vec::new(),
        client: vec!["192.0.2.0/24".parse().unwrap()],
        port: Some(1),
        pool: Some("main".into()),
    }];
    Arc::make_mut(&mut config.pools[0]).backends[0].max_sessions = Some(100);
    config.pools.push(Arc::new(config::Pool {
        name: "answerers".into(),
        backends: vec![balancer::backend(answerer.local_addr().unwrap())],
        ..(*config.pools[0]).clone()
    }));
    config
}

/// What a pool says rarely; as long as the answer lives.
fn fill(pool: &Pool) -> Arc<Closing> {
    let wish = Wish {
        state: Some(StateWish::Set(HandState::Drain)),
        weight: Some(Some(5)),
        until: Some(SystemTime::now() + Duration::from_secs(60)),
    };
    let origin = Origin::File("absent".into());
    let failure = Failure { reason: Reason::Unreadable, why: "no such file".into() };
    let finding = &pool.shared.finding;
    finding.attend(std::iter::once(origin.clone()));
    finding.succeeded(&origin, SystemTime::now());
    finding.failed(&origin, &failure, SystemTime::now());
    pool.backends[0].status().part.waits = Some(Waits::Until(SystemTime::now()));
    pool.backends[0].status().hand.grant(&wish, "root", SystemTime::now());
    let closing = Arc::new(Closing::new("drain", Some(SystemTime::now())));
    let removed = pool.departed().map(|(_, live)| live);
    for live in removed.chain([Arc::clone(&pool.backends[0].live)]) {
        live.status().closing = Arc::downgrade(&closing);
    }
    closing
}

/// Asks for everything with sessions and flows open, and something refused. What is added to the API is asked for here.
fn answers() -> BTreeMap<String, Vec<Value>> {
    let (backend, address) = loopback();
    let answerer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut config = of_both_protocols(address, &answerer);
    let mut balancer = Balancer::start(config.clone());
    let address = |balancer: &Balancer, wanted| {
        let mut served = balancer.supervisor().served();
        balancer::inet(served.find(|((protocol, _), _)| *protocol == wanted).unwrap().1.local)
    };
    let _old = TcpStream::connect(address(&balancer, Protocol::Tcp)).unwrap();
    let _accepted = backend.accept().unwrap();
    // By another name it is another backend, and the old one is removed.
    balancer::pool(&mut config).backends[0].name = "again".into();
    balancer.supervisor.as_mut().unwrap().reload(config).unwrap();
    let _new = TcpStream::connect(address(&balancer, Protocol::Tcp)).unwrap();
    let _also_accepted = backend.accept().unwrap();
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.send_to(b"x", address(&balancer, Protocol::Udp)).unwrap();
    wait_for("sessions and a flow", || balancer.supervisor().plane.open_sessions() == 3);
    let pool = Arc::clone(&balancer.supervisor().plane.snapshot.load().pools["main"]);
    let _closing = fill(&pool);
    let events = &balancer.supervisor().events;
    events.note_backend("main", "db", "down: refused".to_owned());
    let admin =
        Admin::around(balancer, "127.0.0.1:0", None, Bounds::default(), Ok(vec!["x".into()]));
    let plane = &admin.state.sources.plane;
    admin.state.history.look(plane, Instant::now() + Duration::from_secs(10), SystemTime::now());
    let ask = |route: &str| {
        let (status, answer) = ask_socket(&admin.socket(), route);
        assert!(matches!(status, 200 | 202), "{route}: {status}");
        answer
    };
    for (route, why) in [
        ("GET /api/v1/history?pool=absent", "there is no such pool, or it has no history"),
        ("GET /api/v1/pools/absent", "there is no pool `absent`"),
    ] {
        assert_eq!(ask_socket(&admin.socket(), route), (404, json!({ "error": why })));
    }
    assert_eq!(ask_socket(&admin.socket(), "GET /api/v1/sessions?client=nobody").0, 400);
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (route, asked) in [
        ("GET /api/v1/info", "GET /api/v1/info"),
        ("GET /api/v1/listeners", "GET /api/v1/listeners"),
        ("GET /api/v1/pools", "GET /api/v1/pools"),
        ("GET /api/v1/pools/{pool}", "GET /api/v1/pools/main"),
        ("GET /api/v1/pools/{pool}", "GET /api/v1/pools/answerers"),
        ("GET /api/v1/sessions", "GET /api/v1/sessions"),
        ("GET /api/v1/flows", "GET /api/v1/flows"),
        ("GET /api/v1/config", "GET /api/v1/config"),
        ("GET /api/v1/events", "GET /api/v1/events"),
        ("GET /api/v1/history", "GET /api/v1/history"),
        ("GET /api/v1/history", "GET /api/v1/history?pool=main"),
        ("POST /api/v1/reload", "POST /api/v1/reload"),
        ("DELETE /api/v1/sessions", "DELETE /api/v1/sessions?pool=main"),
        ("DELETE /api/v1/sessions/{id}", "DELETE /api/v1/sessions/1"),
        // Nothing is answered after it.
        ("POST /api/v1/drain", "POST /api/v1/drain"),
    ] {
        answers.entry(route.to_owned()).or_default().push(ask(asked));
    }
    answers
}

/// A changed backend is answered as one of its pool's: described there.
#[test]
fn a_change_is_answered_with_the_backend() {
    let (_backend, address) = loopback();
    let balancer = Balancer::start(balancer::config(&[address]));
    let admin = Admin::around(balancer, "127.0.0.1:0", None, Bounds::default(), Ok(Vec::new()));
    let (_, pool) = ask_socket(&admin.socket(), "GET /api/v1/pools/main");
    let name = pool["backends"][0]["name"].as_str().unwrap();
    let route = format!("PATCH /api/v1/pools/main/backends/{}", name.replace(':', "%3A"));
    let (status, changed) = ask_socket_with(&admin.socket(), &route, r#"{"weight": 3}"#);
    assert_eq!((status, &changed), (200, &pool["backends"][0]));
    let (status, refused) = ask_socket_with(&admin.socket(), &route, r#"{"wieght": 3}"#);
    assert_eq!(status, 400);
    assert!(refused["error"].as_str().unwrap().contains("unknown field `wieght`"), "{refused}");
}

#[test]
fn every_route_is_described_and_there_is_no_other() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(documented, routed());
}

#[test]
fn every_key_of_every_answer_is_described_with_its_type_and_there_is_no_other() {
    let documented = documented();
    let answers = answers();
    let is_elsewhere = |route: &&String| route.starts_with("PATCH ");
    assert!(
        answers.keys().eq(documented.keys().filter(|it| !is_elsewhere(it))),
        "ask for every route in `answers`"
    );
    for (route, answers) in answers {
        let document = &documented[&route];
        let mut found = BTreeMap::new();
        for answer in &answers {
            keys_of(answer, "", document, &mut found);
        }
        let keys: Vec<&String> = found.keys().collect();
        assert_eq!(document.keys().collect::<Vec<_>>(), keys, "{route}: document, answer");
        for (key, values) in &found {
            let kind = &document[key];
            let odd = values.iter().find(|value| !is_of(kind, value));
            assert!(odd.is_none(), "{route}: `{key}` is {odd:?}, not {kind}");
        }
    }
}
