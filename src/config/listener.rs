//! What the program believes about a listener, with its defaults.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::access::{Access, AccessFiles};
use super::route::Route;
use crate::border::addr::ListenAddr;
use crate::data::tls::server::Server;

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Arc<str>,
    pub bind: Vec<ListenAddr>,
    pub protocol: Protocol,
    /// `None`: a session that no route claims is closed (`no_route`).
    pub pool: Option<Arc<str>>,
    /// The first that holds wins.
    pub routes: Vec<Route>,
    /// Who must send a PROXY header; from others none is looked for. `None`: from nobody.
    pub proxy_protocol: Option<Trusted>,
    /// `None`: sessions are passed on as they are.
    pub tls: Option<Arc<Server>>,
    pub deny_sessions: DenySessions,
    pub on_refuse: OnRefuse,
    pub relay: RelayMode,
    /// `allow` and `deny`, those of files too.
    pub access: Access,
    /// The files among them.
    pub access_files: AccessFiles,
    /// `limits.sessions`; flows, for UDP.
    pub max_sessions: Option<u64>,
    /// The other limits at the door.
    pub limits: Limits,
    /// Of UDP listeners.
    pub flow: Flow,
    /// Bytes looked at before a session is routed.
    pub preread_size: usize,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Option<Keepalive>,
    /// `None` = auto: the kernel tunes them.
    pub socket_buffers: Option<SocketBuffers>,
    pub backlog: u32,
}

/// Those whose PROXY header is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    pub nets: Vec<IpNet>,
    /// Whoever comes by a unix socket.
    pub unix: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Per IPv4 address or IPv6 /64.
    pub sessions_per_client: Option<u64>,
    /// New sessions (flows, for UDP).
    pub rate: Option<Rate>,
    pub rate_per_client: Option<Rate>,
    /// Sessions in stage `preread` at once.
    pub prereads: Option<u64>,
    /// TCP: of each session.
    pub bandwidth: Bandwidth,
    /// UDP.
    pub datagram_rate: Option<Rate>,
    pub datagram_rate_per_client: Option<Rate>,
}

/// Bytes a second of one session, each way; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub to_client: Option<u64>,
    pub to_backend: Option<u64>,
}

/// So many a second in the long run, and at most `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u64,
    pub burst: u64,
}

/// How long a UDP flow lives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// No datagram either way for this long ends it.
    pub timeout: Duration,
    /// `None` = auto: what the descriptor limit allows.
    pub max_flows: Option<u64>,
    /// After so many datagrams of the client the next one begins another flow.
    pub requests: Option<u64>,
    /// The flow ends after so many replies to each datagram of the client.
    pub responses: Option<u64>,
    pub when_full: WhenFlowsFull,
}

impl Default for Flow {
    fn default() -> Self {
        Flow {
            timeout: Duration::from_secs(60),
            max_flows: None,
            requests: None,
            responses: None,
            when_full: WhenFlowsFull::Shed,
        }
    }
}

/// What happens to a new client at `max_flows`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFlowsFull {
    /// The flow that was idle longest makes room.
    EvictIdle,
    #[default]
    Shed,
}

/// Whether a session outlives its client's right to come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenySessions {
    End,
    #[default]
    Keep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefuse {
    #[default]
    Close,
    Reset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RelayMode {
    #[default]
    Auto,
    Copy,
    Splice,
}

/// `None` = the time is off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ListenerTimeouts {
    /// From accept, where any first bytes are awaited.
    pub preread: Duration,
    pub idle: Option<Duration>,
    pub half_closed: Option<Duration>,
    pub max_lifetime: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Keepalive {
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SocketBuffers {
    pub client: u64,
    pub backend: u64,
}

impl Listener {
    /// Whether any of its sessions may go to that pool.
    pub fn uses(&self, pool: &str) -> bool {
        let own = std::iter::once(&self.pool);
        own.chain(self.routes.iter().map(|route| &route.pool)).any(|it| it.as_deref() == Some(pool))
    }

    /// Sessions or flows at once: `limits.sessions`, and `flow.max_flows` for UDP.
    pub fn session_limit(&self) -> Option<u64> {
        let flows = self.flow.max_flows.filter(|_| self.protocol == Protocol::Udp);
        self.max_sessions.into_iter().chain(flows).min()
    }
}

impl Default for Listener {
    fn default() -> Self {
        Listener {
            name: "main".into(),
            bind: Vec::new(),
            protocol: Protocol::Tcp,
            pool: None,
            routes: Vec::new(),
            proxy_protocol: None,
            tls: None,
            deny_sessions: DenySessions::Keep,
            on_refuse: OnRefuse::Close,
            relay: RelayMode::Auto,
            access: Access::default(),
            access_files: AccessFiles::default(),
            max_sessions: None,
            limits: Limits::default(),
            flow: Flow::default(),
            preread_size: 16 << 10,
            timeouts: ListenerTimeouts {
                preread: Duration::from_secs(5),
                idle: None,
                half_closed: Some(Duration::from_secs(60)),
                max_lifetime: None,
            },
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(60),
                interval: Duration::from_secs(10),
                count: 6,
            }),
            socket_buffers: None,
            backlog: 4096,
        }
    }
}
