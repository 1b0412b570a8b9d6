//! What the program believes about a pool, with its defaults.

use std::sync::Arc;
use std::time::Duration;

use super::discovery::Discovery;
use crate::border::addr::{BackendAddr, ZonedIp};
use crate::data::tls::client::Client;

#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    pub name: Arc<str>,
    pub balance: Balance,
    pub hash: Hash,
    /// Those listed, and those that discovery found.
    pub backends: Vec<Backend>,
    /// `None`: they are all listed.
    pub discovery: Option<Arc<Discovery>>,
    pub spill: bool,
    pub connect: Connect,
    pub source: Vec<ZonedIp>,
    pub source_ports: SourcePorts,
    pub send_proxy_protocol: Option<ProxyVersion>,
    pub send_proxy_tlvs: ProxyTlvs,
    pub send_proxy_datagrams: ProxyDatagrams,
    /// `None`: backends are spoken to as the client speaks.
    pub tls: Option<Arc<Client>>,
    pub health: Health,
    /// `None` = off.
    pub passive: Option<Passive>,
    /// `None` = off.
    pub slow_start: Option<Duration>,
    pub on_down: OnDown,
    pub on_down_reasons: OnDownReasons,
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
    /// What a TLS client asks for; of others, `ClientIp`.
    ServerName,
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
    V1,
    V2,
}

/// What a header of version 2 carries besides addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyTlvs {
    /// The server name the client asked for, where it is known.
    pub authority: bool,
    /// The protocol agreed on in TLS, where it is known.
    pub alpn: bool,
    pub crc32c: bool,
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
        /// What one says that is alive and not for this pool now.
        standby: Option<Expect>,
    },
    Http {
        path: String,
        host: Option<String>,
        status: Vec<StatusRange>,
        /// The same.
        standby: Vec<StatusRange>,
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

/// Why a backend is lost to those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// In maintenance.
    ByHand,
    /// Down or ejected.
    Dead,
    /// A standby now.
    WrongRole,
}

/// `None`: nothing else than `on_down`; of `removed`: sessions stay, and flows are as `on_down` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OnDownReasons {
    pub by_hand: Option<OnDown>,
    pub dead: Option<OnDown>,
    pub removed: Option<OnDown>,
    pub wrong_role: Option<OnDown>,
}

impl Pool {
    pub fn on_down_for(&self, reason: DownReason) -> OnDown {
        let own = match reason {
            DownReason::ByHand => self.on_down_reasons.by_hand,
            DownReason::Dead => self.on_down_reasons.dead,
            DownReason::WrongRole => self.on_down_reasons.wrong_role,
        };
        own.unwrap_or(self.on_down)
    }
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
            discovery: None,
            spill: false,
            connect: Connect { timeout: Duration::from_secs(5), attempts: 3 },
            source: Vec::new(),
            source_ports: SourcePorts::Auto,
            send_proxy_protocol: None,
            send_proxy_tlvs: ProxyTlvs::default(),
            send_proxy_datagrams: ProxyDatagrams::First,
            tls: None,
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
            on_down_reasons: OnDownReasons::default(),
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
