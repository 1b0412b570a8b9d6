//! Where a pool's backends come from when the configuration does not list them all, and how what was found is put among
//! those listed. Who looks, and when, is not known here.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::fault::{Code, Fault, quote};
use super::keys::backend::{Asked, Backend, Balance};
use super::value::text_value;
use crate::border::addr::{BackendAddr, ZonedIp, canonical};
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
    json!({ "type": "string", "pattern": "^[0-9a-fA-F.:\\[\\]]+(%.+)?$" }),
    |text, at| {
        address::server(text, 53).ok_or_else(|| {
            let message = format!("{} is not the address of a DNS server", quote(text));
            Fault::error(Code::BadAddress, at, message)
                .hint("write `10.0.0.53`, `10.0.0.53:5353` or `[2001:db8::53]:53`")
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

const TWICE: &str = "is there already";
const CIRCULAR: &str = "is the listener that it is to serve";

/// The backends of a pool, and what was left out of them.
#[derive(Debug, Default, PartialEq)]
pub struct Composed {
    pub backends: Vec<Backend>,
    /// Found, but of no use: the first, why, and how many there are.
    pub left_out: Option<(String, &'static str, usize)>,
}

impl Discovery {
    /// Whatever is listed stays; of what was found twice the first. `instead`: what serves for an origin without an answer.
    /// `is_own`: whether it is a listener of this pool.
    pub fn compose(
        &self,
        balance: Balance,
        answers: &Answers,
        instead: impl Fn(&Origin) -> Vec<Backend>,
        is_own: impl Fn(&BackendAddr) -> bool,
    ) -> Composed {
        let mut names: HashSet<Arc<str>> = HashSet::new();
        let mut addresses: HashSet<BackendAddr> = HashSet::new();
        for backend in &self.listed {
            names.insert(Arc::clone(&backend.name));
            addresses.insert(backend.address.clone());
        }
        let mut composed = Composed::default();
        let mut listed = self.listed.iter().cloned();
        let mut taken = 0;
        for finder in &self.finders {
            composed.backends.extend(listed.by_ref().take(finder.after.saturating_sub(taken)));
            taken = taken.max(finder.after);
            let answer = answers.get(&finder.origin);
            let found = match answer {
                Some(answer) => finder.backends(answer, balance),
                None => instead(&finder.origin),
            };
            for backend in found {
                let is_known =
                    names.contains(&backend.name) || addresses.contains(&backend.address);
                if is_known || is_own(&backend.address) {
                    if answer.is_none() {
                        // It was there before, or stands in for several.
                        continue;
                    }
                    let why = if is_known { TWICE } else { CIRCULAR };
                    let first = || (backend.address.to_string(), why, 0);
                    composed.left_out.get_or_insert_with(first).2 += 1;
                    continue;
                }
                names.insert(Arc::clone(&backend.name));
                addresses.insert(backend.address.clone());
                composed.backends.push(backend);
            }
        }
        composed.backends.extend(listed);
        composed
    }
}

impl Finder {
    pub fn backends(&self, answer: &Answer, balance: Balance) -> Vec<Backend> {
        match answer {
            Answer::Addresses(ips) => ips.iter().map(|ip| self.at(*ip)).collect(),
            Answer::Services(services) => services.iter().map(Service::backend).collect(),
            Answer::Backends(backends) => {
                let mut backends = backends.clone();
                // Where the order of the file means nothing, it is to change nothing.
                if balance != Balance::FirstAvailable {
                    backends.sort_by(|a, b| a.address.cmp(&b.address));
                }
                backends
            }
        }
    }

    fn at(&self, ip: IpAddr) -> Backend {
        let address = match self.port {
            Some(port) => BackendAddr::Inet(ZonedIp::from(ip).at(port)),
            None => BackendAddr::InetClientPort(ip.into()),
        };
        let name = address.to_string().into();
        let Finder { weight, tier, max_sessions, .. } = *self;
        Backend { name, address, weight, tier, max_sessions }
    }
}

impl Service {
    fn backend(&self) -> Backend {
        let address = BackendAddr::Inet(canonical(self.address));
        let name = address.to_string().into();
        Backend { name, address, weight: self.weight, tier: self.tier, ..Backend::default() }
    }
}
