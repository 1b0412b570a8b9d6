//! What the program believes: the configuration after every default, merge and check. Nothing here knows
//! YAML. Built only by `load`, by the command line's one-line start, and by tests through `Default`.
//!
//! The modules stand in the order a file passes through them; those after `schema` are what they share.

mod load;
mod parse;
mod substitute;
mod raw;
mod check;
mod one_line;
pub mod schema;

mod tree;
mod decode;
mod choice;
mod scalar;
mod value;
mod address;
mod grammar;
mod nearest;
pub mod fault;
pub mod error;

pub use error::{Report, Source};
pub use grammar::time as parse_time;
pub use load::{Loaded, load, read_sources};
pub use one_line::{OneLine, one_line, override_admin};

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::addr::{BackendAddr, ListenAddr};

/// A whole configuration. Listeners and pools stand in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub process: Process,
    pub admin: Admin,
    pub log: Log,
    pub listeners: Vec<Arc<Listener>>,
    pub pools: Vec<Arc<Pool>>,
    /// SHA-256 over the text of all files, hexadecimal; `config_info{sha256}`.
    pub sha256: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// `None` = auto: the CPUs this process may use.
    pub workers: Option<usize>,
    /// `None` = auto: what the descriptor limit allows.
    pub max_sessions: Option<u64>,
    pub shutdown: Shutdown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shutdown {
    pub delay: Duration,
    pub timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None` = off.
    pub listen: Option<SocketAddr>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9900))) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub sessions: SessionLog,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionLog {
    All,
    Failures,
    #[default]
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub name: Arc<str>,
    pub bind: Vec<ListenAddr>,
    pub protocol: Protocol,
    /// `None`: a session that no route claims is closed (`no_route`).
    pub pool: Option<Arc<str>>,
    pub on_refuse: OnRefuse,
    pub relay: RelayMode,
    /// `allow` and `deny`, those of files too.
    pub access: Access,
    /// `limits.sessions`; flows, for UDP.
    pub max_sessions: Option<u64>,
    /// The other limits at the door.
    pub limits: Limits,
    /// Of UDP listeners.
    pub flow: Flow,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Option<Keepalive>,
    /// `None` = auto: the kernel tunes them.
    pub socket_buffers: Option<SocketBuffers>,
    pub backlog: u32,
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

/// Who may come in: the most specific prefix decides, at equal length deny wins. No `allow` = everyone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Access {
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
}

/// `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Per IPv4 address or IPv6 /64.
    pub sessions_per_client: Option<u64>,
    /// New sessions (flows, for UDP).
    pub rate: Option<Rate>,
    pub rate_per_client: Option<Rate>,
    /// UDP.
    pub datagram_rate: Option<Rate>,
    pub datagram_rate_per_client: Option<Rate>,
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

impl Default for Listener {
    fn default() -> Self {
        Listener {
            name: "main".into(),
            bind: Vec::new(),
            protocol: Protocol::Tcp,
            pool: None,
            on_refuse: OnRefuse::Close,
            relay: RelayMode::Auto,
            access: Access::default(),
            max_sessions: None,
            limits: Limits::default(),
            flow: Flow::default(),
            timeouts: ListenerTimeouts {
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

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub balance: Balance,
    pub hash: Hash,
    pub backends: Vec<Backend>,
    pub spill: bool,
    pub connect: Connect,
    pub source: Vec<IpAddr>,
    pub source_ports: SourcePorts,
    pub send_proxy_protocol: Option<ProxyVersion>,
    pub send_proxy_datagrams: ProxyDatagrams,
    pub health: Health,
    /// `None` = off.
    pub passive: Option<Passive>,
    /// `None` = off.
    pub slow_start: Option<Duration>,
    pub on_down: OnDown,
    pub when_none_up: WhenNoneUp,
    pub when_full: WhenFull,
    /// `timeouts.backend_user_timeout`; `None` = off.
    pub backend_user_timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    ConsistentHash,
    FirstAvailable,
    IpHash,
    #[default]
    LeastConnections,
    LeastLatency,
    Random,
    RoundRobin,
    TwoChoices,
}

impl Balance {
    pub fn as_str(self) -> &'static str {
        match self {
            Balance::ConsistentHash => "consistent_hash",
            Balance::FirstAvailable => "first_available",
            Balance::IpHash => "ip_hash",
            Balance::LeastConnections => "least_connections",
            Balance::LeastLatency => "least_latency",
            Balance::Random => "random",
            Balance::RoundRobin => "round_robin",
            Balance::TwoChoices => "two_choices",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    pub key: HashKey,
    /// Prime.
    pub table_size: u32,
    /// Percent of the average load that a backend may carry; `None` = unbounded.
    pub bounded_load: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashKey {
    ClientAddress,
    #[default]
    ClientIp,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// As given, or the canonical address.
    pub name: Arc<str>,
    pub address: BackendAddr,
    /// 0…256; 0 = no new sessions.
    pub weight: u32,
    /// Lower tiers serve first.
    pub tier: u32,
    pub max_sessions: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Connect {
    /// Per attempt.
    pub timeout: Duration,
    pub attempts: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourcePorts {
    #[default]
    Auto,
    Kernel,
    Own,
}

/// The version of the PROXY header a backend is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    V2,
}

/// Which datagrams of a flow carry it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyDatagrams {
    Every,
    #[default]
    First,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// `auto` is resolved: `Tcp` for a pool that a TCP listener uses, else `None`.
    pub probe: Probe,
    /// `None` = same as the backend's.
    pub port: Option<u16>,
    pub interval: Duration,
    pub timeout: Duration,
    pub rise: u32,
    pub fall: u32,
    pub start: Start,
    /// Percent of the interval.
    pub jitter: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A query by UDP; any answer that is not SERVFAIL or REFUSED passes.
    Dns {
        name: String,
        record: DnsRecord,
    },
    Exchange {
        send: Option<Vec<u8>>,
        expect: Option<Expect>,
    },
    Http {
        path: String,
        host: Option<String>,
        status: Vec<StatusRange>,
    },
    None,
    Tcp,
    /// A datagram; without `expect` it passes if no ICMP error comes back within the timeout.
    Udp {
        send: Option<Vec<u8>>,
        expect: Option<Expect>,
    },
}

/// The types of record a probe may ask for, with their numbers (RFC 1035, RFC 3596).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum DnsRecord {
    #[default]
    A = 1,
    Ns = 2,
    Cname = 5,
    Soa = 6,
    Ptr = 12,
    Mx = 15,
    Txt = 16,
    Aaaa = 28,
    Srv = 33,
}

/// Found anywhere in the first 16 KiB of the reply = passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Bytes(Vec<u8>),
    /// Source of a regular expression over bytes; `parse` has compiled it once to prove it.
    Regex(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    Down,
    #[default]
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passive {
    pub failures: u32,
    pub window: Duration,
    pub eject_for: Duration,
    /// Percent of the pool's backends, rounded down.
    pub max_ejected: u32,
}

/// What happens to the sessions of a backend that goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum OnDown {
    /// Sessions stay; flows move at their next datagram.
    #[default]
    Auto,
    /// They stay this long, then sessions are reset and flows move.
    Drain(Duration),
    Keep,
    /// Sessions are reset; flows move at their next datagram.
    Reset,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WhenNoneUp {
    Hold(Hold),
    #[default]
    Refuse,
    TryAll,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum WhenFull {
    Hold(Hold),
    #[default]
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hold {
    pub time: Duration,
    pub max: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Pool {
            name: "main".into(),
            balance: Balance::default(),
            hash: Hash { key: HashKey::ClientIp, table_size: 65_537, bounded_load: None },
            backends: Vec::new(),
            spill: false,
            connect: Connect { timeout: Duration::from_secs(5), attempts: 3 },
            source: Vec::new(),
            source_ports: SourcePorts::Auto,
            send_proxy_protocol: None,
            send_proxy_datagrams: ProxyDatagrams::First,
            health: Health {
                probe: Probe::Tcp,
                port: None,
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
                start: Start::Up,
                jitter: 10,
            },
            passive: Some(Passive {
                failures: 5,
                window: Duration::from_secs(10),
                eject_for: Duration::from_secs(30),
                max_ejected: 50,
            }),
            slow_start: None,
            on_down: OnDown::Auto,
            when_none_up: WhenNoneUp::Refuse,
            when_full: WhenFull::Refuse,
            backend_user_timeout: None,
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            name: "".into(),
            address: BackendAddr::Unix("".into()),
            weight: 1,
            tier: 0,
            max_sessions: None,
        }
    }
}
