//! Where a pool's backends come from when the configuration does not list them all. Who looks, and when, is not known here,
//! nor how what was found is put among those listed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::fault::{Code, Fault, quote};
use super::keys::backend::{Asked, Backend};
use super::value::text_value;
use crate::border::written as address;

/// Of a pool that has more than those listed.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// Those that the configuration itself has.
    pub listed: Vec<Backend>,
    /// In the order of the file.
    pub finders: Vec<Finder>,
}

/// One origin of backends, and what is said of all that come from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finder {
    pub origin: Origin,
    /// Listed backends in front of those it finds.
    pub after: usize,
    /// Of what has none of its own; `None`: the one the client dialled.
    pub port: Option<u16>,
    pub weight: u32,
    pub tier: u32,
    pub max_sessions: Option<u32>,
    /// `None` = auto: as long as the answer says.
    pub refresh: Option<Duration>,
    /// What a file held when the configuration was read.
    pub read: Option<Arc<Answer>>,
}

/// What is looked at, whichever pools it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    Dns(Question),
    File(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    pub name: String,
    pub record: Asked,
    /// Empty: whom the system names.
    pub servers: Vec<SocketAddr>,
}

/// What an origin holds. What has no order is sorted, so that the same in another order is the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    Backends(Vec<Backend>),
    Services(Vec<Service>),
}

/// What an SRV record stands for, in our terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    pub tier: u32,
    pub address: SocketAddr,
    pub weight: u32,
}

text_value!(
    /// A DNS server; without a port it is that of DNS.
    struct DnsServer(SocketAddr),
    "an address such as `10.0.0.53`",
    [json!({ "type": "string", "pattern": "^[0-9a-fA-F.:\\[\\]]+(%.+)?$" })],
    |text, at| {
        address::server(text, 53).ok_or_else(|| {
            let message = format!("{} is not the address of a DNS server", quote(text));
            let hint = "write `10.0.0.53`, `10.0.0.53:5353` or `[2001:db8::53]:53`";
            Fault::error(Code::BadAddress, at, message, hint)
        })
    },
    |it| it.to_string().into(),
);

/// The last that each origin held.
pub type Answers = HashMap<Origin, Arc<Answer>>;

impl Default for Finder {
    fn default() -> Self {
        let Backend { weight, tier, max_sessions, .. } = Backend::default();
        let origin = Origin::File(PathBuf::new());
        Finder {
            origin,
            after: 0,
            port: None,
            weight,
            tier,
            max_sessions,
            refresh: None,
            read: None,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Dns(question) => f.write_str(&question.name),
            Origin::File(path) => path.display().fmt(f),
        }
    }
}
