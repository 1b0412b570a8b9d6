//! A list of backends: none is there twice, and host names among them are found by DNS.

use std::collections::HashMap;
use std::sync::Arc;

use crate::border::addr::BackendAddr;
use crate::border::written::{BackendAddress, HostPort};
use crate::config::decode::{Given, Key, Placed};
use crate::config::discovery::{Finder, Origin, Question};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::{Asked, Backend};
use crate::config::tree::Span;

/// Those with an address, and the host names among them.
pub fn listed(given: &[Placed<Given<Backend>>], faults: &mut Faults) -> (Vec<Backend>, Names) {
    let mut names: HashMap<Arc<str>, Span> = HashMap::with_capacity(given.len());
    let mut addresses: HashMap<BackendAddr, Span> = HashMap::with_capacity(given.len());
    let mut hosts = Names::default();
    let mut built = Vec::with_capacity(given.len());
    for Placed { value: own, .. } in given {
        let Some(address) = own.address.given() else { continue };
        let terms = Backend::settle(own);
        let at = match &address.value {
            BackendAddress::At(at) => at.clone(),
            BackendAddress::Named(host) => {
                hosts.add(host, address.span, own.name.span(), (terms, built.len()), faults);
                continue;
            }
        };
        let name = own.name.value().map_or_else(|| at.to_string().into(), Arc::clone);
        let name_span = own.name.span().unwrap_or(address.span);
        let backend = Backend { name, address: at, ..terms };
        if let Some(first) = addresses.insert(backend.address.clone(), address.span) {
            let shown = backend.address.to_string();
            faults.push(twice("address", &shown, address.span, first));
        } else if let Some(first) = names.insert(backend.name.clone(), name_span) {
            faults.push(twice("backend name", &backend.name, name_span, first));
        }
        built.push(backend);
    }
    (built, hosts)
}

fn twice(what: &str, name: &str, second: Span, first: Span) -> Fault {
    let message = format!("the {what} {} is twice in this pool", quote(name));
    let hint = "remove one; for a larger share give a backend more `weight`";
    Fault::error(Code::BackendTwice, second, message, hint).also(first, "the first is here")
}

/// Host names among the backends of a pool.
#[derive(Default)]
pub struct Names {
    pub finders: Vec<Finder>,
    seen: HashMap<HostPort, Span>,
}

impl Names {
    /// `name`: where it is called something; `like`: what is said of it besides, and how many listed ones are in front.
    pub fn add(
        &mut self,
        host: &HostPort,
        at: Span,
        name: Option<Span>,
        like: (Backend, usize),
        faults: &mut Faults,
    ) {
        if let Some(span) = name {
            let message =
                "what a host name stands for may be many, and each is called by its address";
            faults.warning(Code::WithoutEffect, span, message, "leave `name` out");
        }
        if let Some(first) = self.seen.insert(host.clone(), at) {
            return faults.push(twice("host", &host.host, at, first));
        }
        let (Backend { weight, tier, max_sessions, .. }, after) = like;
        let question =
            Question { name: host.host.clone(), record: Asked::Address, servers: Vec::new() };
        self.finders.push(Finder {
            origin: Origin::Dns(question),
            after,
            port: host.port,
            weight,
            tier,
            max_sessions,
            ..Finder::default()
        });
    }
}
