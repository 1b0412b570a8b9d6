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
            let shown = quote(&backend.address.to_string());
            faults.push(backend_twice(
                format!("the address {shown} is twice in this pool"),
                address.span,
                first,
            ));
        } else if let Some(first) = names.insert(backend.name.clone(), name_span) {
            let shown = quote(&backend.name);
            faults.push(backend_twice(
                format!("the backend name {shown} is twice in this pool"),
                name_span,
                first,
            ));
        }
        built.push(backend);
    }
    (built, hosts)
}

pub fn backend_twice(message: String, second: Span, first: Span) -> Fault {
    Fault::error(Code::BackendTwice, second, message)
        .also(first, "the first is here")
        .hint("remove one; for a larger share give a backend more `weight`")
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
            let fault = Fault::warning(Code::WithoutEffect, span, message);
            faults.push(fault.hint("leave `name` out"));
        }
        if let Some(first) = self.seen.insert(host.clone(), at) {
            let shown = quote(&host.host);
            faults.push(backend_twice(
                format!("the host {shown} is twice in this pool"),
                at,
                first,
            ));
            return;
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
