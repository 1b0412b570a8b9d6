//! The wiring, and the only place that knows both planes: opens sockets, starts workers, swaps Snapshots, drains.
//! Runs on the control runtime; everything here happens rarely.

mod bind;
mod files;
mod answers;
mod found;
mod by_hand;
mod hand_book;
mod packets;
pub mod sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use tokio::sync::mpsc;

use crate::border::addr::ListenAddr;
use crate::border::plane::{Bind, Cut, Plane, Served, SessionFilter};
use crate::border::session_log::SessionLog;
use crate::border::snapshot::{Listener, Snapshot};
use crate::config::{Config, DenySessions, Protocol, compare};
use crate::control::fixed_keys;
use crate::control::health::Means;
use crate::control::health::monitor::Monitor;
use crate::data::limits::Gate;
use crate::data::tcp::mailbox::{self, Command, Mail, Mailbox};
use crate::data::tcp::options::listening;
use crate::data::tcp::resources::Share;
use crate::data::tcp::source_ports::SourcePorts;
use crate::data::tcp::thread;
use crate::data::udp;
use crate::sys::blocking;
use crate::sys::port_range::PortRange;
use crate::sys::{limits, socket};
use crate::telemetry::events::{EventKind, Events};
use crate::telemetry::reloads::Reloads;

use answers::Finds;
pub use bind::{BindError, Lack, Sockets};
use bind::{Opened, remove_socket_file};
use hand_book::Hands;
use packets::Packets;

/// A running balancer.
pub struct Supervisor {
    pub plane: Arc<Plane>,
    pub events: Arc<Events>,
    pub reloads: Arc<Reloads>,
    pub started: SystemTime,
    workers: Box<[Mailbox]>,
    threads: Vec<JoinHandle<()>>,
    packets: Packets,
    source_ports: Arc<SourcePorts>,
    monitor: Monitor,
    finds: Finds,
    /// What the files say and discovery found, without what was set by hand.
    base: Config,
    hands: Hands,
    /// What is bound, by the address the configuration names.
    served: BTreeMap<Bind, Served>,
    descriptors: u64,
}

impl Supervisor {
    /// Binds, starts the workers and accepts. `Err` leaves nothing behind.
    pub fn start(config: Config, session_log: SessionLog) -> Result<Supervisor, Lack> {
        let bound = Sockets::bind(&config).map_err(Lack::Address)?;
        Supervisor::start_on(bound, config, session_log)
    }

    /// Starts the workers and accepts on the sockets that were bound for this configuration.
    pub fn start_on(
        bound: Sockets,
        config: Config,
        session_log: SessionLog,
    ) -> Result<Supervisor, Lack> {
        let mut supervisor = match Supervisor::prepare(&bound, &config, session_log) {
            Ok(supervisor) => supervisor,
            Err(lack) => {
                bound.discard();
                return Err(lack);
            }
        };
        let (config, _) = supervisor.finds.fill(config, &supervisor.base);
        supervisor.base = config.clone();
        supervisor.swap(Arc::new(config), bound.opened);
        supervisor.await_names();
        Ok(supervisor)
    }

    /// Starts every thread that the supervisor needs.
    fn prepare(
        bound: &Sockets,
        config: &Config,
        session_log: SessionLog,
    ) -> Result<Supervisor, Lack> {
        let (workers, descriptors) = (bound.workers, bound.descriptors);
        let gate = Gate::new(max_sessions(config, descriptors).0);
        let plane = Plane::new(workers, gate, session_log);
        let (mailboxes, mails) = mailbox::mailboxes(workers);
        let events: Arc<Events> = Arc::default();
        let packets = Packets::default();
        let monitor = start_monitor(&events, &mailboxes, &packets, descriptors)?;
        let finds = Finds::new(Arc::clone(&events));
        let stats = Arc::clone(&plane.source_ports);
        let mut supervisor = Supervisor {
            plane,
            events,
            reloads: Arc::default(),
            started: SystemTime::now(),
            workers: mailboxes,
            threads: Vec::new(),
            packets,
            source_ports: Arc::new(SourcePorts::new(PortRange::of_this_host(), stats)),
            monitor,
            finds,
            base: Config::default(),
            hands: Hands::default(),
            served: BTreeMap::new(),
            descriptors,
        };
        supervisor.reloads.succeeded(supervisor.started);
        supervisor.start_workers(mails).map_err(|error| Lack::Thread("a worker", error))?;
        supervisor.start_others(config)?;
        Ok(supervisor)
    }

    /// Starts the threads that only some configurations need, if they do not run yet.
    fn start_others(&mut self, config: &Config) -> Result<(), Lack> {
        let packets = self.packets.start(&self.plane, config);
        packets.map_err(|error| Lack::Thread("a worker's UDP side", error))?;
        let discovery = self.finds.discovery.start(config);
        discovery.map_err(|error| Lack::Thread("the DNS thread", error))
    }

    fn start_workers(&mut self, mails: Vec<Mail>) -> io::Result<()> {
        let pipes = limits::pipes(self.descriptors) / self.workers() as u64;
        let share = Share {
            pipes: usize::try_from(pipes).unwrap_or(1),
            source_ports: Arc::clone(&self.source_ports),
        };
        for (id, mail) in mails.into_iter().enumerate() {
            let (plane, all) = (Arc::clone(&self.plane), self.workers.clone());
            let share = share.clone();
            self.threads.push(blocking::event_loop(&format!("tcp-{id}"), move |runtime| {
                thread::run(&runtime, id, plane, all, mail, share);
            })?);
        }
        Ok(())
    }

    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The bound addresses, in order.
    pub fn served(&self) -> impl Iterator<Item = (&Bind, &Served)> {
        self.served.iter()
    }

    /// The point of no return: from here on the new Snapshot is read, new sockets accept, and unwanted ones finish.
    fn swap(&mut self, config: Arc<Config>, opened: Opened) -> mpsc::Receiver<()> {
        let before = self.plane.snapshot.load_full();
        let departed = self.plane.departed.load_full();
        let snapshot =
            Snapshot::build(Arc::clone(&config), &before, &departed, self.plane.threads());
        let snapshot = Arc::new(snapshot);
        let (sessions, flows) = max_sessions(&config, self.descriptors);
        self.plane.gate.set_limit(sessions);
        self.plane.flows.set_limit(flows);
        for listener in config.listeners.iter().filter(|it| it.protocol == Protocol::Udp) {
            if let Some(wanted) = listener.flow.max_flows.filter(|wanted| *wanted > flows) {
                let listener = &*listener.name;
                tracing::warn!(listener, "max_flows is {wanted}, but descriptors allow {flows}");
            }
        }
        self.hands.apply(&snapshot);
        let tiers = self.finds.tiers(&snapshot);
        for (pool, tier) in &tiers {
            pool.hold_back(*tier);
        }
        self.plane.session_log.set(config.log.sessions);
        let busy_poll = config.process.busy_poll.unwrap_or_default().as_nanos();
        self.plane.busy_poll_ns.store(u64::try_from(busy_poll).unwrap_or(u64::MAX), Relaxed);
        self.plane.snapshot.store(Arc::clone(&snapshot));
        self.plane.departed.store(Arc::new(departed.after(&before, &snapshot)));
        let now = Instant::now();
        for pool in snapshot.pools.values() {
            pool.activate(now, SystemTime::now());
            pool.warn_of_absent_sources();
            pool.shared.many_ports.store(snapshot.leads_many_ports_to(&pool.name), Relaxed);
        }
        for (pool, tier) in tiers {
            pool.wait_for_tier(tier);
        }
        self.monitor.apply(&snapshot);
        self.finds.attend(&snapshot);
        let packets = self.listen(&config, opened, (&before, &snapshot));
        // A socket that is closed still accepts its queue as the old listener, and is not served afterwards. Its
        // successor, which may have the same port, already receives.
        let unwanted = self.unwanted(&config);
        self.keep_off_listeners();
        self.packets.renew(&snapshot, &self.served, packets);
        self.plane.served.store(Arc::new(self.served.clone()));
        self.look_again(&before, &snapshot);
        self.close(unwanted)
    }

    /// Ends the sessions whose clients are denied now, on those listeners that are configured to end them.
    fn look_again(&self, before: &Snapshot, now: &Snapshot) {
        let is_stricter = |listener: &&Arc<Listener>| {
            let before = before.listeners.get(&listener.config.name);
            listener.config.deny_sessions == DenySessions::End
                && before.is_some_and(|before| {
                    !before.has_lists_of(listener)
                        || before.config.deny_sessions != DenySessions::End
                })
        };
        let listeners: Vec<_> = now.listeners.values().filter(is_stricter).cloned().collect();
        for worker in 0..if listeners.is_empty() { 0 } else { self.workers() } {
            self.send(worker, Command::LookAgain(listeners.clone()));
        }
    }

    /// Lets the TCP workers accept on new sockets; returns those of UDP.
    fn listen(
        &mut self,
        config: &Config,
        mut opened: Opened,
        (before, now): (&Snapshot, &Snapshot),
    ) -> HashMap<ListenAddr, Vec<OwnedFd>> {
        let mut fresh: Vec<Vec<_>> = self.workers.iter().map(|_| Vec::new()).collect();
        let mut known = Vec::new();
        let mut packets = HashMap::new();
        for listener in &config.listeners {
            let of = |snapshot: &Snapshot| snapshot.listeners.get(&listener.name).map(Arc::as_ptr);
            let is_unchanged = of(before) == of(now);
            for address in &listener.bind {
                let bind = (listener.protocol, address.clone());
                let Some(bound) = opened.remove(&bind) else {
                    let Some(served) = self.served.get_mut(&bind) else { continue };
                    let name = std::mem::replace(&mut served.listener, Arc::clone(&listener.name));
                    let stays = is_unchanged && name == listener.name;
                    if listener.protocol == Protocol::Tcp && !stays {
                        known.push((address.clone(), Arc::clone(listener)));
                    }
                    continue;
                };
                tracing::info!(
                    listener = &*listener.name,
                    address = %bound.served.local,
                    protocol = listener.protocol.as_str(),
                    "listening"
                );
                self.served.insert(bind, bound.served);
                if listener.protocol == Protocol::Udp {
                    packets.insert(address.clone(), bound.sockets);
                    continue;
                }
                for (sockets, socket) in fresh.iter_mut().zip(bound.sockets) {
                    if let Err(error) = socket::listen(&socket, &listening(listener)) {
                        tracing::error!(listener = &*listener.name, %address, %error, "cannot listen");
                    }
                    sockets.push((address.clone(), Arc::clone(listener), socket));
                }
            }
        }
        self.keep_off_listeners();
        for (worker, sockets) in fresh.into_iter().enumerate() {
            self.send(worker, Command::Listen(sockets));
            self.send(worker, Command::Retarget(known.clone()));
        }
        packets
    }

    /// A source port must not be a port on which a client may come in.
    fn keep_off_listeners(&self) {
        let of_tcp = self.served.iter().filter(|((protocol, _), _)| *protocol == Protocol::Tcp);
        self.source_ports.keep_off(of_tcp.filter_map(|(_, it)| it.local.port()).collect());
    }

    /// Stops serving everything that `config` does not have.
    fn unwanted(&mut self, config: &Config) -> BTreeMap<Bind, Served> {
        let wanted: BTreeSet<Bind> = config
            .listeners
            .iter()
            .flat_map(|it| it.bind.iter().map(|address| (it.protocol, address.clone())))
            .collect();
        self.served.extract_if(.., |bind, _| !wanted.contains(bind)).collect()
    }

    /// Stops accepting there; the answer comes when all those sockets are closed.
    fn close(&mut self, unwanted: BTreeMap<Bind, Served>) -> mpsc::Receiver<()> {
        let (done, closed) = mpsc::channel(1);
        let ours = bind::Ours::new(&self.served);
        let of_tcp = unwanted.iter().filter(|((protocol, _), _)| *protocol == Protocol::Tcp);
        let (succeeded, gone): (Vec<_>, Vec<_>) =
            of_tcp.partition(|(bind, served)| ours.have(bind, served.local.port()));
        let addresses =
            |of: Vec<(&Bind, _)>| of.into_iter().map(|((_, address), _)| address.clone()).collect();
        let (succeeded, gone): (Vec<ListenAddr>, Vec<_>) = (addresses(succeeded), addresses(gone));
        for worker in 0..self.workers() {
            self.send(worker, Command::GiveWay(succeeded.clone(), done.clone()));
            self.send(worker, Command::Unlisten(gone.clone(), done.clone()));
        }
        self.packets.unlisten(unwanted.keys(), &done);
        unwanted.keys().for_each(remove_socket_file);
        closed
    }

    fn send(&self, worker: usize, command: Command) {
        if !self.workers[worker].send(command) {
            tracing::error!(worker, "a worker has ended");
        }
    }

    /// Applies a new configuration and returns what changed. `Err` changes nothing.
    pub fn reload(&mut self, config: Config) -> Result<Vec<String>, ReloadError> {
        let before = self.plane.snapshot.load_full();
        let fixed = fixed_keys::fixed_keys_changed(&before.config, &config);
        if !fixed.is_empty() {
            return Err(ReloadError::Fixed(fixed));
        }
        let (base, stand_ins) = self.finds.fill(config, &self.base);
        let config = self.hands.weigh(base.clone());
        let changes = compare::changes(&before.config, &config);
        self.start_others(&config).map_err(ReloadError::Lack)?;
        let opened = bind::open(&config, &self.served, self.workers());
        let opened = opened.map_err(|error| ReloadError::Lack(Lack::Address(error)))?;
        self.base = base;
        self.note_stand_ins(stand_ins);
        self.swap(Arc::new(config), opened);
        Ok(changes)
    }

    /// A whole reload, from reading the files to its entries in log, events and metrics.
    pub fn reload_with(
        &mut self,
        read: Result<Config, String>,
        begun: Instant,
    ) -> Result<Vec<String>, String> {
        let outcome =
            read.and_then(|config| self.reload(config).map_err(|error| error.to_string()));
        match &outcome {
            Ok(changes) if changes.is_empty() => {
                self.reloads.unchanged.add(1);
                self.reloads.succeeded(SystemTime::now());
                self.events.note(EventKind::Reload, "reloaded: nothing changed".into());
            }
            Ok(changes) => {
                self.reloads.applied.add(1);
                self.reloads.succeeded(SystemTime::now());
                let took = begun.elapsed().as_millis();
                let changes = summary(changes);
                self.events.note(EventKind::Reload, format!("reloaded in {took} ms: {changes}"));
            }
            Err(report) => {
                let first = report.lines().next().unwrap_or_default();
                // With its place in the file, if it has one.
                let place = report.lines().nth(1).map_or("", str::trim);
                let place =
                    if place.starts_with("-->") { format!(" {place}") } else { String::new() };
                self.reloads.was_refused(&format!("{first}{place}"));
                let what =
                    format!("reload refused, the running configuration stays in force: {first}");
                self.events.warn(EventKind::Reload, what);
                tracing::error!("why the reload was refused:\n{report}");
            }
        }
        outcome
    }

    /// Stops accepting everywhere: connections in the accept queues are accepted first. UDP sockets stay open for
    /// their flows, but no new client is admitted.
    pub async fn stop_accepting(&mut self) {
        self.packets.tell(|| udp::worker::Command::Drain);
        let is_tcp = |(protocol, _): &Bind, _: &mut Served| *protocol == Protocol::Tcp;
        let of_tcp = self.served.extract_if(.., is_tcp).collect();
        // Nothing is ever sent: the channel ends when every worker has closed its sockets.
        let _ = self.close(of_tcp).recv().await;
        self.plane.served.store(Arc::default());
    }

    /// Ends the workers; sessions that are still open are dropped with them.
    pub fn stop(mut self) {
        self.monitor.stop();
        self.finds.discovery.stop();
        for worker in 0..self.workers() {
            self.send(worker, Command::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
        self.packets.stop();
        for bind in self.served.keys() {
            remove_socket_file(bind);
        }
        self.events.note(EventKind::Drain, "stopped".into());
    }
}

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    Lack(Lack),
    /// Keys that only a restart can change.
    Fixed(Vec<&'static str>),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Lack(lack) => lack.fmt(f),
            ReloadError::Fixed(keys) => {
                write!(f, "{} cannot change while running; restart to change it", keys.join(", "))
            }
        }
    }
}

impl std::error::Error for ReloadError {}

/// The first changes, and the number of the others.
fn summary(changes: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = changes[..changes.len().min(SHOWN)].join(", ");
    if changes.len() > SHOWN {
        text.push_str(&format!(", and {} more", changes.len() - SHOWN));
    }
    text
}

/// Starts the monitor, which cuts the sessions of a dead backend through the workers' mailboxes.
fn start_monitor(
    events: &Arc<Events>,
    workers: &[Mailbox],
    packets: &Packets,
    descriptors: u64,
) -> Result<Monitor, Lack> {
    /// One descriptor each; more at once would only be a burst.
    const PROBES: u64 = 512;
    let workers: Box<[Mailbox]> = workers.into();
    let tell = move |cut: Cut, command: fn(Cut) -> Command| {
        for worker in &workers {
            // A worker that has ended has no sessions.
            worker.send(command(cut.clone()));
        }
    };
    let tell = Arc::new(tell);
    let tell_quiet = Arc::clone(&tell);
    let cut = move |cut| tell(cut, Command::Cut);
    let cut_quiet = move |cut| tell_quiet(cut, Command::CutQuiet);
    let mailboxes = Arc::clone(&packets.mailboxes);
    let ask_others = move |filter: SessionFilter| {
        for mailbox in mailboxes.load().iter() {
            // A thread that has ended has no flows.
            mailbox.send(udp::worker::Command::AskOthers(filter.clone()));
        }
    };
    let in_flight = (limits::kept_back(descriptors) / 4).min(PROBES);
    let in_flight = usize::try_from(in_flight).unwrap_or(1);
    let means = Means {
        cut: Box::new(cut),
        cut_quiet: Box::new(cut_quiet),
        ask_others: Box::new(ask_others),
    };
    let monitor = Monitor::start(Arc::clone(events), means, in_flight);
    monitor.map_err(|error| Lack::Thread("the probes' thread", error))
}

/// Limits of sessions and of flows.
fn max_sessions(config: &Config, descriptors: u64) -> (u64, u64) {
    let has = |protocol| config.listeners.iter().any(|it| it.protocol == protocol);
    let flows =
        if has(Protocol::Udp) { limits::max_flows(descriptors, has(Protocol::Tcp)) } else { 0 };
    // Without a TCP listener there are no sessions, and this is the number that would be allowed.
    let beside = if has(Protocol::Tcp) { flows } else { 0 };
    let sessions = config.process.max_sessions;
    (sessions.unwrap_or_else(|| limits::auto_max_sessions(descriptors, beside)), flows)
}
