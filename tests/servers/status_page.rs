//! The status page in a real browser: what somebody sees who was woken at night.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use maitred::admin::http::{Bounds, serve};
use maitred::admin::{Ask, State, listen};
use maitred::border::addr::{BackendAddr, ListenAddr, LocalAddr};
use maitred::border::plane::Plane;
use maitred::border::session_log::SessionLog;
use maitred::config::{self, Config, Protocol, Token};
use maitred::control::health::transition;
use maitred::control::supervisor::Supervisor;
use maitred::data::pool::backend::{Backend, BackendState};
use maitred::data::pool::hand::{HandState, NotSet, StateWish, Wish};
use maitred::sys::socket::reset_on_close;
use maitred::telemetry::events::EventKind;
use maitred::telemetry::history::{History, POINTS, STEP};
use maitred::telemetry::metrics::Sources;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::browser::Browser;
use crate::harness::{free_port, wait_for};
use crate::local::{Conduct, backend_at};

const TOKEN: &str = "0123456789abcdef";

/// A balancer of three pools with an hour behind it, within a few seconds.
struct Stage {
    supervisor: Supervisor,
    history: Arc<History>,
    sessions: Vec<TcpStream>,
    /// The one that goes down when this is dropped.
    doomed: Option<TcpListener>,
    /// What it has accepted, and never answers.
    unanswered: Vec<TcpStream>,
    random: u64,
}

fn backend(name: &str, address: SocketAddr) -> config::Backend {
    config::Backend {
        name: name.into(),
        address: BackendAddr::Inet(address),
        ..config::Backend::default()
    }
}

fn own(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port))
}

fn configuration(doomed: u16) -> Config {
    let probed = config::Health {
        interval: Duration::from_millis(200),
        fall: 2,
        probe: config::Probe::Tcp,
        ..config::Pool::default().health
    };
    let pool = |name: &str, backends: Vec<config::Backend>, probe: config::Probe| {
        Arc::new(config::Pool {
            name: name.into(),
            backends,
            health: config::Health { probe, ..probed.clone() },
            passive: None,
            ..config::Pool::default()
        })
    };
    let echo = |name: &str, last: u8| {
        let address = own(last, free_port());
        backend_at(address, Conduct::Echo);
        backend(name, address)
    };
    // Few come to the one that never answers.
    let heavy = |backend| config::Backend { weight: 8, ..backend };
    let postgres =
        vec![heavy(echo("db1", 11)), heavy(echo("db2", 12)), backend("db3", own(13, doomed))];
    let redis = vec![echo("cache-a", 21), echo("cache-b", 22)];
    let dns = vec![backend("ns1", udp_echo(own(31, free_port())))];
    let listener = |name: &str, last: u8, protocol| {
        Arc::new(config::Listener {
            name: name.into(),
            bind: vec![ListenAddr::Inet(own(last, 0))],
            protocol,
            pool: Some(name.into()),
            limits: config::Limits { sessions: Some(2000), ..config::Limits::default() },
            ..config::Listener::default()
        })
    };
    Config {
        process: config::Process { workers: Some(2), ..config::Process::default() },
        listeners: vec![
            listener("postgres", 2, Protocol::Tcp),
            listener("redis", 3, Protocol::Tcp),
            listener("dns", 4, Protocol::Udp),
        ],
        pools: vec![
            pool("redis", redis, config::Probe::Tcp),
            pool("postgres", postgres, config::Probe::Tcp),
            pool("dns", dns, config::Probe::None),
        ],
        ..Config::default()
    }
}

fn udp_echo(address: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            // A client that has left asks for nothing.
            let _ = socket.send_to(&buffer[..count], from);
        }
    });
    address
}

impl Stage {
    fn set() -> Stage {
        let doomed = TcpListener::bind(own(13, 0)).unwrap();
        doomed.set_nonblocking(true).unwrap();
        let port = doomed.local_addr().unwrap().port();
        let config = configuration(port);
        let log = SessionLog::start(config.log.sessions, |_| {}).unwrap();
        let supervisor = Supervisor::start(config, log).unwrap();
        let hour = STEP * POINTS as u32;
        let history = History::new(Instant::now(), SystemTime::now() - hour);
        let mut stage = Stage {
            supervisor,
            history,
            sessions: Vec::new(),
            doomed: Some(doomed),
            unanswered: Vec::new(),
            random: 1,
        };
        stage.wait_for("db3", BackendState::Up);
        stage.live_an_hour();
        stage
    }

    fn state_of(&self, name: &str) -> BackendState {
        let snapshot = self.supervisor.plane.snapshot.load();
        let mut backends = snapshot.pools.values().flat_map(|pool| &pool.backends);
        backends.find(|it| &*it.name == name).unwrap().status().state
    }

    fn wait_for(&self, name: &str, state: BackendState) {
        wait_for(name, || self.state_of(name) == state);
    }

    fn address(&self, name: &str) -> SocketAddr {
        let mut served = self.supervisor.served();
        match served.find(|(_, served)| &*served.listener == name).unwrap().1.local {
            LocalAddr::Inet(address) => address,
            LocalAddr::Unix => panic!("no such listener here"),
        }
    }

    /// Of a sequence that is always the same.
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn live_an_hour(&mut self) {
        let (begun, wall) = (Instant::now(), SystemTime::now() - STEP * POINTS as u32);
        let (postgres, redis) = (self.address("postgres"), self.address("redis"));
        let client = UdpSocket::bind(own(1, 0)).unwrap();
        client.connect(self.address("dns")).unwrap();
        for step in 1..=POINTS as u32 {
            let busy = f64::from(step) / POINTS as f64 * std::f64::consts::TAU;
            let wave = (7.0 - 5.0 * (busy + 2.0).cos()) as u64;
            for _ in 0..wave / 2 + self.draw(4) {
                let exchanges = 3 + wave / 2 + self.draw(3);
                let address = if self.draw(3) == 0 { redis } else { postgres };
                self.session(address, exchanges);
            }
            client.send(b"which address?").unwrap();
            let wanted = wave as usize * 6;
            let surplus = self.sessions.len().saturating_sub(wanted);
            self.sessions.drain(..surplus);
            if step == 270 {
                drop((self.doomed.take(), std::mem::take(&mut self.unanswered)));
                self.by_hand("cache-b");
            }
            if step > 270 && step % 7 == 0 {
                self.reset(postgres);
            }
            self.history.look(&self.supervisor.plane, begun + STEP * step, wall + STEP * step);
        }
        self.wait_for("db3", BackendState::Down);
    }

    fn by_hand(&self, name: &str) {
        let snapshot = self.supervisor.plane.snapshot.load();
        let mut backends = snapshot.pools.values().flat_map(|pool| &pool.backends);
        let backend = backends.find(|it| &*it.name == name).unwrap();
        let state = Some(StateWish::Set(HandState::Drain));
        set(backend, &Wish { state, ..Wish::default() }, "root");
        let (pool, message) = ("redis", "drained by hand".to_owned());
        self.supervisor.events.note_backend(pool, name, message);
    }

    /// Opens one with so many exchanges.
    fn session(&mut self, address: SocketAddr, exchanges: u64) {
        let mut stream = TcpStream::connect(address).unwrap();
        // db3 never answers.
        stream.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
        let mut buffer = [b'x'; 1000];
        for _ in 0..exchanges {
            stream.write_all(&buffer).unwrap();
            if stream.read_exact(&mut buffer).is_err() {
                break;
            }
        }
        self.sessions.push(stream);
        let accepted = self.doomed.iter().flat_map(|doomed| doomed.incoming());
        self.unanswered.extend(accepted.map_while(Result::ok));
    }

    /// One that fails.
    fn reset(&mut self, address: SocketAddr) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"x").unwrap();
        reset_on_close(&stream);
    }

    fn state(&self, token: Option<&str>) -> State {
        let (asks, _) = mpsc::channel(1);
        State {
            sources: Sources {
                plane: Arc::clone(&self.supervisor.plane),
                reloads: Arc::clone(&self.supervisor.reloads),
                log_dropped: Arc::default(),
            },
            events: Arc::clone(&self.supervisor.events),
            history: Arc::clone(&self.history),
            started: SystemTime::now() - Duration::from_secs(3 * 86_400 + 7200),
            version: env!("CARGO_PKG_VERSION"),
            sessions: Box::new(self.supervisor.lister()),
            flows: Box::new(self.supervisor.flow_lister()),
            token: ArcSwapOption::from_pointee(token.map(|token| Token::read(token).unwrap())),
            asks,
            has_socket: true.into(),
        }
    }
}

/// An admin server on a thread of its own, until it is dropped.
struct Admin {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    fn serve(state: State) -> Admin {
        let bound = listen::bind(own(1, 0), None).unwrap();
        let address = bound.address;
        let (stop, stopped) = oneshot::channel::<()>();
        let (asks, mut asked) = mpsc::channel(1);
        let state = Arc::new(State { asks, ..state });
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let _serving = serve(bound, Arc::clone(&state), Bounds::default()).unwrap();
                let living = async {
                    while let Some(Ask::SetByHand { place, wish, who, answer }) = asked.recv().await
                    {
                        let changed = change(&state.sources.plane, &place, &wish, &who).map(Some);
                        assert!(answer.send(changed).is_ok());
                    }
                };
                tokio::select! {
                    // It ends when the sender is dropped.
                    _ = stopped => {}
                    () = living => {}
                }
            });
        });
        Admin { address, stop: Some(stop), thread: Some(thread) }
    }
}

/// As the life of the process does it.
fn change(
    plane: &Plane,
    (pool, name): &(String, String),
    wish: &Wish,
    who: &str,
) -> Result<Arc<Backend>, NotSet> {
    let snapshot = plane.snapshot.load();
    let backends = &snapshot.pools.get(&**pool).ok_or(NotSet::NoPool)?.backends;
    let backend = backends.iter().find(|it| *it.name == **name).ok_or(NotSet::NoBackend)?;
    set(backend, wish, who);
    Ok(Arc::clone(backend))
}

fn set(backend: &Backend, wish: &Wish, who: &str) {
    let mut hand = backend.status().hand.clone();
    hand.grant(wish, who, SystemTime::now());
    transition::by_hand(backend, hand, Instant::now(), SystemTime::now());
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

const DRAWN: &str = "[...document.querySelectorAll('#charts path')].length === 5 && \
     [...document.querySelectorAll('#charts path')].every((path) => (path.getAttribute('d') ?? '').split('L').length === 360)";

/// Elements that stand out of the window and are not in a box that scrolls.
const TOO_WIDE: &str = "[...document.querySelectorAll('body *')].filter((it) => \
     it.getBoundingClientRect().right > innerWidth + 1 && !it.closest('.wide') && !it.closest('caption')) \
     .map((it) => it.outerHTML.slice(0, 80)).concat(document.documentElement.scrollWidth > innerWidth ? ['the body'] : [])";

/// Cells whose text does not fit into them.
const CUT: &str = "[...document.querySelectorAll('td, th, button, dd, p, h3, figcaption')].filter((it) => \
     it.scrollWidth > it.clientWidth + 1 && getComputedStyle(it).display !== 'inline').map((it) => it.outerHTML.slice(0, 80))";

/// The longest that may stand there, until the page is fetched again.
const LONGEST: &str = "document.querySelectorAll('.backends tbody tr').forEach((row) => { \
     const texts = ['[2001:db8:1111:2222:3333:4444:5555:6666]:65535', null, 'x'.repeat(200), '256', '100\u{202f}000', \
     '12\u{202f}345', '1023\u{00a0}MiB/s', null, 'no_source_port 1\u{202f}234\u{202f}567, unreachable 12']; \
     texts.forEach((text, index) => { if (text) row.cells[index].textContent = text; }); \
     row.cells[1].firstChild.textContent = '■ maintenance'; }); \
     document.querySelectorAll('h3, .state').forEach((it) => { it.textContent = 'y'.repeat(63); });";

fn keep(name: &str, picture: &[u8]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("status-page");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), picture).unwrap();
}

#[test]
fn the_status_page_shows_trouble_in_a_browser_and_drains_from_it() {
    let stage = Stage::set();
    let admin = Admin::serve(stage.state(Some(TOKEN)));
    let mut browser = Browser::start();
    browser.show((1280, 900), "light");
    browser.open(&format!("http://{}/", admin.address));
    browser.wait_until(DRAWN);
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    for name in ["postgres", "redis", "dns", "db1", "db2", "db3", "cache-a", "cache-b", "ns1"] {
        assert!(text.contains(name), "{name} is not in {text}");
    }
    assert!(text.contains("1 of 6 backends down, 1 drained by hand"), "{text}");
    assert!(text.contains("client_reset") && text.contains("refused"), "{text}");
    assert_eq!(browser.evaluate("document.title"), "maitred: 1 down");
    let asked = "document.querySelector('#charts svg').dispatchEvent(new PointerEvent('pointermove', {clientX: 60})); \
         document.querySelector('#charts figcaption').textContent";
    let asked = browser.evaluate(asked);
    assert!(asked.as_str().unwrap().contains("min ago: "), "{asked}");
    is_readable(&mut browser);
    browser.show((1280, 900), "light");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    works_without_a_script(&mut browser, &admin);
    // What changes is changed in place: the focus stays where it was.
    browser.evaluate(
        "document.querySelector('[data-backend=db1]').focus(); kept = document.activeElement; 0",
    );
    stage.by_hand("db2");
    let markup = "<b id=evil>who?</b>".to_owned();
    stage.supervisor.events.note(EventKind::Reload, markup);
    browser.wait_until("document.body.innerText.includes('2 drained by hand') && document.body.innerText.includes('<b id=evil>')");
    assert_eq!(browser.evaluate("document.querySelector('#evil')"), json!(null));
    assert_eq!(browser.evaluate("kept === document.activeElement && kept.isConnected"), true);

    asks_for_the_token(&mut browser);
    let other = Admin::serve(stage.state(None));
    shows_the_command(&mut browser, &other);
    // A page that is old says so.
    drop(other);
    browser.wait_until("/Last seen \\d+ s ago/.test(document.querySelector('#link').textContent)");
    assert_eq!(browser.evaluate("document.title"), "maitred: no connection");
    keep("lost.png", &browser.picture());
    stage.supervisor.stop();
}

/// Wide and narrow, light and dark.
fn is_readable(browser: &mut Browser) {
    for (name, window, scheme) in [
        ("desktop-light.png", (1280, 900), "light"),
        ("desktop-dark.png", (1280, 900), "dark"),
        ("phone-dark.png", (390, 844), "dark"),
        ("phone-light.png", (360, 800), "light"),
        ("whole-light.png", (1280, 1640), "light"),
        ("whole-phone.png", (390, 3600), "dark"),
        ("narrow-light.png", (820, 1100), "light"),
    ] {
        browser.show(window, scheme);
        keep(name, &browser.picture());
        assert_eq!(browser.evaluate(TOO_WIDE), json!([]), "{name}");
        assert_eq!(browser.evaluate(CUT), json!([]), "{name}");
    }
    for window in [(1280, 900), (820, 1100), (360, 800)] {
        browser.show(window, "light");
        // In one step, so that nothing is fetched between.
        for fault in [TOO_WIDE, CUT] {
            let found = browser.evaluate(&format!("{LONGEST} {fault}"));
            assert_eq!(found, json!([]), "the longest texts, {window:?}");
        }
        keep(&format!("longest-{}.png", window.0), &browser.picture());
    }
    // What was there is there again.
    browser.wait_until("!document.body.innerText.includes('yyy')");
}

fn works_without_a_script(browser: &mut Browser, admin: &Admin) {
    // Without a script there is the table, and nothing that would not work.
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&format!("http://{}/?plain", admin.address));
    let text = browser.evaluate("document.body.innerText");
    let text = text.as_str().unwrap();
    assert!(text.contains("db3") && text.contains("Charts need JavaScript"), "{text}");
    assert!(!text.contains("change…"), "{text}");
    keep("plain.png", &browser.picture());
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": false }));
    browser.open(&format!("http://{}/", admin.address));
    browser.wait_until(DRAWN);
}

fn asks_for_the_token(browser: &mut Browser) {
    // A change asks for the token, and says what maitred answered.
    browser.evaluate("document.querySelector('[data-backend=db1]').click()");
    assert_eq!(browser.evaluate("document.querySelector('#change').open"), true);
    keep("drain.png", &browser.picture());
    browser.evaluate(
        "document.querySelector('#token').value = 'wrong'; document.querySelector('#go').click()",
    );
    browser.wait_until("document.querySelector('#said').textContent.includes('401')");
    browser.evaluate(&format!(
        "document.querySelector('#token').value = '{TOKEN}'; document.querySelector('#go').click()"
    ));
    browser.wait_until("!document.querySelector('#change').open");
    browser.wait_until("document.body.innerText.includes('3 drained by hand')");
    browser.wait_until(
        "document.body.innerText.includes('set by hand: drain, by token from 127.0.0.1')",
    );
    // The refusals above are in the console, and nothing else.
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|it| it.contains("status of 40")), "{complaints:#?}");
}

fn shows_the_command(browser: &mut Browser, admin: &Admin) {
    // Without a token it shows the command.
    browser.open(&format!("http://{}/", admin.address));
    browser.wait_until(DRAWN);
    browser.evaluate("document.querySelector('[data-backend=cache-b]').click()");
    let command = |browser: &mut Browser, choose: &str| {
        let said =
            browser.evaluate(&format!("{choose}; document.querySelector('#command').innerText"));
        said.as_str().unwrap().to_owned()
    };
    let said = command(browser, "0");
    assert!(said.contains("maitred backend up redis cache-b"), "{said}");
    let choose = "document.querySelector('#act').value = 'weight'; document.querySelector('#weight').value = 7; \
                  document.querySelector('#act').dispatchEvent(new Event('input'))";
    let said = command(browser, choose);
    assert!(said.contains("maitred backend weight 7 redis cache-b"), "{said}");
    let choose = choose.replace("= 'weight'", "= 'maintenance'");
    let said = command(browser, &choose);
    assert!(said.contains("maitred backend maintenance redis cache-b"), "{said}");
    assert_eq!(browser.evaluate("document.querySelector('#heavy').checkVisibility()"), false);
    assert_eq!(browser.evaluate("document.querySelector('#go').checkVisibility()"), false);
    keep("command.png", &browser.picture());
}
