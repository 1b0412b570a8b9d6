//! What a file says of a listener.

use crate::config::choice::words;
use crate::config::decode::{OneOrList, Placed, mapping};
use crate::config::net::{FilePath, Net, Sender};
use crate::config::route::{Alpn, NamePattern};
use crate::config::scalar::{Count, DAY, OrAuto, OrNone, SECOND, Size, Time};
use crate::config::value::{Bind, PoolName};
use crate::config::{DenySessions, OnRefuse, Protocol, RelayMode, WhenFlowsFull};

mapping! {
    /// One bound address, or several, and the rules at its door.
    Listener, later [], {
        /// `:5432`, `[::]:5432`, `0.0.0.0:7000-7010`, `unix:/path`, or a list of such. Required.
        bind: OneOrList<Placed<Bind>>,
        /// The transport protocol.
        protocol: Protocol,
        /// The pool that serves its sessions; none: close them. Required.
        pool: PoolName,
        /// TCP: other pools by what is known of a session; the first that holds wins, and `pool` is for the others.
        routes: Vec<Route>,
        /// TCP: who announces the real client in a PROXY header.
        proxy_protocol: OrNone<ProxyProtocol>,
        /// TCP: the listener ends its clients' TLS; none: it is passed on.
        tls: OrNone<ListenerTls>,
        /// Who may come in: networks such as `10.0.0.0/8`; empty: everyone. The most specific of allow and deny decides.
        allow: Vec<Placed<Net>>,
        /// A file with more of them, one a line; read anew when it changes.
        allow_file: OrNone<FilePath>,
        /// Who may not; wins over an allow of the same network.
        deny: Vec<Placed<Net>>,
        /// A file with more of them, one a line; read anew when it changes.
        deny_file: OrNone<FilePath>,
        /// TCP: what becomes of open sessions of clients who may no longer come in.
        deny_sessions: DenySessions,
        /// TCP: how a session is ended that is refused before it reached a backend.
        on_refuse: OnRefuse,
        /// TCP: how bytes are moved.
        relay: RelayMode,
        /// What it takes at most.
        limits: Limits,
        /// UDP: how long a flow lives, and how many there may be.
        flow: Flow,
        /// TCP: bytes looked at before a session is routed: its PROXY header, its ClientHello.
        preread_size: Size<1_024, 65_536>,
        /// TCP: when sessions are cut.
        timeouts: ListenerTimeouts,
        /// TCP: keepalive on both connections of a session; none: off.
        keepalive: OrNone<Keepalive>,
        /// Kernel buffers; auto: the kernel tunes them.
        socket_buffers: OrAuto<SocketBuffers>,
        /// TCP: connections the kernel may hold ready before they are accepted.
        backlog: Count<1, 65_535>,
    }
}

mapping! {
    /// A pool for those sessions of which everything given here holds.
    Route, required ["pool"], later [], {
        /// TLS: names the client asks for, `db1.example.com` or `*.example.com`; one must match.
        server_name: Vec<Placed<NamePattern>>,
        /// TLS: protocols the client offers, such as `postgresql`; one must match.
        alpn: Vec<Placed<Alpn>>,
        /// Networks of the client; one must hold it.
        client: Vec<Placed<Net>>,
        /// The port the client dialled.
        port: OrNone<Count<1, 65_535>>,
        /// The pool that serves these sessions; none: close them. Required.
        pool: PoolName,
    }
}

mapping! {
    /// Who announces the real client in a PROXY header, version 1 or 2.
    ProxyProtocol, required ["trusted"], later [], {
        /// Networks of those who must send the header, and unix for those who come by a unix socket; from others none is looked for. Required.
        trusted: Vec<Placed<Sender>>,
    }
}

mapping! {
    /// How a listener ends TLS, 1.2 and 1.3.
    ListenerTls, required ["certificates"], later [], {
        /// Chosen by the name the client asks for; the first is for everybody else. Required.
        certificates: Vec<TlsPair>,
        /// A PEM file of authorities: clients must show a certificate of one of them; none: they need none.
        client_ca: OrNone<FilePath>,
        /// Protocols, the best first; a client that offers others only is turned away; with postgresql, PostgreSQL clients may ask in their own way first. Empty: none is agreed on.
        alpn: Vec<Placed<Alpn>>,
    }
}

mapping! {
    /// A certificate and its key, in PEM files that are read anew when they change.
    TlsPair, required ["certificate", "key"], later [], {
        /// The certificate, followed by those between it and an authority. Required.
        certificate: FilePath,
        /// Its private key, unencrypted. Required.
        key: FilePath,
    }
}

mapping! {
    /// What a listener takes at most.
    Limits, later [], {
        /// Sessions of this listener at once; flows, for UDP.
        sessions: OrNone<Count<1, 100_000_000>>,
        /// Of each client, which is an IPv4 address or an IPv6 /64.
        sessions_per_client: OrNone<Count<1, 100_000_000>>,
        /// New sessions; flows, for UDP.
        rate: OrNone<Rate>,
        /// New sessions of each client.
        rate_per_client: OrNone<Rate>,
        /// TCP: sessions of which a PROXY header or first bytes are awaited, at once.
        prereads: OrNone<Count<1, 100_000_000>>,
        /// TCP: what each session may carry in a second.
        bandwidth: OrNone<Bandwidth>,
        /// UDP: datagrams of clients.
        datagram_rate: OrNone<Rate>,
        /// UDP: datagrams of each client.
        datagram_rate_per_client: OrNone<Rate>,
    }
}

mapping! {
    /// What each session may carry in a second, each way; a tenth of it at once after a silence.
    Bandwidth, later [], {
        /// From its backend.
        to_client: OrNone<Size<1_024, { 1 << 40 }>>,
        /// From its client.
        to_backend: OrNone<Size<1_024, { 1 << 40 }>>,
    }
}

mapping! {
    /// So many a second in the long run, and at most `burst` at once.
    Rate, required ["per_second"], later [], {
        /// In the long run. Required.
        per_second: Count<1, 1_000_000_000>,
        /// At once, after a silence; else as many as in a second.
        burst: Count<1, 1_000_000_000>,
    }
}

mapping! {
    /// How long a UDP flow lives, and how many there may be.
    Flow, later [], {
        /// No datagram either way for this long ends it.
        timeout: Time<1, { 365 * DAY }>,
        /// At once; auto: what the descriptor limit allows.
        max_flows: OrAuto<Count<1, 100_000_000>>,
        /// After so many datagrams of the client the next one begins another flow.
        requests: OrNone<Count<1, 1_000_000_000>>,
        /// It ends after so many replies to each datagram of the client.
        responses: OrNone<Count<1, 1_000_000_000>>,
        /// What happens to a new client at max_flows.
        when_full: WhenFlowsFull,
    }
}

mapping! {
    /// When sessions are cut.
    ListenerTimeouts, later [], {
        /// From accept until the PROXY header and the first bytes are there, where any are awaited.
        preread: Time<1, DAY>,
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

words!(Protocol, "Protocol", later [], { "tcp" => Protocol::Tcp, "udp" => Protocol::Udp });
words!(OnRefuse, "OnRefuse", later [], { "close" => OnRefuse::Close, "reset" => OnRefuse::Reset });
words!(DenySessions, "DenySessions", later [], {
    "keep" => DenySessions::Keep, "end" => DenySessions::End,
});
words!(RelayMode, "RelayMode", later [], {
    "auto" => RelayMode::Auto, "copy" => RelayMode::Copy, "splice" => RelayMode::Splice,
});
words!(WhenFlowsFull, "WhenFlowsFull", later [], {
    "shed" => WhenFlowsFull::Shed, "evict_idle" => WhenFlowsFull::EvictIdle,
});
