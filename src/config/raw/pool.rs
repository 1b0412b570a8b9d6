//! What a file says of a pool.

use super::Discovery;
use crate::config::choice::{choice, words};
use crate::config::decode::{Decode, Field, Placed, mapping, wrong_shape};
use crate::config::dns_name::DnsName;
use crate::config::fault::Faults;
use crate::config::net::FilePath;
use crate::config::route::Alpn;
use crate::config::scalar::{Count, DAY, HOUR, OrNone, OrSame, OrSystem, Share, Switch, Time};
use crate::config::tree::{Node, Span, Value};
use crate::config::value::{
    BackendAddress, Expectation, HostText, Name, Payload, RequestPath, SourceAddress, Statuses,
    TableSize,
};
use crate::config::{Balance, DnsRecord, HashKey, ProxyDatagrams, SourcePorts, Start};

mapping! {
    /// A group of backends with one balancing policy.
    Pool, later [], {
        /// How a backend is chosen.
        balance: Balance,
        /// What steers clients, with consistent_hash and ip_hash.
        hash: Hash,
        /// The backends: `10.0.0.11:5432`, or a mapping with address and more. Required, unless there is discovery.
        backends: Vec<Backend>,
        /// true: a full tier overflows into the next; false: the next serves only when nobody in this one is up.
        spill: Switch,
        /// Where further backends are found; none: they are those listed.
        discovery: Discovery,
        /// How a backend is connected to.
        connect: Connect,
        /// Addresses to connect from; empty: the kernel chooses.
        source: Vec<Placed<SourceAddress>>,
        /// Who chooses the port to connect from.
        source_ports: SourcePorts,
        /// The header that tells a backend who the client is; none: it is sent none.
        send_proxy_protocol: SendProxy,
        /// TCP: what a header of version 2 tells besides addresses.
        send_proxy_tlvs: Vec<ProxyTlv>,
        /// UDP: which datagrams of a flow carry it.
        send_proxy_datagrams: ProxyDatagrams,
        /// TCP: backends are spoken to in TLS, 1.2 or 1.3, by probes too; none: as the client speaks.
        tls: OrNone<PoolTls>,
        /// Active probes.
        health: Health,
        /// Ejecting backends whose sessions fail; none: off.
        passive: OrNone<Passive>,
        /// A recovered backend gets its share back over this time.
        slow_start: OrNone<Time<1, DAY>>,
        /// What happens to the sessions of a backend that goes down.
        on_down: OnDown,
        /// The same by the reason for which a backend is lost, where that makes a difference.
        on_down_reasons: OnDownReasons,
        /// What happens to a client while no backend is up.
        when_none_up: WhenNoneUp,
        /// What happens to a client while every backend is at its max_sessions.
        when_full: WhenFull,
        /// Times of the backend connections.
        timeouts: PoolTimeouts,
    }
}

mapping! {
    /// What steers clients.
    Hash, later [], {
        /// What of a session is hashed; server_name: what a TLS client asks for, else its address.
        key: HashKey,
        /// Size of the lookup table, a prime number.
        table_size: TableSize,
        /// Most load a backend may carry, of the average; none: no bound.
        bounded_load: OrNone<Share<101, 10_000>>,
    }
}

mapping! {
    /// One backend.
    BackendMapping, required ["address"], later [], {
        /// `10.0.0.11:5432`; without a port: the port the client dialled; `unix:/path`; `db.internal:5432`: all it stands for. Required.
        address: BackendAddress,
        /// What it is called; else its address.
        name: Name,
        /// Its share of new sessions; 0: none.
        weight: Count<0, 256>,
        /// Lower tiers serve first.
        tier: Count<0, 255>,
        /// Sessions on it at once.
        max_sessions: OrNone<Count<1, 100_000_000>>,
    }
}

mapping! {
    /// How a backend is connected to.
    Connect, later [], {
        /// For each attempt.
        timeout: Time<1, HOUR>,
        /// Each on a backend not tried before.
        attempts: Count<1, 16>,
    }
}

mapping! {
    /// How backends are spoken to in TLS.
    PoolTls, later [], {
        /// The name their certificates must be for, and that they are asked for; none: their address.
        server_name: OrNone<HostText>,
        /// A PEM file of authorities that are believed, or of the servers' own certificates; system: the authorities of this machine.
        ca: OrSystem<FilePath>,
        /// Shown to backends that ask for one, a PEM file; none: none is shown.
        certificate: OrNone<FilePath>,
        /// Its private key, a PEM file, unencrypted.
        key: OrNone<FilePath>,
        /// Protocols to offer, the best first; with postgresql, backends are asked first, as PostgreSQL wants it.
        alpn: Vec<Placed<Alpn>>,
        /// false: any certificate is taken, so that anybody may pose as the backend.
        verify: Switch,
    }
}

mapping! {
    /// Active probes.
    Health, later [], {
        /// How a backend is probed.
        probe: Probe,
        /// The port to probe; same: the backend's.
        port: OrSame<Count<1, 65_535>>,
        /// From one probe to the next.
        interval: Time<10, DAY>,
        /// How long a probe may take.
        timeout: Time<1, HOUR>,
        /// Passes in a row that bring a backend up.
        rise: Count<1, 1_000>,
        /// Failures in a row that take it down.
        fall: Count<1, 1_000>,
        /// up: a new backend serves until probes fail; down: not before they pass.
        start: Start,
        /// How far probes are spread, of the interval.
        jitter: Share<0, 100>,
    }
}

choice! {
    /// How a backend is probed. auto: tcp for a pool that a TCP listener uses, else none.
    Probe, later [],
    words { "auto" => Auto, "none" => None, "tcp" => Tcp },
    mappings {
        "exchange" => Exchange(Exchange), "http" => Http(Http), "udp" => Udp(UdpProbe), "dns" => Dns(DnsProbe)
    }
}

mapping! {
    /// Send something, expect something.
    Exchange, later [], {
        /// A text, or {hex: …}; none: send nothing.
        send: Payload,
        /// A text, {hex: …} or {regex: …}, anywhere in the first 16 KiB of the reply; none: connected and sent is enough.
        expect: Expectation,
        /// The same, of a backend that is alive and not for this pool now: the state standby; none: nobody says so.
        standby: Expectation,
    }
}

mapping! {
    /// A datagram sent, another expected.
    UdpProbe, required ["send"], later [], {
        /// A text, or {hex: …}. Required.
        send: Payload,
        /// A text, {hex: …} or {regex: …}, anywhere in a datagram that comes back; none: it passes if for a quarter of a second, or for the timeout if that is shorter, nothing says that nobody is there.
        expect: Expectation,
    }
}

mapping! {
    /// A DNS query by UDP. An answer passes, also one that there is no such name; SERVFAIL and REFUSED do not.
    DnsProbe, required ["name"], later [], {
        /// What is asked for; `.` is the root. Required.
        name: DnsName,
        /// The type of record.
        r#type: DnsRecord,
    }
}

mapping! {
    /// An HTTP request.
    Http, later [], {
        /// What is requested.
        path: RequestPath,
        /// The Host header; none: the backend's address.
        host: OrNone<HostText>,
        /// Answers that pass: `200`, `200-399`.
        status: Vec<Statuses>,
        /// Answers of a backend that is alive and not for this pool now: the state standby.
        standby: Vec<Placed<Statuses>>,
    }
}

mapping! {
    /// Ejecting a backend whose sessions fail in a row.
    Passive, later [], {
        /// So many in a row.
        failures: Count<1, 1_000_000>,
        /// Within this time.
        window: Time<1, DAY>,
        /// How long it is ejected.
        eject_for: Time<1, DAY>,
        /// Most backends ejected at once, of the pool, rounded down.
        max_ejected: Share<1, 100>,
    }
}

choice! {
    /// What happens to the sessions of a backend that goes down. auto: sessions stay, flows move at their next datagram.
    OnDown, later ["idle_first"],
    words { "auto" => Auto, "keep" => Keep, "reset" => Reset },
    mappings { "drain" => Drain(Time<1, DAY>) }
}

mapping! {
    /// What happens to the sessions of a backend that is lost for this reason.
    OnDownReasons, later ["lagging", "login_failed", "query_failed"], {
        /// Probes fail, or its sessions; else on_down.
        dead: OnDown,
        /// It answers that it is not for this pool now: the state standby; else on_down.
        wrong_role: OnDown,
        /// It is in maintenance; else on_down.
        by_hand: OnDown,
        /// It is no longer among the backends; else sessions stay, and flows are as on_down says.
        removed: OnDown,
    }
}

choice! {
    /// What happens to a client while no backend is up.
    WhenNoneUp, later [],
    words { "refuse" => Refuse, "try_all" => TryAll },
    mappings { "hold" => Hold(Hold) }
}

choice! {
    /// What happens to a client while every backend is full.
    WhenFull, later [],
    words { "refuse" => Refuse },
    mappings { "hold" => Hold(Hold) }
}

mapping! {
    /// Clients wait for a backend.
    Hold, required ["for", "max"], later [], {
        /// Each at most this long. Required.
        r#for: Time<1, HOUR>,
        /// At most so many at once; more are refused. Required.
        max: Count<1, 1_000_000>,
    }
}

mapping! {
    /// Times of the backend connections.
    PoolTimeouts, later [], {
        /// Bytes unacknowledged for this long end the connection.
        backend_user_timeout: OrNone<Time<1, { 24 * DAY }>>,
    }
}

words!(Balance, "Balance", later [], {
    "round_robin" => Balance::RoundRobin,
    "least_connections" => Balance::LeastConnections,
    "two_choices" => Balance::TwoChoices,
    "random" => Balance::Random,
    "consistent_hash" => Balance::ConsistentHash,
    "ip_hash" => Balance::IpHash,
    "least_latency" => Balance::LeastLatency,
    "first_available" => Balance::FirstAvailable,
});
words!(HashKey, "HashKey", later [], {
    "client_ip" => HashKey::ClientIp, "client_address" => HashKey::ClientAddress,
    "server_name" => HashKey::ServerName,
});
words!(SourcePorts, "SourcePorts", later [], {
    "auto" => SourcePorts::Auto, "kernel" => SourcePorts::Kernel, "own" => SourcePorts::Own,
});
words!(Start, "Start", later [], { "up" => Start::Up, "down" => Start::Down });
words!(ProxyDatagrams, "ProxyDatagrams", later [], {
    "first" => ProxyDatagrams::First, "every" => ProxyDatagrams::Every,
});
words!(ProxyTlv, "ProxyTlv", later [], {
    "authority" => ProxyTlv::Authority, "alpn" => ProxyTlv::Alpn, "crc32c" => ProxyTlv::Crc32c,
});
words!(SendProxy, "SendProxy", later [], {
    "none" => SendProxy::None, "v1" => SendProxy::V1, "v2" => SendProxy::V2,
});
words!(DnsRecord, "DnsRecord", later [], {
    "A" => DnsRecord::A, "AAAA" => DnsRecord::Aaaa, "NS" => DnsRecord::Ns, "CNAME" => DnsRecord::Cname,
    "SOA" => DnsRecord::Soa, "PTR" => DnsRecord::Ptr, "MX" => DnsRecord::Mx, "TXT" => DnsRecord::Txt,
    "SRV" => DnsRecord::Srv,
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyTlv {
    Alpn,
    Authority,
    Crc32c,
}

/// As written; whether that version can be sent takes a look at the listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProxy {
    None,
    V1,
    V2,
}

/// A backend in its short or its long form.
#[derive(Clone, Debug)]
pub struct Backend {
    pub mapping: BackendMapping,
    pub span: Span,
}

impl Decode for Backend {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mapping = match &node.value {
            Value::Scalar(_) => {
                BackendMapping::short(BackendAddress::decode(node, faults)?, node.span)
            }
            Value::Mapping(_) => BackendMapping::decode(node, faults)?,
            _ => {
                wrong_shape(node, &Self::expected(), faults);
                return None;
            }
        };
        Some(Backend { mapping, span: node.span })
    }

    fn expected() -> String {
        "an address such as `10.0.0.11:5432`, or a mapping with address".to_owned()
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        BackendMapping::keys(path, keys);
    }
}

impl schemars::JsonSchema for Backend {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Backend".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let address = generator.subschema_for::<BackendAddress>();
        let mapping = generator.subschema_for::<BackendMapping>();
        schemars::json_schema!({ "anyOf": [address, mapping] })
    }
}

impl BackendMapping {
    fn short(address: BackendAddress, span: Span) -> Self {
        BackendMapping {
            span,
            address: Field::Given(Placed { value: address, span }),
            name: Field::Absent,
            weight: Field::Absent,
            tier: Field::Absent,
            max_sessions: Field::Absent,
        }
    }
}
