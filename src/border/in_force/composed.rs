//! How what was found is put among the backends that a pool lists.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::border::addr::{BackendAddr, ZonedIp, canonical};
use crate::config::{Answer, Answers, Backend, Balance, Discovery, Finder, Origin, Service};

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
