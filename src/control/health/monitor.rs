//! The monitor: one thread with its own runtime. Every probed backend has its watch on it, and a tick ends ejections,
//! raises weights and cuts what a drain has left. It is not on the control runtime: probes must be on time also while
//! a reload reads tens of thousands of backends, or a busy control plane would find healthy backends dead.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use socket2::SockAddr;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::blind::Entries;
use super::herald::{Herald, Means};
use super::line::{Line, follow};
use super::probe::Prober;
use super::probe::facts::Judge;
use super::transition::{self, Transition};
use super::watch::{Current, Rules, Watched};
use crate::border::addr::{BackendAddr, ListenAddr};
use crate::border::snapshot::Snapshot;
use crate::config::DownReason;
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, Live};
use crate::data::pool::fitness::Standing;
use crate::sys::blocking;
use crate::telemetry::events::Events;

/// How late the end of an ejection, a step of slow start and the end of a drain may be.
const TICK: Duration = Duration::from_millis(100);

/// The first probes of a pool begin this far apart, unless the interval is too short for that.
const APART: Duration = Duration::from_millis(10);

/// The end of the process does not wait longer for servers.
const PARTING: Duration = Duration::from_millis(500);

const NOTHING_TO_PROBE: &str = "nothing to probe: a backend without a port needs health.port";

/// The handle; dropping it ends the thread.
pub struct Monitor {
    /// Only the newest counts, so nothing queues up.
    snapshots: Option<watch::Sender<Arc<Snapshot>>>,
    told: mpsc::Sender<Told>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A change of a backend that was made elsewhere; the monitor handles its consequences.
struct Told {
    pool: Arc<Pool>,
    backend: Arc<Backend>,
    transition: Transition,
}

/// The most such changes that may wait; further senders wait.
const TOLD: usize = 64;

impl Monitor {
    /// `in_flight` limits the probes at once, and so their descriptors.
    pub fn start(events: Arc<Events>, means: Means, in_flight: usize) -> io::Result<Monitor> {
        let (snapshots, newest) = watch::channel(Arc::default());
        let (told, heard) = mpsc::channel(TOLD);
        let thread = blocking::event_loop("health", move |runtime| {
            runtime.block_on(run(newest, heard, events, means, in_flight));
        })?;
        Ok(Monitor { snapshots: Some(snapshots), told, thread: Some(thread) })
    }

    /// Watches the backends of this snapshot. Watches that still fit go on undisturbed.
    pub fn apply(&self, snapshot: &Arc<Snapshot>) {
        if let Some(snapshots) = &self.snapshots {
            snapshots.send_replace(Arc::clone(snapshot));
        }
    }

    /// Reports the change, and treats the sessions as `on_down` says.
    pub async fn tell(&self, pool: Arc<Pool>, backend: Arc<Backend>, transition: Transition) {
        // When the backend has stopped, its sessions have, too.
        let _ = self.told.send(Told { pool, backend, transition }).await;
    }

    /// Ends the probes and waits for the thread.
    pub fn stop(&mut self) {
        self.snapshots = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the monitor panicked");
        }
    }
}

async fn run(
    mut newest: watch::Receiver<Arc<Snapshot>>,
    mut heard: mpsc::Receiver<Told>,
    events: Arc<Events>,
    means: Means,
    in_flight: usize,
) {
    let mut ward = Ward {
        herald: Rc::new(Herald::new(events, means)),
        permits: Rc::new(Semaphore::new(in_flight.max(1))),
        pools: Vec::new(),
        rules: HashMap::new(),
        watches: HashMap::new(),
        lines: HashMap::new(),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = newest.changed() => {
                if changed.is_err() {
                    ward.part().await;
                    return;
                }
                let snapshot = Arc::clone(&newest.borrow_and_update());
                ward.apply(&snapshot, Instant::now());
            }
            Some(it) = heard.recv() => {
                ward.herald.tell(&it.pool, &it.backend, &it.transition, Instant::now());
                ward.herald.tell_news(&it.pool, Instant::now());
                ward.look_at_returned(&it.pool, &it.backend);
            }
            _ = tick.tick() => ward.tick(Instant::now()),
        }
    }
}

/// Everything that is watched.
struct Ward {
    herald: Rc<Herald>,
    permits: Rc<Semaphore>,
    pools: Vec<Arc<Pool>>,
    /// By pool.
    rules: HashMap<Arc<str>, Rc<Rules>>,
    watches: HashMap<Identity, Watch>,
    lines: HashMap<Way, Following>,
}

/// What makes a backend the same one over reloads: its Live. The watch keeps it alive, so that its address cannot be
/// reused.
type Identity = *const Live;

/// Where a line goes, and what is asked there. The rules of the pools keep the prober alive.
type Way = (*const Prober, SockAddr);

#[derive(Clone)]
struct Watch {
    watched: Rc<Watched>,
    way: Way,
}

/// A line with its running task.
struct Following {
    line: Rc<Line>,
    task: JoinHandle<()>,
}

impl Ward {
    fn apply(&mut self, snapshot: &Snapshot, now: Instant) {
        self.part_from_removed(snapshot, now);
        self.pools = snapshot.pools.values().map(Arc::clone).collect();
        let mut rules: HashMap<Arc<str>, Rc<Rules>> = HashMap::new();
        let mut watches = HashMap::with_capacity(self.watches.len());
        let mut listeners: HashMap<Way, Vec<Rc<Watched>>> = HashMap::new();
        for pool in snapshot.pools.values() {
            if pool.config.slow_start.is_some() {
                pool.backends.iter().for_each(|backend| self.herald.note_ramp(backend, now));
            }
            let Some(rule) = self.rules_of(pool, &rules) else { continue };
            let port = pool.config.health.port.or_else(|| only_port(snapshot, &pool.name));
            for (identity, watch) in self.watch_pool(pool, &rule, port, &mut listeners) {
                watches.insert(identity, watch);
            }
            rules.insert(Arc::clone(&pool.name), rule);
        }
        self.rules = rules;
        for (identity, before) in std::mem::replace(&mut self.watches, watches) {
            let now = self.watches.get(&identity);
            if now.is_none_or(|now| !Rc::ptr_eq(&now.watched, &before.watched)) {
                before.watched.retire();
            }
        }
        for pool in &self.pools {
            if self.rules.get(&pool.name).is_none_or(|rules| !rules.entries.is_blind()) {
                pool.shared.is_blind.store(false, Relaxed);
            }
        }
        // The lines that nobody listens to any more.
        let ended = self.lines.extract_if(|way, following| {
            let heard = listeners.remove(way).unwrap_or_default();
            let is_over = heard.is_empty();
            *following.line.watched.borrow_mut() = heard;
            is_over
        });
        ended.for_each(|(_, following)| following.line.end());
    }

    /// Says goodbye to the servers that are being asked, or keep a connection of ours.
    async fn part(&mut self) {
        self.lines.values().for_each(|following| following.line.end());
        let all = async {
            for (_, following) in self.lines.drain() {
                // One that panicked has ended, too.
                let _ = following.task.await;
            }
        };
        let _ = tokio::time::timeout(PARTING, all).await;
    }

    /// Treats the sessions of backends that this snapshot no longer has.
    fn part_from_removed(&self, snapshot: &Snapshot, now: Instant) {
        for before in &self.pools {
            let pool = snapshot.pools.get(&before.name);
            let config = pool.map_or(&before.config, |pool| &pool.config);
            if config.on_down_reasons.removed.is_none()
                || pool.is_some_and(|it| Arc::ptr_eq(it, before))
            {
                continue;
            }
            let backends = pool.into_iter().flat_map(|pool| &pool.backends);
            let here: HashSet<Identity> = backends.map(|it| Arc::as_ptr(&it.live)).collect();
            let gone = before.backends.iter().filter(|it| !here.contains(&Arc::as_ptr(&it.live)));
            gone.for_each(|backend| self.herald.part(config, backend, now));
        }
    }

    /// `new`: of the pools before this one.
    fn rules_of(&self, pool: &Pool, new: &HashMap<Arc<str>, Rc<Rules>>) -> Option<Rc<Rules>> {
        let before = self.rules.get(&pool.name);
        let fits = |it: &&Rc<Rules>| it.prober.is_of(&pool.config);
        if let Some(before) = before.filter(fits).filter(|it| it.health == pool.config.health) {
            return Some(Rc::clone(before));
        }
        // Another pool may ask the same already.
        let shared = before.filter(fits).or_else(|| new.values().find(fits));
        let shared = shared.or_else(|| self.rules.values().find(fits));
        let prober = match shared {
            Some(rules) => Rc::clone(&rules.prober),
            None => Rc::new(Prober::new(&pool.config)?),
        };
        let health = pool.config.health.clone();
        let judge = Judge::new(&health);
        Some(Rc::new(Rules { health, prober, judge, entries: Entries::default() }))
    }

    fn watch_pool(
        &mut self,
        pool: &Arc<Pool>,
        rules: &Rc<Rules>,
        port: Option<u16>,
        listeners: &mut HashMap<Way, Vec<Rc<Watched>>>,
    ) -> Vec<(Identity, Watch)> {
        let (mut watches, mut fresh) = (Vec::new(), Vec::new());
        for backend in &pool.backends {
            let identity = Arc::as_ptr(&backend.live);
            let Some(address) = probe_address(&backend.address, rules.health.port, port) else {
                self.trust(pool, backend);
                continue;
            };
            let current = Current { pool: Arc::clone(pool), backend: Arc::clone(backend) };
            let way = (Rc::as_ptr(&rules.prober), address.clone());
            let watched = match self.watches.get(&identity) {
                Some(watch) if watch.watched.fits(rules, &address) => {
                    watch.watched.replace(current);
                    Rc::clone(&watch.watched)
                }
                _ => Rc::new(Watched::new(current, address, Rc::clone(rules))),
            };
            listeners.entry(way.clone()).or_default().push(Rc::clone(&watched));
            if !self.lines.contains_key(&way) {
                fresh.push(way.clone());
            }
            watches.push((identity, Watch { watched, way }));
        }
        let count = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
        let spread = rules.health.interval.min(APART.saturating_mul(count));
        for (number, way) in (0_u32..).zip(fresh) {
            let share = (f64::from(number) + fastrand::f64()) / f64::from(count);
            let following = self.start(&rules.prober, &way, spread.mul_f64(share));
            self.lines.insert(way, following);
        }
        watches
    }

    fn start(&self, prober: &Rc<Prober>, (_, address): &Way, first: Duration) -> Following {
        let line = Rc::new(Line::new(Rc::clone(prober), address.clone()));
        let (herald, permits) = (Rc::clone(&self.herald), Rc::clone(&self.permits));
        let task = tokio::task::spawn_local(follow(Rc::clone(&line), herald, permits, first));
        Following { line, task }
    }

    /// Nothing can find it down, so it is up.
    fn trust(&self, pool: &Pool, backend: &Backend) {
        if backend.status().verdict == Standing::Up {
            return;
        }
        let (now, wall) = (Instant::now(), SystemTime::now());
        let why = NOTHING_TO_PROBE.into();
        if let Some(it) = transition::settle(pool, backend, Standing::Up, why, now, wall) {
            self.herald.tell(pool, backend, &it, now);
        }
    }

    /// Back from maintenance: it is probed at once.
    fn look_at_returned(&self, pool: &Pool, backend: &Backend) {
        if !backend.status().returns {
            return;
        }
        if let Some(watch) = self.watches.get(&Arc::as_ptr(&backend.live)) {
            if let Some(following) = self.lines.get(&watch.way) {
                following.line.wanted.notify_one();
            }
        } else if self.rules.contains_key(&pool.name) {
            self.trust(pool, backend);
        }
    }

    fn tick(&self, now: Instant) {
        self.herald.end_respites(&self.pools, now);
        for pool in &self.pools {
            if pool.shared.ejected.load(Relaxed) > 0 {
                self.look_after_ejected(pool, now);
            }
            if pool.has_order() {
                pool.reorder(now, SystemTime::now());
            }
            self.herald.tell_news(pool, now);
            if self.herald.is_ramping(&pool.name, now) {
                pool.refresh_weights(now);
            }
        }
    }

    fn look_after_ejected(&self, pool: &Pool, now: Instant) {
        let is_ruled = pool.config.passive.is_some();
        for backend in pool.backends.iter().filter(|it| it.live.outlier.is_ejected()) {
            if let Some(text) = transition::announce(backend) {
                self.herald.warn(backend, &text);
                self.herald.leave(pool, backend, DownReason::Dead);
            }
            let wall = SystemTime::now();
            if let Some(transition) = transition::expire(backend, is_ruled, now, wall) {
                self.herald.tell(pool, backend, &transition, now);
            }
        }
    }
}

/// The address to probe. `port` is from `health`; `dialled` is the port that clients of the pool dial, if it is
/// known: a backend without a port is reached on it.
fn probe_address(
    address: &BackendAddr,
    port: Option<u16>,
    dialled: Option<u16>,
) -> Option<SockAddr> {
    match address {
        BackendAddr::Inet(address) => {
            let mut address = *address;
            address.set_port(port.unwrap_or(address.port()));
            Some(address.into())
        }
        BackendAddr::InetClientPort(ip) => Some(ip.at(dialled?).into()),
        // `parse` refuses a path that is too long.
        BackendAddr::Unix(path) => SockAddr::unix(path).ok(),
    }
}

/// The port that all clients of a pool dial, if there is exactly one and it is fixed.
fn only_port(snapshot: &Snapshot, pool: &str) -> Option<u16> {
    let listeners = &snapshot.config.listeners;
    let of_pool = listeners.iter().filter(|listener| listener.uses(pool));
    let ports: BTreeSet<Option<u16>> = of_pool
        .flat_map(|listener| &listener.bind)
        .map(|address| match address {
            ListenAddr::DualStack(port) => Some(*port),
            ListenAddr::Inet(address) => Some(address.port()),
            ListenAddr::Unix(_) => None,
        })
        .collect();
    match (ports.len(), ports.first()) {
        (1, Some(Some(port))) if *port != 0 => Some(*port),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config};

    fn snapshot_with(binds: &[&str]) -> Snapshot {
        let listener = |bind: &&str| {
            Arc::new(config::Listener {
                bind: vec![ListenAddr::Inet(bind.parse().unwrap())],
                pool: Some("db".into()),
                ..config::Listener::default()
            })
        };
        let listeners = binds.iter().map(listener).collect();
        let config = Arc::new(Config { listeners, ..Config::default() });
        Snapshot { config, ..Snapshot::default() }
    }

    #[test]
    fn a_pool_has_a_port_if_all_its_clients_dial_the_same() {
        let port = |binds: &[&str]| only_port(&snapshot_with(binds), "db");
        assert_eq!(port(&["127.0.0.1:5432", "127.0.0.2:5432"]), Some(5432));
        assert_eq!(port(&["127.0.0.1:5432", "127.0.0.1:5433"]), None);
        assert_eq!(port(&["127.0.0.1:0"]), None);
        assert_eq!(only_port(&snapshot_with(&["127.0.0.1:5432"]), "web"), None);
    }

    #[test]
    fn a_probe_goes_to_the_port_of_health_then_to_the_backends_own() {
        let at = |address: &str, port, dialled| {
            let address = match address.parse() {
                Ok(address) => BackendAddr::Inet(address),
                Err(_) => {
                    let ip: std::net::IpAddr = address.parse().unwrap();
                    BackendAddr::InetClientPort(ip.into())
                }
            };
            let found = probe_address(&address, port, dialled)?;
            Some(found.as_socket()?.to_string())
        };
        assert_eq!(at("192.0.2.1:5432", None, Some(1)).unwrap(), "192.0.2.1:5432");
        assert_eq!(at("192.0.2.1:5432", Some(8008), Some(8008)).unwrap(), "192.0.2.1:8008");
        assert_eq!(at("192.0.2.1", None, Some(7000)).unwrap(), "192.0.2.1:7000");
        assert_eq!(at("192.0.2.1", None, None), None);
    }
}
