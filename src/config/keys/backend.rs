//! The keys of a backend, and words that say how one is found and picked.

use std::sync::Arc;

use crate::border::addr::BackendAddr;
use crate::border::written::BackendAddress;
use crate::config::choice::words;
use crate::config::mapping::mapping;
use crate::config::scalar::{Count, OrNone};
use crate::config::value::Name;

mapping! {
    /// One backend.
    Backend short address: BackendAddress {
        /// `"10.0.0.11:5432"`; without a port: the port the client dialled; `"unix:/path"`; `"db.internal:5432"`: every address
        /// of that name, each with weight and tier from here.
        address: BackendAddress [hand BackendAddr = BackendAddr::Unix("".into())] [required "10.0.0.11:5432", "write where it is: `address: \"10.0.0.11:5432\"`"];
        /// What it is called everywhere.
        name: Name [hand Arc<str>] [absent "its address", "db2"];
        /// Its share of new sessions; 0: none.
        weight: Count<0, 256, u32> = "1";
        /// Lower tiers serve first.
        tier: Count<0, 255, u32> = "0";
        /// Sessions on it at once.
        max_sessions: OrNone<Count<1, 100_000_000, u32>> = "none";
    }
}

words! {
    /// How a backend is picked.
    Balance {
        "round_robin" => RoundRobin,
        "least_connections" => LeastConnections,
        "two_choices" => TwoChoices,
        "random" => Random,
        "consistent_hash" => ConsistentHash,
        "ip_hash" => IpHash,
        "least_latency" => LeastLatency,
        "first_available" => FirstAvailable,
    }
}

words! {
    /// What a DNS server is asked for.
    Asked {
        /// A and AAAA.
        "address" => Address,
        "srv" => Srv,
    }
}
