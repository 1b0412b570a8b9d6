//! The keys of a pool.

use std::sync::Arc;

use super::backend::{Asked, Backend, Balance};
use super::probe::Probe;
use crate::config::choice::{choice, words};
use crate::config::discovery::{Discovery, DnsServer};
use crate::config::mapping::mapping;
use crate::config::net::{Alpn, FilePath};
use crate::config::scalar::{
    Count, DAY, HOUR, OrAuto, OrNone, OrSame, OrSystem, SECOND, Share, Time,
};
use crate::config::value::{
    DnsName, HostText, ProxyTlvs, ProxyVersion, SourceAddress, Switch, TableSize,
};
use crate::data::tls::client::Client;

mapping! {
    /// A group of backends with one balancing policy.
    Pool {
        /// How a backend is picked ([which one](../README.md#which-balancing)). `ip_hash`: `consistent_hash` on `client_ip`.
        balance: Balance = "least_connections";
        /// With `consistent_hash`, and but for `key` with `ip_hash`.
        hash: Hash = "{}";
        /// Addresses, names, or mappings with the keys below. Required, unless there is `discovery`.
        backends: Vec<Backend> [hand Vec<Backend>] [absent "–", "[]"];
        /// Further backends, which come and go without a reload ([discovery](discovery.md)). `none`: they are those listed.
        discovery: Found = "none" [hand Option<Arc<Discovery>>];
        /// `true`: a full tier overflows into the next. `false`: the next tier serves only while no backend of this one is up.
        spill: Switch = "false";
        /// How a backend is connected to.
        connect: Connect = "{}";
        /// Addresses to connect from, in turn; empty: the kernel chooses.
        source: Vec<SourceAddress> = "[]";
        /// Which side chooses the port to connect from, the kernel or this program
        /// ([tuning](tuning.md#source-ports-and-time_wait)).
        source_ports: SourcePorts = "auto";
        /// A PROXY header tells backends the client's address. UDP has `v2` only.
        send_proxy_protocol: SendProxy = "none" [hand Option<ProxyVersion>];
        /// What a header of version 2 tells besides: the server name the client asked for, the protocol agreed on, a checksum.
        send_proxy_tlvs: Vec<ProxyTlv> = "[]" [hand ProxyTlvs] [tcp];
        /// Which datagrams of a flow carry the header. With `first`, also the next one after its backend was down, or after
        /// ICMP said that its port is closed: what listens there now has been told nothing.
        send_proxy_datagrams: ProxyDatagrams = "first" [udp];
        /// Sessions and probes speak TLS, 1.2 or 1.3, to backends. `none`: backends hear what the client says.
        tls: OrNone<PoolTls> = "none" [hand Option<Arc<Client>>] [tcp];
        /// Active probes.
        health: Health = "{}";
        /// Ejects a backend whose sessions fail in a row; on by default, with the values below. A lone backend is never
        /// ejected. `none`: off.
        passive: OrNone<Passive> = "{}";
        /// A backend that recovered gets its share back over this time, from a tenth on; not at the start.
        slow_start: OrNone<Time<1, DAY>> = "none";
        /// What happens to the sessions and flows of a backend that goes down. `auto`: sessions stay, flows move to another
        /// backend at their next datagram.
        on_down: OnDown = "auto";
        /// The same choices by the reason for which a backend is lost; where one is not given, `on_down` holds.
        on_down_reasons: OnDownReasons = "{}";
        /// When a lower tier serves again that is up again. Until then it waits, unless no backend is up in the tier that serves.
        failback: Failback = "immediate";
        /// A backend that goes up and down too often is held down for a while.
        flap: OrNone<Flap> = "none";
        /// At most one backend serves: the one whose probes pass. `keep`: if several pass, the one that served before goes on;
        /// if none of them did, none serves. `refuse`: none serves until one is left. The others are `standby`.
        single: Single = "none";
        /// What happens to clients while no backend is up. `try_all`: backends that probes call down are tried, too, never
        /// those in `drain` or `maintenance`.
        when_none_up: WhenNoneUp = "refuse";
        /// What happens to clients while every backend that is up is at its `max_sessions`.
        when_full: WhenFull = "refuse";
        /// Times of the backend connections.
        timeouts: PoolTimeouts = "{}";
    }
    besides {
        /// What it is called.
        name: Arc<str> = "main".into();
    }
}

mapping! {
    /// What steers clients, with `consistent_hash` and `ip_hash`.
    #[derive(Copy, Eq)]
    Hash {
        /// What of a session is hashed. `client_address`: with the port. `server_name`: what a TLS client asks for, else its
        /// address; a client that never speaks is closed after `timeouts.preread`.
        key: HashKey = "client_ip";
        /// Size of the lookup table.
        table_size: TableSize = "65537";
        /// Most load of a backend, of the average; beyond it the next one takes over.
        bounded_load: OrNone<Share<101, 10_000>> = "none";
    }
}

choice! {
    /// Where further backends are found.
    Found {
        "none" => Listed,
        mapping
        /// What a name stands for.
        "dns" => Dns(DnsDiscovery) ["{}"],
        mapping
        /// A list in a file of its own.
        "file" => File(FileDiscovery) ["{}"],
    }
}

mapping! {
    /// Backends are what a name stands for.
    DnsDiscovery {
        /// What is asked for. A search domain may be added, but not to a name that ends with a dot.
        name: DnsName [required "db.internal", "write what is asked for, as in `{dns: {name: db.internal, port: 5432}}`"];
        /// Their port, with `type: address`.
        port: Count<1, 65_535, u16> [absent "the port dialled", "5432"];
        /// `address`: A and AAAA records. `srv`: SRV records, with port, weight and, by priority, tier.
        record("type"): Asked = "address";
        /// From one question to the next. `auto`: as long as the answer is good for, 1s to 5m.
        refresh: OrAuto<Time<SECOND, DAY>> = "auto";
        /// The DNS servers that are asked: `10.0.0.53`, or `10.0.0.53:5353`; empty: the servers in `/etc/resolv.conf`, after
        /// `/etc/hosts`.
        servers: Vec<DnsServer> = "[]";
    }
}

mapping! {
    /// Backends are listed in a file.
    FileDiscovery {
        /// A list as `backends` is, addresses only, in YAML or JSON; read again when it changes. A list that cannot be used
        /// leaves the last one in force.
        path: FilePath [required "/etc/maitred/backends.yaml", "name the file, as in `{file: {path: backends.yaml}}`"];
    }
}

mapping! {
    /// How a backend is connected to.
    #[derive(Copy)]
    Connect {
        /// For each attempt.
        timeout: Time<1, HOUR> = "5s";
        /// Attempts in all, each on a backend not tried before; where none is left, on the same again after 250 ms.
        attempts: Count<1, 16, u32> = "3";
        /// Until when another attempt may follow. `first_byte`: also when a backend closes or resets before its first byte,
        /// while the client has sent at most 16 KiB, which another backend then gets
        /// ([what that means](concepts.md#retries)).
        retry_until: RetryUntil = "connected" [tcp];
    }
}

mapping! {
    /// How backends are spoken to in TLS.
    PoolTls {
        /// The name their certificates must be for, and that they are asked for. `none`: their address.
        server_name: OrNone<HostText> = "none";
        /// A PEM file of the authorities that are believed, or of the servers' own certificates. `system`: the authorities
        /// this machine trusts.
        ca: OrSystem<FilePath> = "system";
        /// A PEM file: shown to backends that ask for one.
        certificate: OrNone<FilePath> = "none";
        /// A PEM file: its private key, unencrypted.
        key: OrNone<FilePath> = "none";
        /// Protocols to offer, the best first. With `postgresql` among them backends are asked first, as every PostgreSQL
        /// wants it.
        alpn: Vec<Alpn> = "[]";
        /// `false`: any certificate is taken, so that anyone on the way may pose as the backend.
        verify: Switch = "true";
    }
}

mapping! {
    /// Active probes.
    Health {
        /// How backends are probed. `auto`: `tcp` for a pool that a TCP listener uses, else `none`. With `none` a backend is
        /// always up, unless its sessions fail.
        probe: Probe = "auto";
        /// The port to probe. `same`: the backend's own.
        port: OrSame<Count<1, 65_535, u16>> = "same";
        /// From one probe to the next.
        interval: Time<10, DAY> = "2s";
        /// How long a probe may take.
        timeout: Time<1, HOUR> = "1s";
        /// Passes in a row that bring a backend up.
        rise: Count<1, 1_000, u32> = "2";
        /// Failures in a row that take it down.
        fall: Count<1, 1_000, u32> = "3";
        /// `up`: a new backend serves until probes fail. `down`: not before they pass.
        start: Start = "up";
        /// How far probes are spread, of the interval.
        jitter: Share<0, 100> = "10%";
        /// Whether probes speak TLS, where they are by TCP. `same`: as the pool's sessions. `none`: they do not.
        tls: OrSame<OrNone<PoolTls>> = "same" [hand ProbeTls];
        /// Of probes that log in. `kept`: one idle connection to each backend is kept, which spares logging in each time.
        connection: ProbeConnection = "fresh";
    }
}

mapping! {
    /// Ejecting a backend whose sessions fail in a row.
    #[derive(Copy)]
    Passive {
        /// So many failures in a row (more than 1 000 act as 1 000).
        failures: Count<1, 1_000_000, u32> = "5";
        /// Within this time.
        window: Time<1, DAY> = "10s";
        /// How long it is ejected; a probe that passes ends it sooner.
        eject_for: Time<1, DAY> = "30s";
        /// Most backends ejected at once, of the pool's, rounded down.
        max_ejected: Share<1, 100> = "50%";
    }
}

choice! {
    /// What happens to the sessions of a backend that goes down.
    #[derive(Copy)]
    OnDown {
        /// Sessions stay; flows move at their next datagram.
        "auto" => Auto,
        "keep" => Keep,
        /// Sessions are reset; flows move at their next datagram.
        "reset" => Reset,
        mapping
        /// They stay so long, then sessions are reset and flows move if it is still down.
        "drain" => Drain(Time<1, DAY>) ["30s"],
        mapping
        /// The same, but meanwhile a session in a quiet moment is reset: no byte either way for 100 ms, and none under way.
        /// Flows as with `drain`.
        "idle_first" => IdleFirst(Time<1, DAY>) ["30s"],
    }
}

mapping! {
    /// What happens to the sessions of a backend by the reason for which it is lost.
    #[derive(Copy)]
    OnDownReasons {
        /// Probes get no answer, or not the expected one; or its sessions fail (`ejected`).
        dead: OnDown [absent "–", "reset"];
        /// It is a `standby` now.
        wrong_role: OnDown [absent "–", "reset"];
        /// It is further behind than the probe's `max_lag`. Not given: `keep`.
        lagging: OnDown [absent "–", "keep"];
        /// It turned the probe's login away. Not given: `keep`.
        login_failed: OnDown [absent "–", "keep"];
        /// It refused the probe's question. Not given: `keep`.
        query_failed: OnDown [absent "–", "keep"];
        /// It is in `maintenance`.
        by_hand: OnDown [absent "–", "auto"];
        /// It is no longer in the configuration, nor found. Not given: sessions stay, and for flows `on_down` holds.
        removed: OnDown [absent "–", "keep"];
    }
}

choice! {
    /// When a lower tier that is up again serves again.
    #[derive(Copy)]
    Failback {
        /// At once.
        "immediate" => Immediate,
        /// When an operator says `maitred backend up` of a backend in it.
        "manual" => Manual,
        mapping
        /// When it has been up for so long without a pause, or by hand before that.
        "after" => After(Time<1, DAY>) ["5m"],
    }
}

mapping! {
    /// Holding a backend down that flaps.
    #[derive(Copy)]
    Flap {
        /// So many changes to `up` and to `down`, each counted.
        changes: Count<2, 100, u32> = "5";
        /// Within this time.
        within: Time<1, DAY> = "5m";
        /// How long it is held down. `maitred backend up` ends it.
        hold_down: Time<1, DAY> = "1m";
    }
}

words! {
    /// Whether at most one backend serves, and which one if several say they are right.
    Single {
        "none" => None,
        "keep" => Keep,
        "refuse" => Refuse,
    }
}

choice! {
    /// What happens to a client while no backend is up.
    #[derive(Copy)]
    WhenNoneUp {
        "refuse" => Refuse,
        "try_all" => TryAll,
        mapping
        /// TCP clients wait, also where the backends that are up refused them.
        "hold" => Hold(Hold) ["{}"],
    }
}

choice! {
    /// What happens to a client while every backend is full.
    #[derive(Copy)]
    WhenFull {
        "refuse" => Refuse,
        mapping
        /// TCP clients wait.
        "hold" => Hold(Hold) ["{}"],
    }
}

mapping! {
    /// Clients wait for a backend.
    #[derive(Copy)]
    Hold {
        /// Each at most this long.
        time("for"): Time<1, HOUR> [required "10s", "give both, as in `{hold: {for: 10s, max: 1000}}`"];
        /// At most so many at once; more are refused.
        max: Count<1, 1_000_000, u32> [required "1000", "give both, as in `{hold: {for: 10s, max: 1000}}`"];
    }
}

mapping! {
    /// Times of the backend connections.
    #[derive(Copy)]
    PoolTimeouts {
        /// Bytes that a backend does not acknowledge, or does not read, for this long end its connection (`backend_vanished`).
        backend_user_timeout: OrNone<Time<1, { 24 * DAY }>> = "none";
    }
}

words! {
    /// What of a session is hashed.
    HashKey {
        "client_ip" => ClientIp,
        "client_address" => ClientAddress,
        /// What a TLS client asks for; of others, `ClientIp`.
        "server_name" => ServerName,
    }
}

words! {
    /// Until when a session may be given to another backend.
    RetryUntil { "connected" => Connected, "first_byte" => FirstByte }
}

words! {
    /// Which side chooses the port to connect from.
    SourcePorts { "auto" => Auto, "kernel" => Kernel, "own" => Own }
}

/// In which TLS probes speak.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ProbeTls {
    /// As the pool's sessions.
    #[default]
    Same,
    None,
    Own(Arc<Client>),
}

impl ProbeTls {
    pub fn own(&self) -> Option<&Arc<Client>> {
        match self {
            ProbeTls::Own(client) => Some(client),
            ProbeTls::Same | ProbeTls::None => None,
        }
    }
}

words! {
    /// What becomes of a probe's connection.
    ProbeConnection { "fresh" => Fresh, "kept" => Kept }
}

words! {
    /// What a backend is before its first probe.
    Start { "up" => Up, "down" => Down }
}

words! {
    /// Which datagrams of a flow carry the header.
    ProxyDatagrams { "first" => First, "every" => Every }
}

words! {
    /// What a header of version 2 may carry besides addresses.
    ProxyTlv { "authority" => Authority, "alpn" => Alpn, "crc32c" => Crc32c }
}

words! {
    /// The PROXY header for backends.
    SendProxy { "none" => None, "v1" => V1, "v2" => V2 }
}
