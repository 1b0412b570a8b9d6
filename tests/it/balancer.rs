//! A balancer inside the test's process, and what every test checks at its end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use maitred::border::addr::{BackendAddr, ListenAddr, LocalAddr};
use maitred::border::record::{CloseReason, Record, Stage};
use maitred::border::session_log::SessionLog;
use maitred::config::{self, Config};
use maitred::control::supervisor::Supervisor;

pub struct Balancer {
    pub supervisor: Option<Supervisor>,
    pub records: Arc<std::sync::Mutex<Vec<Record>>>,
}

/// One listener on a free port of loopback, one pool over `backends`; two workers, no probes.
pub fn config(backends: &[SocketAddr]) -> Config {
    let pool = config::Pool {
        backends: backends.iter().map(|address| backend(*address)).collect(),
        health: config::Health { probe: config::Probe::None, ..config::Pool::default().health },
        passive: None,
        ..config::Pool::default()
    };
    let listener = config::Listener {
        bind: vec![ListenAddr::Inet("127.0.0.1:0".parse().unwrap())],
        pool: Some("main".into()),
        ..config::Listener::default()
    };
    Config {
        process: config::Process { workers: Some(2), ..config::Process::default() },
        log: config::Log { sessions: config::SessionLog::All, ..config::Log::default() },
        listeners: vec![Arc::new(listener)],
        pools: vec![Arc::new(pool)],
        ..Config::default()
    }
}

pub fn backend(address: SocketAddr) -> config::Backend {
    config::Backend {
        name: address.to_string().into(),
        address: BackendAddr::Inet(address),
        ..config::Backend::default()
    }
}

/// Changes the listener of `config`.
pub fn listener(config: &mut Config) -> &mut config::Listener {
    Arc::make_mut(&mut config.listeners[0])
}

/// Changes the pool of `config`.
pub fn pool(config: &mut Config) -> &mut config::Pool {
    Arc::make_mut(&mut config.pools[0])
}

impl Balancer {
    pub fn start(config: Config) -> Balancer {
        let records = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = Arc::clone(&records);
        let log = SessionLog::start(config.log.sessions, move |record| {
            sink.lock().unwrap().push(record);
        });
        let supervisor = Supervisor::start(config, log.unwrap()).unwrap();
        Balancer { supervisor: Some(supervisor), records }
    }

    pub fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        inet(self.supervisor().served().next().unwrap().1.local)
    }

    /// Waits for `count` endings and returns them in the order of their session ids.
    pub fn endings(&self, count: usize) -> Vec<Record> {
        wait_for(&format!("{count} records"), || self.records.lock().unwrap().len() >= count);
        let mut records = self.records.lock().unwrap().clone();
        assert_eq!(records.len(), count, "one record per session: {records:#?}");
        records.sort_by_key(|record| record.id);
        records
    }

    /// The single ending, as stage and reason.
    pub fn ending(&self) -> (Stage, CloseReason) {
        let record = &self.endings(1)[0];
        (record.stage, record.reason)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let supervisor = self.supervisor.take().unwrap();
        if std::thread::panicking() {
            return;
        }
        // Flows have no end that a client could make.
        if supervisor.served().any(|((protocol, _), _)| *protocol == config::Protocol::Udp) {
            supervisor.cut(Default::default(), CloseReason::Killed);
        }
        let plane = Arc::clone(&supervisor.plane);
        wait_for("no open session", || plane.open_sessions() == 0);
        // An acceptor takes a place before it looks whether anybody is there.
        wait_for("every place in the process's limits to be given back", || {
            plane.gate.open() == 0 && plane.flows.open() == 0
        });
        let snapshot = plane.snapshot.load();
        for listener in snapshot.listeners.values() {
            let live = &listener.live;
            assert_eq!(live.active.load(std::sync::atomic::Ordering::Relaxed), 0);
            let accepted = live.counters.sum(|counters| counters.sessions.value());
            let closed = live.counters.sum(|counters| {
                let pairs = Stage::ALL.iter().flat_map(|s| CloseReason::ALL.map(|r| (*s, r)));
                pairs.map(|(stage, reason)| counters.closed(stage, reason).value()).sum()
            });
            assert_eq!(accepted, closed, "accepted = closed at rest");
        }
        for pool in snapshot.pools.values() {
            for backend in &pool.backends {
                assert_eq!(backend.live.slot.hot().in_flight(), 0);
            }
        }
        supervisor.stop();
    }
}

pub fn inet(address: LocalAddr) -> SocketAddr {
    match address {
        LocalAddr::Inet(address) => address,
        LocalAddr::Unix => panic!("the listener is a unix socket"),
    }
}

/// A deadline instead of a sleep.
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        // Between two looks.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A listener on a free port of loopback.
pub fn loopback() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
