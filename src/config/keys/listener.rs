//! The keys of a listener.

use std::sync::Arc;

use crate::border::addr::ListenAddr;
use crate::border::dns_name::NamePattern;
use crate::config::choice::words;
use crate::config::decode::OneOrList;
use crate::config::mapping::mapping;
use crate::config::net::{Alpn, FilePath, Net, NetFile, Sender, Trusted};
use crate::config::protocol::Protocol;
use crate::config::scalar::{Count, DAY, OrAuto, OrNone, SECOND, Size, Time};
use crate::config::value::{Bind, PoolName};
use crate::data::tls::server::Server;

mapping! {
    /// One bound address, or several, and the rules at its door.
    Listener later ["forward", "kernel"] {
        /// `":5432"` IPv4 and IPv6 on one socket, `"[::]:5432"` IPv6 only, `"0.0.0.0:7000-7010"` a range of ports,
        /// `"unix:/path"` (TCP, mode 0660); port 0: any free one, which log and API tell. An IPv6 address of one link has its
        /// zone, the name or the number of an interface: `"[fe80::1%eth0]:5432"`; so in `address`, `source` and `servers`. Log,
        /// API and `show config` have the number.
        bind: OneOrList<Bind> [hand Vec<ListenAddr>] [expected ":5432", "write the address to listen on: `bind: \":5432\"`"];
        /// TCP and UDP may have the same port.
        protocol: Protocol = "tcp";
        /// Where sessions go that no route takes. `none`: they are closed (`no_route`).
        pool: PoolName [expected "db", "name the pool that serves this listener; `pool: none` closes every session"];
        /// Other pools, by what is known of a session. Routes are tried in file order; the first whose conditions all match
        /// wins.
        routes: Vec<Route> = "[]" [tcp];
        /// Which senders announce the real client in a PROXY header, version 1 or 2. `none`: none do.
        proxy_protocol: OrNone<ProxyProtocol> = "none" [tcp];
        /// TLS 1.2 and 1.3 end here, within `timeouts.preread`. `none`: TLS is passed on as it is.
        tls: OrNone<ListenerTls> = "none" [hand Option<Arc<Server>>] [tcp];
        /// `all`: what a PostgreSQL client sends to cancel its query (a CancelRequest, which names no server) goes to every
        /// backend of the pool that is up, at most 64. So the first bytes of each client are awaited, within
        /// `timeouts.preread` ([at the door](door.md)).
        postgres_cancel: PostgresCancel = "none" [tcp];
        /// Bytes looked at before a session is routed, PROXY header and ClientHello each. The client's buffer, where
        /// `socket_buffers` sets one, must hold as many.
        preread_size: Size<1_024, 65_536, usize> = "16KiB" [tcp];
        /// Clients that may come in, as networks or addresses; empty: all. The most specific of `allow` and `deny` decides, at
        /// equal length `deny`; with any `allow`, a client that matches nothing stays out. Clients of a unix socket have no
        /// address and are not asked.
        allow: Vec<Net> = "[]" [hand Vec<ipnet::IpNet>];
        /// A file with more of them, one a line; `#` begins a comment. A change is in force within some two seconds, without a
        /// reload; a file that cannot be read leaves the list as it was.
        allow_file: OrNone<FilePath> = "none" [hand Option<NetFile>];
        /// Clients that may not come in.
        deny: Vec<Net> = "[]" [hand Vec<ipnet::IpNet>];
        /// A file with more of them.
        deny_file: OrNone<FilePath> = "none" [hand Option<NetFile>];
        /// What happens to open sessions when a reload or a changed file denies their clients: they go on, or are cut
        /// (`denied`), reset on both sides. Flows of UDP always end, at their next datagram either way.
        deny_sessions: DenySessions = "keep" [tcp];
        /// How a session ends that never reached a backend.
        on_refuse: OnRefuse = "close" [tcp];
        /// How bytes are moved ([tuning](tuning.md#bulk-splice-and-copy)).
        relay: RelayMode = "auto" [tcp];
        /// What the listener takes at most.
        limits: Limits = "{}";
        /// When sessions are cut.
        timeouts: ListenerTimeouts = "{}" [tcp];
        /// Probes of the kernel on both connections of a session, in whole seconds; on by default, with the values below.
        /// `none`: off.
        keepalive: OrNone<Keepalive> = "{}" [tcp];
        /// The kernel's buffers. `auto`: the kernel tunes them. Without effect for UDP ([tuning](tuning.md#udp)).
        socket_buffers: OrAuto<SocketBuffers> = "auto";
        /// Connections the kernel holds ready to be accepted; `net.core.somaxconn` bounds it.
        backlog: Count<1, 65_535, u32> = "4096" [tcp];
        /// How long a flow lives, and how many there may be.
        flow: Flow = "{}" [udp];
    }
    besides {
        /// What it is called.
        name: Arc<str> = "main".into();
    }
}

mapping! {
    /// A pool for the sessions that match every condition given; what is empty or `none` matches all.
    Route {
        /// Names a TLS client asks for: `db1.example.com`, `*.example.com` for all below it, `*` for any; also of PostgreSQL
        /// clients, which ask for TLS in their own way and are answered. One must match.
        server_name: Vec<NamePattern> = "[]";
        /// Protocols it offers, such as `postgresql` or `h2`. One must match.
        alpn: Vec<Alpn> = "[]";
        /// Networks it comes from. One must hold it.
        client: Vec<Net> = "[]";
        /// The port it dialled. `none`: any.
        port: OrNone<Count<1, 65_535, u16>> = "none";
        /// The pool that serves these sessions. `none`: they are closed.
        pool: PoolName [required "db", "name the pool of these sessions; `pool: none` closes them"];
    }
}

mapping! {
    /// Which senders announce the real client in a PROXY header.
    ProxyProtocol {
        /// Networks whose connections must begin with the header, and `unix` for those by a unix socket. From anyone else
        /// these bytes are ordinary payload. All rules at the door then speak of the announced client; `deny` is also held
        /// against the sender itself.
        trusted: Vec<Sender> [hand Trusted] [required "[\"10.0.0.0/8\"]", "list the networks that send the header, as in `{trusted: [\"10.0.0.0/8\"]}`"];
    }
}

mapping! {
    /// How a listener ends TLS, 1.2 and 1.3.
    ListenerTls {
        /// Chosen by the name the client asks for; the first serves where none fits. Files are read again when they change.
        certificates: Vec<TlsPair> [required "[]", "name at least one: `certificates: [{certificate: FILE, key: FILE}]`"];
        /// A PEM file of authorities: clients must show a certificate that one of them signed. `none`: they need none.
        client_ca: OrNone<FilePath> = "none";
        /// Protocols, the best first; a client that offers only others is turned away. With `postgresql` among them,
        /// PostgreSQL clients of every version are answered, which ask before they speak TLS.
        alpn: Vec<Alpn> = "[]";
    }
}

mapping! {
    /// A certificate and its key.
    TlsPair {
        /// A PEM file: the certificate, then those between it and an authority.
        certificate: FilePath [required "/etc/maitred/tls/server.pem", "a certificate and its key belong together: `{certificate: FILE, key: FILE}`"];
        /// A PEM file: its private key, unencrypted.
        key: FilePath [required "/etc/maitred/tls/server.key", "a certificate and its key belong together: `{certificate: FILE, key: FILE}`"];
    }
}

mapping! {
    /// What a listener takes at most.
    #[derive(Copy)]
    Limits {
        /// Sessions of this listener at once (flows, for UDP, here and below); beyond: `over_limit`.
        sessions: OrNone<Count<1, 100_000_000>> = "none";
        /// Sessions of each client, which is an IPv4 address or an IPv6 /64.
        sessions_per_client: OrNone<Count<1, 100_000_000>> = "none";
        /// New sessions of the listener; beyond: `rate_limited`.
        rate: OrNone<Rate> = "none";
        /// New sessions of each client.
        rate_per_client: OrNone<Rate> = "none";
        /// Sessions at once whose PROXY header, handshake or first bytes are awaited.
        prereads: OrNone<Count<1, 100_000_000>> = "none" [tcp];
        /// Bytes a second of each session; a tenth of it at once after a silence.
        bandwidth: OrNone<Bandwidth> = "none" [tcp];
        /// Datagrams of clients; beyond: dropped and counted.
        datagram_rate: OrNone<Rate> = "none" [udp];
        /// Datagrams of each client.
        datagram_rate_per_client: OrNone<Rate> = "none" [udp];
    }
}

mapping! {
    /// What each session may carry in a second, each way; a tenth of it at once after a silence.
    #[derive(Copy, Eq)]
    Bandwidth {
        /// From its backend.
        to_client: OrNone<Size<1_024, { 1 << 40 }>> = "none";
        /// From its client.
        to_backend: OrNone<Size<1_024, { 1 << 40 }>> = "none";
    }
}

mapping! {
    /// So many a second in the long run, and at most `burst` at once.
    #[derive(Copy, Eq)]
    Rate {
        /// In the long run.
        per_second: Count<1, 1_000_000_000> [required "100", "write how many a second, as in `{per_second: 100, burst: 200}`"];
        /// At once, after a silence.
        burst: Count<1, 1_000_000_000> [like per_second, "100"];
    }
}

mapping! {
    /// How long a UDP flow lives, and how many there may be.
    #[derive(Copy)]
    Flow {
        /// No datagram either way for this long ends a flow; open flows keep theirs at a reload.
        timeout: Time<1, { 365 * DAY }> = "60s";
        /// Flows at once. `auto`: one descriptor each, as many as the limit allows, half of that beside TCP listeners.
        max_flows: OrAuto<Count<1, 100_000_000>> = "auto";
        /// After so many datagrams of the client the next one begins another flow; `1` balances each on its own.
        requests: OrNone<Count<1, 1_000_000_000>> = "none";
        /// The flow ends after so many replies to each datagram of the client. A datagram without any reply, when its backend
        /// goes down, is asked of another.
        responses: OrNone<Count<1, 1_000_000_000>> = "none";
        /// At `max_flows` or `limits.sessions`: turn the new flow away, or end the one that was idle longest on the same worker.
        when_full: WhenFlowsFull = "shed";
    }
}

mapping! {
    /// When sessions are cut.
    #[derive(Copy)]
    ListenerTimeouts {
        /// From accept, where a PROXY header, a handshake or first bytes are awaited, until they are there.
        preread: Time<1, DAY> = "5s";
        /// No byte either way for this long; one that the kernel delivers to a slow reader counts. A side that reads nothing of
        /// what waits for it is cut up to a quarter later.
        idle: OrNone<Time<1, { 365 * DAY }>> = "none";
        /// From the first FIN, restarted by any byte, as for `idle`.
        half_closed: OrNone<Time<1, { 365 * DAY }>> = "60s";
        /// From accept, whatever happens.
        max_lifetime: OrNone<Time<1, { 365 * DAY }>> = "none";
        /// Bytes that a client does not acknowledge, or does not read, for this long end its connection (`client_vanished`).
        client_user_timeout: OrNone<Time<1, { 24 * DAY }>> = "none";
    }
}

mapping! {
    /// TCP keepalive, in whole seconds.
    #[derive(Copy)]
    Keepalive {
        /// Silence before the first probe.
        idle: Time<SECOND, { 32_767 * SECOND }> = "60s";
        /// Time between two.
        interval: Time<SECOND, { 32_767 * SECOND }> = "10s";
        /// Unanswered ones before the connection is dead (`client_vanished`, `backend_vanished`).
        count: Count<1, 127, u32> = "6";
    }
}

mapping! {
    /// Sizes of the kernel's buffers, for sending and receiving each.
    #[derive(Copy)]
    SocketBuffers {
        /// Of the client's connection, each way.
        client: Size<4_096, { 1 << 30 }> [expected "256KiB", "give both sizes, as in `{client: 256KiB, backend: 256KiB}`"];
        /// Of the backend's connection, each way.
        backend: Size<4_096, { 1 << 30 }> [expected "256KiB", "give both sizes, as in `{client: 256KiB, backend: 256KiB}`"];
    }
}

words! { for Protocol { "tcp" => Tcp, "udp" => Udp } }

words! {
    /// How a session is ended that never reached a backend.
    OnRefuse { "close" => Close, "reset" => Reset }
}

words! {
    /// Whether a session outlives its client's right to come in.
    DenySessions { "keep" => Keep, "end" => End }
}

words! {
    /// How bytes are moved.
    RelayMode { "auto" => Auto, "copy" => Copy, "splice" => Splice }
}

words! {
    /// Where a PostgreSQL client's CancelRequest goes.
    PostgresCancel {
        /// Where any session would go.
        "none" => None,
        /// To every backend of the pool that is up.
        "all" => All,
    }
}

words! {
    /// What happens to a new client at `max_flows`.
    WhenFlowsFull {
        "shed" => Shed,
        /// The flow that was idle longest makes room.
        "evict_idle" => EvictIdle,
    }
}
