//! What a file says: every key, before defaults and before any check that looks at two keys at once. The
//! reader, the merge of `defaults` and the JSON Schema all come from the lists of keys below.

use super::choice::{choice, words};
use super::decode::{Decode, Named, OneOrList, Placed, decode_node, mapping};
use super::fault::{Code, Fault, Faults};
use super::scalar::{Count, DAY, HOUR, OrAuto, OrNone, OrSame, SECOND, Share, Size, Switch, Time};
use super::tree::{Node, Value};
use super::value::{
    AdminAddress, BackendAddress, Bind, Expectation, HostText, Name, Payload, PoolName,
    RequestPath, SourceAddress, Statuses, TableSize, Version,
};
use super::{
    Balance, HashKey, LogFormat, LogLevel, OnDown, OnRefuse, Protocol, RelayMode, SessionLog,
    SourcePorts, Start,
};

mapping! {
    /// A configuration of maitred.
    File, required ["version"], later [], {
        /// The version of this format: 1. Required.
        version: Version,
        /// The process as a whole.
        process: Process,
        /// Metrics, health, status page and read-only API.
        admin: Admin,
        /// What is logged, and how.
        log: Log,
        /// What listeners and pools say unless they say otherwise.
        defaults: Defaults,
        /// The bound addresses and the rules at their doors, by name.
        listeners: Named<Listener>,
        /// The groups of backends, by name.
        pools: Named<Pool>,
    }
}

mapping! {
    /// The process as a whole.
    Process, later ["user", "group", "busy_poll", "watch"], {
        /// Threads that serve sessions; auto: the CPUs this process may use.
        workers: OrAuto<Count<1, 1_024>>,
        /// Sessions in all; at this number accepting pauses. auto: what the descriptor limit allows.
        max_sessions: OrAuto<Count<1, 100_000_000>>,
        /// What happens after SIGTERM.
        shutdown: Shutdown,
    }
}

mapping! {
    /// After SIGTERM: say not ready but go on accepting for `delay`, then wait at most `timeout` for sessions to end.
    Shutdown, later [], {
        /// How long to go on accepting.
        delay: Time<0, HOUR>,
        /// How long to wait for sessions to end before they are cut.
        timeout: Time<0, DAY>,
    }
}

mapping! {
    /// Metrics, health, status page and read-only API.
    Admin, later ["socket", "token_file"], {
        /// Address and port; none: off.
        listen: OrNone<AdminAddress>,
    }
}

mapping! {
    /// What is logged, and how.
    Log, later [], {
        /// The least important messages that are still logged.
        level: LogLevel,
        /// auto: text on a terminal, JSON elsewhere.
        format: LogFormat,
        /// Which sessions get a line when they end.
        sessions: SessionLog,
    }
}

mapping! {
    /// Merged key by key into every listener and every pool; lists and choices replace.
    Defaults, later [], {
        /// Keys of a listener.
        listener: Listener,
        /// Keys of a pool.
        pool: Pool,
    }
}

mapping! {
    /// One bound address, or several, and the rules at its door.
    Listener, later [
        "routes", "tls", "proxy_protocol", "allow", "allow_file", "deny", "deny_file", "preread_size", "flow",
    ], {
        /// `:5432`, `[::]:5432`, `0.0.0.0:7000-7010`, `unix:/path`, or a list of such. Required.
        bind: OneOrList<Placed<Bind>>,
        /// The transport protocol.
        protocol: Protocol,
        /// The pool that serves its sessions; none: close them. Required.
        pool: PoolName,
        /// How a session is ended that is refused before it reached a backend.
        on_refuse: OnRefuse,
        /// How bytes are moved.
        relay: RelayMode,
        /// What it takes at most.
        limits: Limits,
        /// When sessions are cut.
        timeouts: ListenerTimeouts,
        /// TCP keepalive on both connections of a session; none: off.
        keepalive: OrNone<Keepalive>,
        /// Kernel buffers; auto: the kernel tunes them.
        socket_buffers: OrAuto<SocketBuffers>,
        /// Connections the kernel may hold ready before they are accepted.
        backlog: Count<1, 65_535>,
    }
}

mapping! {
    /// What a listener takes at most.
    Limits, later [
        "sessions_per_client", "rate", "rate_per_client", "prereads", "bandwidth", "datagram_rate",
        "datagram_rate_per_client",
    ], {
        /// Sessions of this listener at once.
        sessions: OrNone<Count<1, 100_000_000>>,
    }
}

mapping! {
    /// When sessions are cut.
    ListenerTimeouts, later ["preread"], {
        /// No byte either way for this long.
        idle: OrNone<Time<1, { 365 * DAY }>>,
        /// From the first FIN, restarted by any byte.
        half_closed: OrNone<Time<1, { 365 * DAY }>>,
        /// From accept, whatever happens.
        max_lifetime: OrNone<Time<1, { 365 * DAY }>>,
    }
}

mapping! {
    /// TCP keepalive, in whole seconds.
    Keepalive, later [], {
        /// Silence before the first keepalive.
        idle: Time<SECOND, { 32_767 * SECOND }>,
        /// Between two keepalives.
        interval: Time<SECOND, { 32_767 * SECOND }>,
        /// Unanswered ones before the connection is dead.
        count: Count<1, 127>,
    }
}

mapping! {
    /// Sizes of the kernel's buffers, for sending and receiving each.
    SocketBuffers, later [], {
        /// On the client's connection. Required.
        client: Size<4_096, { 1 << 30 }>,
        /// On the backend's connection. Required.
        backend: Size<4_096, { 1 << 30 }>,
    }
}

mapping! {
    /// A group of backends with one balancing policy.
    Pool, later [
        "discovery", "tls", "send_proxy_protocol", "send_proxy_tlvs", "send_proxy_datagrams", "on_down_reasons",
    ], {
        /// How a backend is chosen.
        balance: Balance,
        /// What steers clients, with consistent_hash and ip_hash.
        hash: Hash,
        /// The backends: `10.0.0.11:5432`, or a mapping with address and more. Required.
        backends: Vec<Backend>,
        /// true: a full tier overflows into the next; false: the next serves only when nobody in this one is up.
        spill: Switch,
        /// How a backend is connected to.
        connect: Connect,
        /// Addresses to connect from; empty: the kernel chooses.
        source: Vec<Placed<SourceAddress>>,
        /// Who chooses the port to connect from.
        source_ports: SourcePorts,
        /// Active probes.
        health: Health,
        /// Ejecting backends whose sessions fail; none: off.
        passive: OrNone<Passive>,
        /// A recovered backend gets its share back over this time.
        slow_start: OrNone<Time<1, DAY>>,
        /// What happens to the sessions of a backend that goes down.
        on_down: OnDown,
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
        /// What of a client is hashed.
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
        /// `10.0.0.11:5432`; without a port: the port the client dialled; `unix:/path`. Required.
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
    Probe, later ["udp", "dns"],
    words { "auto" => Auto, "none" => None, "tcp" => Tcp },
    mappings { "exchange" => Exchange(Exchange), "http" => Http(Http) }
}

mapping! {
    /// Send something, expect something.
    Exchange, later [], {
        /// A text, or {hex: …}; none: send nothing.
        send: Payload,
        /// A text, {hex: …} or {regex: …}, anywhere in the first 16 KiB of the reply; none: connected and sent is enough.
        expect: Expectation,
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

words!(Protocol, "Protocol", later ["udp"], { "tcp" => Protocol::Tcp });
words!(LogLevel, "LogLevel", later [], {
    "error" => LogLevel::Error, "warn" => LogLevel::Warn, "info" => LogLevel::Info,
    "debug" => LogLevel::Debug, "trace" => LogLevel::Trace,
});
words!(LogFormat, "LogFormat", later [], {
    "auto" => LogFormat::Auto, "text" => LogFormat::Text, "json" => LogFormat::Json,
});
words!(SessionLog, "SessionLog", later [], {
    "none" => SessionLog::None, "failures" => SessionLog::Failures, "all" => SessionLog::All,
});
words!(OnRefuse, "OnRefuse", later [], { "close" => OnRefuse::Close, "reset" => OnRefuse::Reset });
words!(RelayMode, "RelayMode", later [], {
    "auto" => RelayMode::Auto, "copy" => RelayMode::Copy, "splice" => RelayMode::Splice,
});
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
words!(HashKey, "HashKey", later ["server_name"], {
    "client_ip" => HashKey::ClientIp, "client_address" => HashKey::ClientAddress,
});
words!(SourcePorts, "SourcePorts", later [], {
    "auto" => SourcePorts::Auto, "kernel" => SourcePorts::Kernel, "own" => SourcePorts::Own,
});
words!(Start, "Start", later [], { "up" => Start::Up, "down" => Start::Down });
words!(OnDown, "OnDown", later ["drain", "idle_first"], {
    "auto" => OnDown::Auto, "keep" => OnDown::Keep, "reset" => OnDown::Reset,
});

/// A backend in its short or its long form.
#[derive(Clone, Debug)]
pub struct Backend {
    pub mapping: BackendMapping,
    pub span: super::tree::Span,
}

impl Decode for Backend {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let mapping = match &node.value {
            Value::Scalar(_) => {
                BackendMapping::short(BackendAddress::decode(node, faults)?, node.span)
            }
            Value::Mapping(_) => BackendMapping::decode(node, faults)?,
            _ => {
                super::decode::wrong_shape(node, &Self::expected(), faults);
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
    fn short(address: BackendAddress, span: super::tree::Span) -> Self {
        use super::decode::Field;
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

impl File {
    /// `None`: nothing in it can be read.
    pub fn read(tree: &Node, faults: &mut Faults) -> Option<File> {
        if matches!(tree.value, Value::Null) {
            let fault = Fault::error(Code::EmptyValue, tree.span, "there is nothing in this file");
            faults.push(fault.hint("a configuration begins with `version: 1`"));
            return None;
        }
        decode_node(tree, faults)
    }
}
