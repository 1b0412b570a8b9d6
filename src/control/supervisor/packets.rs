//! The UDP threads, one per worker, started with the first UDP listener.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use crate::border::addr::{BackendAddr, ListenAddr, LocalAddr, canonical};
use crate::border::plane::{Bind, Plane, Served};
use crate::border::snapshot::{Listener, Snapshot};
use crate::config::{Config, Protocol};
use crate::data::udp::loops::Answerers;
use crate::data::udp::source_ports::SourcePorts;
use crate::data::udp::worker::{self, Command, Mailbox};
use crate::sys::datagram;
use crate::sys::port_range::PortRange;

#[derive(Default)]
pub(super) struct Packets {
    /// Shared with the code that lists flows: the threads may start with a later reload.
    pub mailboxes: Arc<ArcSwap<Vec<Mailbox>>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    source_ports: OnceCell<Arc<SourcePorts>>,
}

impl Packets {
    /// Starts the threads if `config` needs them and they do not run yet.
    pub fn start(&mut self, plane: &Arc<Plane>, config: &Config) -> io::Result<()> {
        let is_needed = config.listeners.iter().any(|it| it.protocol == Protocol::Udp);
        while is_needed && self.threads.len() < plane.workers.len() {
            let id = self.threads.len();
            let (mailbox, mail) = worker::mailbox()?;
            let plane = Arc::clone(plane);
            let source_ports = Arc::clone(self.source_ports.get_or_init(|| {
                let stats = Arc::clone(&plane.source_ports);
                Arc::new(SourcePorts::new(PortRange::of_this_host(), stats))
            }));
            let thread = std::thread::Builder::new().name(format!("udp-{id}"));
            let thread = thread.spawn(move || worker::run(id, plane, source_ports, mail))?;
            let mut mailboxes = Vec::clone(&self.mailboxes.load());
            mailboxes.push(mailbox);
            self.mailboxes.store(Arc::new(mailboxes));
            self.threads.push(thread);
        }
        Ok(())
    }

    pub fn send(&self, worker: usize, command: Command) {
        let mailboxes = self.mailboxes.load();
        let Some(mailbox) = mailboxes.get(worker) else { return };
        if !mailbox.send(command) {
            tracing::error!(worker, "a UDP thread has ended");
        }
    }

    /// Sends to every thread.
    pub fn tell(&self, mut command: impl FnMut() -> Command) {
        for worker in 0..self.threads.len() {
            self.send(worker, command());
        }
    }

    /// A new snapshot is in force, and these sockets are new in it.
    pub fn renew(
        &self,
        snapshot: &Snapshot,
        served: &BTreeMap<Bind, Served>,
        mut fresh: HashMap<ListenAddr, Vec<OwnedFd>>,
    ) {
        if self.threads.is_empty() {
            return;
        }
        let answerers = Arc::new(answerers(snapshot, served));
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for ((_, address), served) in served.iter().filter(|((it, _), _)| *it == Protocol::Udp) {
            let Some(listener) = snapshot.listeners.get(&served.listener) else { continue };
            match fresh.remove(address) {
                Some(sockets) => {
                    for socket in &sockets {
                        if let Err(error) = datagram::open(socket) {
                            tracing::error!(%address, %error, "cannot receive");
                        }
                    }
                    new.push((address.clone(), Arc::clone(listener), sockets));
                }
                None => known.push((address.clone(), Arc::clone(listener))),
            }
        }
        for worker in 0..self.threads.len() {
            self.send(worker, Command::Renew(known.clone(), Arc::clone(&answerers)));
            let of_worker =
                |(address, listener, sockets): &mut (ListenAddr, Arc<Listener>, Vec<OwnedFd>)| {
                    let socket = sockets.pop()?;
                    Some((address.clone(), Arc::clone(listener), socket))
                };
            self.send(worker, Command::Listen(new.iter_mut().filter_map(of_worker).collect()));
        }
    }

    pub fn unlisten<'a>(&self, unwanted: impl Iterator<Item = &'a Bind>, done: &mpsc::Sender<()>) {
        let addresses: Vec<ListenAddr> = unwanted
            .filter(|(protocol, _)| *protocol == Protocol::Udp)
            .map(|(_, address)| address.clone())
            .collect();
        if !addresses.is_empty() {
            self.tell(|| Command::Unlisten(addresses.clone(), done.clone()));
        }
    }

    pub fn stop(&mut self) {
        self.tell(|| Command::Stop);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a UDP thread could not run"),
                Err(_) => tracing::error!("a UDP thread panicked"),
            }
        }
    }
}

/// Addresses whose datagrams are never served: our own listeners and the backends behind them.
fn answerers(snapshot: &Snapshot, served: &BTreeMap<Bind, Served>) -> Answerers {
    let mut answerers = Answerers::default();
    for (_, served) in served.iter().filter(|((protocol, _), _)| *protocol == Protocol::Udp) {
        let LocalAddr::Inet(local) = served.local else { continue };
        if local.ip().is_unspecified() {
            answerers.ports.insert(local.port());
        } else {
            answerers.exact.insert(canonical(local));
        }
        let listener = snapshot.listeners.get(&served.listener);
        let pool = listener.and_then(|listener| listener.config.pool.as_ref());
        let Some(pool) = pool.and_then(|pool| snapshot.pools.get(pool)) else { continue };
        for backend in &pool.backends {
            match backend.address {
                BackendAddr::Inet(address) => drop(answerers.exact.insert(canonical(address))),
                BackendAddr::InetClientPort(ip) => {
                    answerers.exact.insert(ip.at(local.port()));
                }
                BackendAddr::Unix(_) => {}
            }
        }
    }
    answerers
}
