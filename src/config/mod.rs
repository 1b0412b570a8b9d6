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
    /// `None`: a session that no route claims is closed (`no_route`).
    pub pool: Option<Arc<str>>,
    pub on_refuse: OnRefuse,
    pub relay: RelayMode,
    /// `limits.sessions`.
    pub max_sessions: Option<u64>,
    pub timeouts: ListenerTimeouts,
    pub keepalive: Option<Keepalive>,
    /// `None` = auto: the kernel tunes them.
    pub socket_buffers: Option<SocketBuffers>,
    pub backlog: u32,
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
            pool: None,
            on_refuse: OnRefuse::Close,
            relay: RelayMode::Auto,
            max_sessions: None,
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
    Exchange { send: Option<Vec<u8>>, expect: Option<Expect> },
    Http { path: String, host: Option<String>, status: Vec<StatusRange> },
    None,
    Tcp,
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
    #[default]
    Keep,
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
            on_down: OnDown::Keep,
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
