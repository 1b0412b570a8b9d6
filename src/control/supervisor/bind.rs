//! Sockets of listeners, bound in groups of one per worker; all or nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{fchown, lchown};
use std::sync::Arc;

use crate::border::addr::{ListenAddr, LocalAddr};
use crate::border::plane::{Bind, Served};
use crate::config::{Config, Protocol, User};
use crate::sys::socket::Claim;
use crate::sys::{datagram, limits, socket};

/// Addresses that could not be bound; nothing was changed.
#[derive(Debug)]
pub struct BindError {
    pub failures: Vec<(Arc<str>, ListenAddr, io::Error)>,
}

/// What a start or a reload failed to get; nothing was changed.
#[derive(Debug)]
pub enum Lack {
    Address(BindError),
    Thread(&'static str, io::Error),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Address(error) => error.fmt(f),
            Lack::Thread(what, error) => {
                write!(f, "cannot set up {what}: {error}{}", limits::hint(error))
            }
        }
    }
}

impl std::error::Error for Lack {}

/// Bound sockets of one address, one per worker; not listening yet.
pub(super) struct Bound {
    pub served: Served,
    pub sockets: Vec<OwnedFd>,
}

pub(super) type Opened = BTreeMap<Bind, Bound>;

/// Everything that a configuration listens on, bound but not listening. Made before any other thread exists, as the
/// user who started the program; used as the user that the process becomes.
pub struct Sockets {
    pub(super) opened: Opened,
    pub(super) workers: usize,
    pub(super) descriptors: u64,
}

impl Sockets {
    /// All or nothing. First raises the descriptor limit: each worker has sockets of its own.
    pub fn bind(config: &Config) -> Result<Sockets, BindError> {
        let descriptors = limits::raise_descriptor_limit();
        let workers = config.process.workers.unwrap_or_else(|| {
            // This figure includes the affinity and the cgroup's quota.
            std::thread::available_parallelism().map_or(1, usize::from)
        });
        let opened = open(config, &BTreeMap::new(), workers)?;
        Ok(Sockets { opened, workers, descriptors })
    }

    /// Socket files belong to the user that the process becomes, like those that a reload makes. So do the sockets
    /// themselves: only sockets of the same user can share a port, also while a reload changes the address before it.
    pub fn give_to(&self, user: &User) -> Result<(), BindError> {
        let mut failures = Vec::new();
        for ((_, address), bound) in &self.opened {
            let (uid, gid) = (Some(user.uid), Some(user.gid));
            for socket in &bound.sockets {
                // Without the capability (CAP_CHOWN) only such a reload is refused.
                let _ = fchown(socket, uid, gid);
            }
            if let ListenAddr::Unix(path) = address
                && let Err(error) = lchown(path, uid, gid)
            {
                failures.push((Arc::clone(&bound.served.listener), address.clone(), error));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(BindError { failures }) }
    }

    /// Leaves no socket file behind.
    pub fn discard(self) {
        for bind in self.opened.keys() {
            remove_socket_file(bind);
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (listener, address, error)) in self.failures.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "listener {listener}: cannot bind {address}: {error}")?;
            match error.kind() {
                io::ErrorKind::AddrInUse => {
                    write!(
                        f,
                        "\n  hint: another program (or another maitred) listens there; `ss -lntup` shows which"
                    )?;
                }
                io::ErrorKind::PermissionDenied => {
                    write!(
                        f,
                        "\n  hint: ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port or grant it"
                    )?;
                }
                io::ErrorKind::AddrNotAvailable => {
                    write!(
                        f,
                        "\n  hint: this host does not have that address; `ip address` lists those it has"
                    )?;
                }
                _ => f.write_str(&limits::hint(error))?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for BindError {}

/// Binds every address that `config` names and `served` does not have yet. All or nothing.
pub(super) fn open(
    config: &Config,
    served: &BTreeMap<Bind, Served>,
    workers: usize,
) -> Result<Opened, BindError> {
    let mut opened = BTreeMap::new();
    let mut failures = Vec::new();
    let ours = Ours::new(served);
    for listener in &config.listeners {
        for address in &listener.bind {
            let bind = (listener.protocol, address.clone());
            if served.contains_key(&bind) {
                continue;
            }
            match bind_group(&bind, ours.claim(&bind), workers) {
                Ok((sockets, local)) => {
                    let served = Served { listener: Arc::clone(&listener.name), local };
                    opened.insert(bind, Bound { served, sockets });
                }
                Err(error) => {
                    failures.push((Arc::clone(&listener.name), address.clone(), error));
                }
            }
        }
    }
    if failures.is_empty() {
        // From here on the more specific socket of a port that is already bound gets every datagram; they wait in its
        // queue.
        let taken_over = opened
            .iter()
            .filter(|(bind, _)| bind.0 == Protocol::Udp && ours.claim(bind) == Claim::Further);
        for socket in taken_over.flat_map(|(_, bound)| &bound.sockets) {
            // A failure is reported when the socket is read.
            let _ = datagram::open(socket);
        }
        return Ok(opened);
    }
    for (bind, _) in opened {
        remove_socket_file(&bind);
    }
    Err(BindError { failures })
}

/// What is bound already, by port.
pub(super) struct Ours<'a>(HashMap<(Protocol, u16), Vec<&'a ListenAddr>>);

impl<'a> Ours<'a> {
    pub fn new(served: &'a BTreeMap<Bind, Served>) -> Ours<'a> {
        let mut ours: HashMap<_, Vec<_>> = HashMap::new();
        for ((protocol, address), served) in served {
            if let Some(port) = served.local.port() {
                ours.entry((*protocol, port)).or_default().push(address);
            }
        }
        Ours(ours)
    }

    /// A reload may change the address before a port (`:5432` to `127.0.0.1:5432` and back). Then the port is in use
    /// by the old sockets, which are closed only once the new ones are in force, and not by another program.
    fn claim(&self, bind: &Bind) -> Claim {
        if self.have(bind, bind.1.port()) { Claim::Further } else { Claim::First }
    }

    /// Whether one of them overlaps with that address on this port.
    pub fn have(&self, (protocol, address): &Bind, port: Option<u16>) -> bool {
        let same_port = port.and_then(|port| self.0.get(&(*protocol, port)));
        same_port.is_some_and(|all| all.iter().any(|it| it.overlaps(address)))
    }
}

/// One socket per worker on an address; if the port is 0, all share the port that the kernel chose.
fn bind_group(
    (protocol, address): &Bind,
    claim: Claim,
    workers: usize,
) -> io::Result<(Vec<OwnedFd>, LocalAddr)> {
    let bind = match protocol {
        Protocol::Tcp => socket::bind,
        Protocol::Udp => datagram::bind,
    };
    let first = bind(address, claim)?;
    let local = socket::local_addr(&first);
    let further = match (address, local) {
        (ListenAddr::DualStack(_), LocalAddr::Inet(local)) => ListenAddr::DualStack(local.port()),
        (ListenAddr::Inet(_), LocalAddr::Inet(local)) => ListenAddr::Inet(local),
        _ => address.clone(),
    };
    let mut sockets = vec![first];
    while sockets.len() < workers {
        sockets.push(match &further {
            // Unix sockets have no SO_REUSEPORT: the workers share one queue.
            ListenAddr::Unix(_) => sockets[0].as_fd().try_clone_to_owned()?,
            inet => bind(inet, Claim::Further)?,
        });
    }
    Ok((sockets, local))
}

pub(super) fn remove_socket_file((_, address): &Bind) {
    if let ListenAddr::Unix(path) = address {
        // It is fine if the file is already gone.
        let _ = std::fs::remove_file(path);
    }
}
