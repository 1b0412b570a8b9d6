//! Listeners name pools: each name must exist, and a pool nobody names is worth a word.

use std::collections::{HashMap, HashSet};

use crate::border::addr::BackendAddr;
use crate::border::nearest::nearest;
use crate::border::written::BackendAddress;
use crate::config::decode::{Given, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::{Listener, Pool, RelayMode};
use crate::config::protocol::Protocol;
use crate::config::tree::Span;

pub(super) type NamedListener = (Placed<String>, Option<Given<Listener>>);
pub(super) type NamedPool = (Placed<String>, Option<Given<Pool>>);

/// A guess looks at every pool.
const MAX_GUESSES: usize = 100;

/// Where a listener of each protocol names a pool: the first of each.
#[derive(Clone, Copy, Debug, Default)]
pub struct Users {
    pub tcp: Option<Span>,
    pub udp: Option<Span>,
    /// Where the first TCP listener among them says `relay: splice`.
    pub splice: Option<Span>,
}

/// Once `defaults` are merged.
pub fn protocol(listener: &Given<Listener>) -> Protocol {
    listener.protocol.value().copied().unwrap_or(Protocol::Tcp)
}

/// Where the listed backends of a pool are.
pub fn addresses(pool: &Given<Pool>) -> impl Iterator<Item = &Placed<BackendAddress>> {
    pool.backends.items().iter().filter_map(|backend| backend.value.address.given())
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
        let of_routes = listener.routes.items().iter().map(|route| &route.value.pool);
        for reference in std::iter::once(&listener.pool).chain(of_routes) {
            let Some(reference) = reference.given() else { continue };
            let Some(name) = reference.value.as_deref() else { continue };
            if !known.contains(name) {
                faults.push(unknown(name, reference.span, &known, pools, faults.count()));
                continue;
            }
            let users = used.entry(name).or_default();
            let of_protocol = match protocol(listener) {
                Protocol::Tcp => &mut users.tcp,
                Protocol::Udp => &mut users.udp,
            };
            of_protocol.get_or_insert(reference.span);
            if listener.relay.value() == Some(&RelayMode::Splice) {
                users.splice = users.splice.or(listener.relay.span());
            }
            check_ports(listener, name, pools, faults);
        }
    }
    for (name, pool) in pools {
        if let (Some(pool), Some(users)) = (pool, used.get(name.value.as_str())) {
            check_unix(pool, *users, faults);
        }
        if pool.is_some() && !used.contains_key(name.value.as_str()) {
            let message = format!("no listener uses the pool {}", quote(&name.value));
            let hint = format!("write `pool: {}` in a listener, or remove the pool", name.value);
            faults.warning(Code::WithoutEffect, name.span, message, hint);
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
    Fault::error(Code::UnknownPool, at, message, hint)
}

/// A backend without a port takes the one the client dialled, and a unix socket has none.
fn check_ports(listener: &Given<Listener>, pool: &str, pools: &[NamedPool], faults: &mut Faults) {
    let unix = listener.bind.items().iter().find(|bind| bind.value.is_unix());
    let Some(unix) = unix else { return };
    let pool = pools.iter().find(|(name, _)| name.value == pool);
    let Some((_, Some(pool))) = pool else { return };
    for address in addresses(pool) {
        if let Some(host) = address.value.without_port() {
            let host = quote(&host);
            let message =
                format!("the backend {host} has no port, and a client of a unix socket dials none");
            let fault =
                Fault::error(Code::NoPort, address.span, message, "give the backend a port");
            faults.push(fault.also(unix.span, "this listener uses the pool"));
        }
    }
}

/// There are datagrams on unix sockets, but no client of ours sends any.
fn check_unix(pool: &Given<Pool>, users: Users, faults: &mut Faults) {
    let Some(listener) = users.udp else { return };
    for address in addresses(pool) {
        if matches!(address.value.at(), Some(BackendAddr::Unix(_))) {
            let message = "a backend of a UDP listener cannot be a unix socket";
            let hint = "write an address and a port, or give the listener another pool";
            let fault = Fault::error(Code::OtherProtocol, address.span, message, hint);
            faults.push(fault.also(listener, "a UDP listener uses this pool"));
        }
    }
}

fn some_of(pools: &[NamedPool]) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = pools.iter().take(SHOWN).map(|(name, _)| name.value.as_str()).collect();
    let more = if pools.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", names.join(", "))
}
