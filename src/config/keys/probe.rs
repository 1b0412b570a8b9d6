//! How a backend is probed.

use crate::config::choice::{choice, words};
use crate::config::mapping::mapping;
use crate::config::net::FilePath;
use crate::config::payload::{Expectation, Payload};
use crate::config::question::{AccountText, Lag, QueryText, SecretText};
use crate::config::scalar::{DAY, OrNone, SECOND, Time};
use crate::config::value::{DnsName, HostText, RequestPath, Statuses};

choice! {
    /// How a backend is probed.
    Probe {
        /// Until a check knows the listeners.
        "auto" => Auto,
        "none" => None,
        "tcp" => Tcp,
        mapping
        /// By TCP: send something, expect something.
        "exchange" => Exchange(Exchange) ["{}"],
        mapping
        /// A request of HTTP/1.1.
        "http" => Http(Http) ["{}"],
        mapping
        /// A datagram sent, another expected.
        "udp" => Udp(UdpProbe) ["{}"],
        mapping
        /// Logs in to PostgreSQL and asks.
        "postgres" => Postgres(Postgres) ["{}"],
        mapping
        /// Logs in to MySQL or MariaDB and asks.
        "mysql" => Mysql(Mysql) ["{}"],
        mapping
        /// Logs in to Redis or Valkey and asks.
        "redis" => Redis(Redis) ["{}"],
        mapping
        /// A query by UDP. Any answer passes but SERVFAIL, REFUSED and the like.
        "dns" => Dns(DnsProbe) ["{}"],
    }
}

mapping! {
    /// Send something, expect something.
    Exchange {
        /// What is sent. `none`: nothing.
        send: Payload = "none";
        /// What must be found anywhere in the first 16 KiB of the reply. `none`: connected and sent is enough.
        expect: Expectation = "none";
        /// The reply of a backend that is alive and not for this pool now (a replica): the state `standby`.
        standby: Expectation = "none";
    }
}

mapping! {
    /// A datagram sent, another expected.
    UdpProbe {
        /// What is sent.
        send: Payload [required "ping", "write what is sent, as in `{udp: {send: ping, expect: pong}}`"];
        /// What must be found in a datagram that comes back. `none`: it passes if for 250 ms (or `timeout`, if that is shorter)
        /// nothing says that the port is closed.
        expect: Expectation = "none";
    }
}

mapping! {
    /// A DNS query by UDP. An answer passes, also one that there is no such name; SERVFAIL and REFUSED do not.
    DnsProbe {
        /// What is asked for; `.`: the root.
        name: DnsName [required "example.com", "write what is asked for, as in `{dns: {name: example.com}}`"];
        /// The type of record.
        record("type"): DnsRecord = "A";
    }
}

mapping! {
    /// An HTTP request.
    Http {
        /// What is requested.
        path: RequestPath = "/";
        /// The `Host` header. `none`: the backend's address.
        host: OrNone<HostText> = "none";
        /// Answers that pass.
        status: Vec<Statuses> = "[\"200-399\"]";
        /// Answers of a backend that is alive and not for this pool now: the state `standby`.
        standby: Vec<Statuses> = "[]";
    }
}

mapping! {
    /// Logs in to PostgreSQL, 10 or later, and asks.
    Postgres {
        /// Who logs in.
        user: AccountText [required "maitred", "write the user, as in `{postgres: {user: maitred, password_file: FILE}}`"];
        /// Its password. `none`: it needs none, or a file has it.
        password: OrNone<SecretText> = "none";
        /// A file that holds the password and nothing else; read again when it changes.
        password_file: OrNone<FilePath> = "none";
        /// What it logs in to.
        database: AccountText = "postgres";
        /// What serves this pool; the others are a `standby`. `primary`: it is not in recovery. `replica`: it is.
        role: Role = "any";
        /// How far a replica may be behind, in bytes (`16MiB`) or in time (`10s`); further, or not to be told: `lagging`.
        max_lag: OrNone<Lag> = "none";
        /// A question in SQL that has to succeed.
        query: OrNone<QueryText> = "none";
        /// What the first column of its first row must hold, as text; no row is an empty text. `none`: any answer will do.
        expect: Expectation = "none";
    }
}

mapping! {
    /// Logs in to MySQL or MariaDB and asks.
    Mysql {
        /// Who logs in.
        user: AccountText [required "maitred", "write the user, as in `{mysql: {user: maitred, password_file: FILE}}`"];
        /// Its password. `none`: it needs none, or a file has it.
        password: OrNone<SecretText> = "none";
        /// A file that holds the password and nothing else; read again when it changes.
        password_file: OrNone<FilePath> = "none";
        /// What serves this pool; the others are a `standby`. `primary`: it is not `read_only`. `replica`: it is.
        role: Role = "any";
        /// How far a replica may be behind (`Seconds_Behind_Source`); further, or not to be told: `lagging`.
        max_lag: OrNone<Time<SECOND, DAY>> = "none";
        /// What a node of a Galera cluster must be. `synced_or_donor`: also while another node copies its data. A node
        /// without a majority is a `standby`, one that catches up is `lagging`.
        galera: Galera = "none";
        /// A question in SQL that has to succeed.
        query: OrNone<QueryText> = "none";
        /// What the first column of its first row must hold, as text; no row is an empty text. `none`: any answer will do.
        expect: Expectation = "none";
    }
}

mapping! {
    /// Logs in to Redis or Valkey and asks.
    Redis {
        /// Who logs in, with ACLs (Redis 6). `none`: the password alone.
        user: OrNone<AccountText> = "none";
        /// Its password. `none`: it needs none, or a file has it.
        password: OrNone<SecretText> = "none";
        /// A file that holds the password and nothing else; read again when it changes.
        password_file: OrNone<FilePath> = "none";
        /// What serves this pool; the others are a `standby`. `primary`: `role:master`. `replica`: `role:slave`.
        role: Role = "any";
        /// For how long a replica may not have heard from its primary (`master_last_io_seconds_ago`); longer: `lagging`. One whose
        /// link is down is always so.
        max_lag: OrNone<Time<SECOND, DAY>> = "none";
    }
}

words! {
    /// Which servers a pool is for.
    Role { "primary" => Primary, "replica" => Replica, "any" => Any }
}

words! {
    /// What a node of Galera must be.
    Galera { "none" => None, "synced" => Synced, "synced_or_donor" => SyncedOrDonor }
}

words! {
    /// The types of record a probe may ask for, with their numbers (RFC 1035, RFC 3596).
    DnsRecord {
        "A" => A = 1, "AAAA" => Aaaa = 28, "NS" => Ns = 2, "CNAME" => Cname = 5, "SOA" => Soa = 6, "PTR" => Ptr = 12,
        "MX" => Mx = 15, "TXT" => Txt = 16, "SRV" => Srv = 33,
    }
}
