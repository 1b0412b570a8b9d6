//! What a configuration needs from a machine.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::border::addr::{BackendAddr, ListenAddr, ZonedIp};
use crate::config::{Backend, Config, Listener, Pool, Protocol, RelayMode, SourcePorts};
use crate::sys::limits;

#[derive(Clone, Debug)]
pub struct Needs {
    /// The user that the process becomes, if it does.
    pub user: Option<u32>,
    /// `None` = auto.
    pub workers: Option<u64>,
    pub has_tcp: bool,
    pub has_udp: bool,
    /// `process.max_sessions`; `None` = auto.
    pub max_sessions: Option<u64>,
    /// `limits.sessions` of all TCP listeners together; `None`: one has no limit.
    pub listener_sessions: Option<u64>,
    pub flows: Flows,
    /// The longest.
    pub backlog: u64,
    /// Those of listeners and of the admin server.
    pub ports: BTreeSet<u16>,
    /// Whether any listener may pass bytes through pipes.
    pub splices: bool,
    /// The `source` of every pool.
    pub sources: BTreeSet<ZonedIp>,
    /// Where the pools are for which the kernel chooses source ports: on loopback or on a network.
    pub kernel_ports: Option<Reach>,
    /// Backends of TCP listeners that have a `max_sessions` and need source ports.
    pub limited_backends: Vec<LimitedBackend>,
    /// Pairs of a source address and a backend's address, each of which has every source port once. `None`: the
    /// backends are not known, or one is a unix socket, which needs no ports.
    pub pairs: Option<u64>,
}

/// Flows of all UDP listeners together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows {
    /// `max_flows` or `limits.sessions`, where one is given.
    pub given: u64,
    /// Whether each listener has one.
    pub is_whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Loopback,
    Network,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitedBackend {
    /// `pool/backend`.
    pub name: String,
    pub max_sessions: u64,
    /// Of a source address and an address of it.
    pub pairs: u64,
}

type Pair = (Option<ZonedIp>, SocketAddr);

/// Sessions and flows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub sessions: u64,
    /// Whether the configuration says so, rather than the machine.
    pub is_configured: bool,
    pub flows: u64,
}

impl Needs {
    /// Without a configuration: a listener of either protocol with every default.
    pub fn of_defaults() -> Needs {
        Needs { has_tcp: true, has_udp: true, splices: true, ..Needs::of(&Config::default()) }
    }

    pub fn of(config: &Config) -> Needs {
        let of = |protocol| config.listeners.iter().filter(move |it| it.protocol == protocol);
        let (tcp, udp) = (|| of(Protocol::Tcp), || of(Protocol::Udp));
        let inet = config.listeners.iter().flat_map(|it| &it.bind).filter_map(port);
        let admin = config.admin.listen.map(|address| address.port());
        let flows: Vec<Option<u64>> = udp().map(|listener| listener.session_limit()).collect();
        Needs {
            user: config.process.user.as_ref().map(|user| user.uid),
            workers: config.process.workers.map(|workers| workers as u64),
            has_tcp: tcp().next().is_some(),
            has_udp: udp().next().is_some(),
            max_sessions: config.process.max_sessions,
            listener_sessions: sum(tcp().map(|listener| listener.limits.sessions))
                .filter(|_| tcp().next().is_some()),
            flows: Flows {
                given: flows.iter().flatten().fold(0, |sum, given| sum.saturating_add(*given)),
                is_whole: !flows.is_empty() && flows.iter().all(Option::is_some),
            },
            backlog: tcp()
                .map(|listener| listener.backlog)
                .max()
                .unwrap_or_else(|| Listener::default().backlog)
                .into(),
            // 0: the kernel chooses.
            ports: inet.chain(admin).filter(|port| *port != 0).collect(),
            splices: tcp().any(|listener| listener.relay != RelayMode::Copy),
            kernel_ports: served(config)
                .filter(|(pool, _)| pool.source_ports == SourcePorts::Kernel)
                .flat_map(|(pool, _)| pool.backends.iter().filter_map(|it| reach(&it.address)))
                .max(),
            sources: config.pools.iter().flat_map(|pool| pool.source.iter().copied()).collect(),
            limited_backends: limited_backends(config),
            pairs: all_pairs(config),
        }
    }

    /// The most at once with this many descriptors; the same arithmetic as the supervisor's.
    pub fn load(&self, descriptors: u64) -> Load {
        let allowed = if self.has_udp { limits::max_flows(descriptors, self.has_tcp) } else { 0 };
        let flows = if self.flows.is_whole { self.flows.given.min(allowed) } else { allowed };
        if !self.has_tcp {
            return Load { sessions: 0, is_configured: false, flows };
        }
        let auto = limits::auto_max_sessions(descriptors, allowed);
        let of_process = self.max_sessions.unwrap_or(auto);
        let of_listeners = self.listener_sessions.unwrap_or(u64::MAX);
        Load {
            sessions: of_process.min(of_listeners),
            is_configured: self.max_sessions.is_some() || of_listeners <= auto,
            flows,
        }
    }
}

fn sum(limits: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    limits.reduce(|sum, limit| Some(sum?.saturating_add(limit?))).flatten()
}

fn port(address: &ListenAddr) -> Option<u16> {
    match address {
        ListenAddr::DualStack(port) => Some(*port),
        ListenAddr::Inet(address) => Some(address.port()),
        ListenAddr::Unix(_) => None,
    }
}

fn reach(address: &BackendAddr) -> Option<Reach> {
    let ip = match address {
        BackendAddr::Inet(address) => address.ip(),
        BackendAddr::InetClientPort(ip) => ip.ip(),
        BackendAddr::Unix(_) => return None,
    };
    Some(if ip.is_loopback() { Reach::Loopback } else { Reach::Network })
}

/// The pools of TCP listeners, and the ports that clients dial to reach them.
fn served(config: &Config) -> impl Iterator<Item = (&Pool, BTreeSet<u16>)> {
    config.pools.iter().filter_map(|pool| {
        let is_theirs =
            |it: &&std::sync::Arc<Listener>| it.protocol == Protocol::Tcp && it.uses(&pool.name);
        let mut listeners = config.listeners.iter().filter(is_theirs).peekable();
        listeners.peek()?;
        let dialled = listeners.flat_map(|it| &it.bind).filter_map(port).collect();
        Some((&**pool, dialled))
    })
}

fn limited_backends(config: &Config) -> Vec<LimitedBackend> {
    let of_pool = |(pool, dialled): (&Pool, BTreeSet<u16>)| {
        let limited = |backend: &Backend| {
            Some(LimitedBackend {
                name: format!("{}/{}", pool.name, backend.name),
                max_sessions: backend.max_sessions?.into(),
                pairs: pairs(pool, backend, &dialled)?.len() as u64,
            })
        };
        pool.backends.iter().filter_map(limited).collect::<Vec<_>>()
    };
    served(config).flat_map(of_pool).collect()
}

/// Pools that share an address share its source ports, so each pair counts once.
fn all_pairs(config: &Config) -> Option<u64> {
    let mut all = BTreeSet::new();
    for (pool, dialled) in served(config) {
        for backend in &pool.backends {
            all.extend(pairs(pool, backend, &dialled)?);
        }
    }
    Some(all.len() as u64).filter(|count| *count > 0)
}

/// `None`: a unix socket.
fn pairs(pool: &Pool, backend: &Backend, dialled: &BTreeSet<u16>) -> Option<BTreeSet<Pair>> {
    let addresses: Vec<SocketAddr> = match &backend.address {
        BackendAddr::Inet(address) => vec![*address],
        BackendAddr::InetClientPort(ip) => dialled.iter().map(|port| ip.at(*port)).collect(),
        BackendAddr::Unix(_) => return None,
    };
    let from = |to: SocketAddr| sources(pool, to).into_iter().map(move |source| (source, to));
    Some(addresses.into_iter().flat_map(from).collect())
}

/// The sources of the address's family; any, if there is none.
fn sources(pool: &Pool, to: SocketAddr) -> Vec<Option<ZonedIp>> {
    let fitting = pool.source.iter().filter(|source| source.is_ipv4() == to.is_ipv4());
    let fitting: Vec<Option<ZonedIp>> = fitting.map(|source| Some(*source)).collect();
    if fitting.is_empty() { vec![None] } else { fitting }
}
