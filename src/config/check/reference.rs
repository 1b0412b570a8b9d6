//! Listeners name pools: each name must exist, and a pool nobody names is worth a word.

use std::collections::{HashMap, HashSet};

use super::circles;
use crate::border::addr::BackendAddr;
use crate::config::Protocol;
use crate::config::decode::Placed;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::nearest::nearest;
use crate::config::raw;
use crate::config::tree::Span;

pub(super) type NamedListener = (Placed<String>, Option<raw::Listener>);
pub(super) type NamedPool = (Placed<String>, Option<raw::Pool>);

/// A guess looks at every pool.
const MAX_GUESSES: usize = 100;

/// Where a listener of each protocol names a pool: the first of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users {
    pub tcp: Option<Span>,
    pub udp: Option<Span>,
}

/// The pools that a listener uses, by name.
pub fn check<'a>(
    listeners: &'a [NamedListener],
    pools: &'a [NamedPool],
    faults: &mut Faults,
) -> HashMap<&'a str, Users> {
    let known: HashSet<&str> = pools.iter().map(|(name, _)| name.value.as_str()).collect();
    let mut used: HashMap<&str, Users> = HashMap::new();
    for (_, listener) in listeners {
        let Some(listener) = listener else { continue };
        listener.pool.require(
            "pool",
            listener.span,
            "name the pool that serves this listener; `pool: none` closes every session",
            faults,
        );
        let of_routes = listener.routes.value().into_iter().flatten().map(|route| &route.pool);
        for reference in std::iter::once(&listener.pool).chain(of_routes) {
            let Some(reference) = reference.given() else { continue };
            let Some(name) = &reference.value.0 else { continue };
            if !known.contains(name.as_str()) {
                faults.push(unknown(name, reference.span, &known, pools, faults.count()));
                continue;
            }
            let users = used.entry(name.as_str()).or_default();
            let of_protocol = match listener.protocol.copied().unwrap_or_default() {
                Protocol::Tcp => &mut users.tcp,
                Protocol::Udp => &mut users.udp,
            };
            of_protocol.get_or_insert(reference.span);
            check_ports(listener, name, pools, faults);
        }
    }
    circles::check(listeners, pools, faults);
    for (name, pool) in pools {
        if let (Some(pool), Some(users)) = (pool, used.get(name.value.as_str())) {
            check_unix(pool, *users, faults);
        }
        if pool.is_some() && !used.contains_key(name.value.as_str()) {
            let message = format!("no listener uses the pool {}", quote(&name.value));
            faults.push(
                Fault::warning(Code::WithoutEffect, name.span, message).hint(format!(
                    "write `pool: {}` in a listener, or remove the pool",
                    name.value
                )),
            );
        }
    }
    used
}

fn unknown(
    name: &str,
    at: Span,
    known: &HashSet<&str>,
    pools: &[NamedPool],
    faults_so_far: usize,
) -> Fault {
    // Whoever sees so many of these faults needs no guess for each.
    let few = faults_so_far < MAX_GUESSES;
    let guess = if few { nearest(name, known.iter().copied()) } else { None };
    let hint = match guess {
        Some(near) => format!("did you mean {}?", quote(near)),
        None if pools.is_empty() => {
            format!("define it: `pools: {{{name}: {{backends: [\"10.0.0.11:5432\"]}}}}`")
        }
        None => format!("the pools are: {}", some_of(pools)),
    };
    let message = format!("there is no pool {}", quote(name));
    Fault::error(Code::UnknownPool, at, message).hint(hint)
}

/// A backend without a port takes the one the client dialled, and a unix socket has none.
fn check_ports(listener: &raw::Listener, pool: &str, pools: &[NamedPool], faults: &mut Faults) {
    let binds = listener.bind.value().map_or(&[][..], |bind| &bind.0);
    let unix = binds.iter().find(|bind| bind.value.0.is_unix());
    let Some(unix) = unix else { return };
    let pool = pools.iter().find(|(name, _)| name.value == pool);
    let Some((_, Some(pool))) = pool else { return };
    for backend in pool.backends.value().into_iter().flatten() {
        let Some(address) = backend.mapping.address.given() else { continue };
        if let Some(host) = address.value.without_port() {
            let host = quote(&host);
            let message =
                format!("the backend {host} has no port, and a client of a unix socket dials none");
            faults.push(
                Fault::error(Code::NoPort, address.span, message)
                    .also(unix.span, "this listener uses the pool")
                    .hint("give the backend a port"),
            );
        }
    }
}

/// There are datagrams on unix sockets, but no client of ours sends any.
fn check_unix(pool: &raw::Pool, users: Users, faults: &mut Faults) {
    let Some(listener) = users.udp else { return };
    for backend in pool.backends.value().into_iter().flatten() {
        let Some(address) = backend.mapping.address.given() else { continue };
        if matches!(address.value.at(), Some(BackendAddr::Unix(_))) {
            let message = "a backend of a UDP listener cannot be a unix socket";
            faults.push(
                Fault::error(Code::OtherProtocol, address.span, message)
                    .also(listener, "a UDP listener uses this pool")
                    .hint("write an address and a port, or give the listener another pool"),
            );
        }
    }
}

fn some_of(pools: &[NamedPool]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = pools.iter().take(SHOWN).map(|(name, _)| name.value.as_str()).collect();
    let more = if pools.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}
