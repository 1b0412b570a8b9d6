//! The demonstration: built-in backends of different speed, one of which fails and returns, built-in clients
//! that check every byte, and a real balancer between them. Needs nothing but loopback.

mod backends;
mod clients;
mod datagrams;
mod table;

use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::border::addr::{ListenAddr, LocalAddr};
use crate::config::{self, Config, Protocol};
use crate::control::signals::{Signal, Signals};
use crate::control::supervisor::Supervisor;
use clients::Seen;

/// Clients that are connected at any moment.
const CLIENTS: usize = 24;

/// Clients that send datagrams.
const ASKERS: usize = 8;

/// The result of a demonstration.
pub struct Summary {
    pub seen: Arc<Seen>,
    pub lasted: Duration,
}

/// The parts of the demonstration besides the balancer.
pub struct Stage {
    pub config: Config,
    backends: Vec<backends::Backend>,
    answerers: Vec<datagrams::Backend>,
}

/// Starts the backends and returns the configuration for the balancer.
pub fn set() -> io::Result<Stage> {
    let backends = vec![
        backends::Backend::start("swift", Duration::from_millis(1), None)?,
        backends::Backend::start("steady", Duration::from_millis(4), None)?,
        backends::Backend::start("slow", Duration::from_millis(15), None)?,
        backends::Backend::start(
            "flaky",
            Duration::from_millis(2),
            Some(backends::Outage::default()),
        )?,
    ];
    let answerers = vec![
        datagrams::Backend::start("udp-steady", None)?,
        datagrams::Backend::start("udp-flaky", Some(backends::Outage::default()))?,
    ];
    let health = config::Health {
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(400),
        ..config::Pool::default().health
    };
    let pool = config::Pool {
        name: "demo".into(),
        backends: backends.iter().map(backends::Backend::config).collect(),
        health: health.clone(),
        ..config::Pool::default()
    };
    let answers = config::Pool {
        name: "demo-udp".into(),
        backends: answerers.iter().map(datagrams::Backend::config).collect(),
        health: config::Health {
            probe: config::Probe::Udp(config::UdpProbe { send: Some(b"?".to_vec()), expect: None }),
            ..health
        },
        ..config::Pool::default()
    };
    let listener = |name: &str, protocol| config::Listener {
        name: name.into(),
        bind: vec![ListenAddr::Inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
        protocol,
        pool: Some(name.into()),
        // A datagram is a question and has one answer.
        flow: config::Flow { requests: Some(1), responses: Some(1), ..config::Flow::default() },
        ..config::Listener::default()
    };
    let config = Config {
        listeners: vec![
            Arc::new(listener("demo", Protocol::Tcp)),
            Arc::new(listener("demo-udp", Protocol::Udp)),
        ],
        pools: vec![Arc::new(pool), Arc::new(answers)],
        ..Config::default()
    };
    Ok(Stage { config, backends, answerers })
}

/// Runs clients against `supervisor` until the time is over or a signal comes; draws a table meanwhile.
pub async fn play(
    supervisor: &Supervisor,
    stage: Stage,
    admin: Option<SocketAddr>,
    limit: Option<Duration>,
    signals: &mut Signals,
) -> io::Result<Summary> {
    let bound = |wanted: Protocol| {
        let mut served = supervisor.served().filter(|((protocol, _), _)| *protocol == wanted);
        served
            .find_map(|(_, served)| match served.local {
                LocalAddr::Inet(address) => Some(address),
                LocalAddr::Unix => None,
            })
            .ok_or_else(|| io::Error::other("the demonstration's listener is not bound"))
    };
    let (balancer, datagrams) = (bound(Protocol::Tcp)?, bound(Protocol::Udp)?);
    let seen = Arc::new(Seen::default());
    let stop = Arc::new(AtomicBool::new(false));
    let threads = clients::start(balancer, CLIENTS, Arc::clone(&seen), Arc::clone(&stop))?;
    let askers = datagrams::start(datagrams, ASKERS, Arc::clone(&seen), Arc::clone(&stop))?;
    let started = Instant::now();
    let mut table = table::Table::new(io::stdout().is_terminal(), balancer, admin);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = second.tick() => table.draw(supervisor, &seen, started.elapsed())?,
            signal = signals.next() => {
                if matches!(signal, Signal::Drain | Signal::DrainForever) {
                    break;
                }
            }
        }
        if limit.is_some_and(|limit| started.elapsed() >= limit) {
            break;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    threads.join();
    // The panic was printed by its thread.
    let _ = askers.join();
    drop((stage.backends, stage.answerers));
    Ok(Summary { seen, lasted: started.elapsed() })
}

impl Summary {
    /// Whether every client saw the bytes it should.
    pub fn is_clean(&self) -> bool {
        self.seen.wrong_bytes() == 0
    }

    pub fn text(&self) -> String {
        let seen = &self.seen;
        format!(
            "{} sessions, {} exchanges, {} datagrams, {} bytes checked in {:.0} s; {} sessions ended early by the flaky \
             backend, {} refused, {} datagrams unanswered; wrong bytes: {}",
            seen.sessions(),
            seen.exchanges(),
            seen.datagrams(),
            seen.bytes(),
            self.lasted.as_secs_f64(),
            seen.ended_early(),
            seen.refused(),
            seen.datagrams_unanswered(),
            seen.wrong_bytes()
        )
    }
}
