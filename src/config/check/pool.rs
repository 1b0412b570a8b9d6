//! One pool: defaults filled in, and the checks within it.

use std::collections::HashMap;
use std::sync::Arc;

use super::discovery::{self, Names};
use super::reference::Users;
use super::{health, send_proxy, tls};
use crate::border::addr::BackendAddr;
use crate::config::decode::{Field, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::load::NetFiles;
use crate::config::raw;
use crate::config::scalar::OrNone;
use crate::config::tree::Span;
use crate::config::value::BackendAddress;
use crate::config::{
    Backend, Balance, Connect, Discovery, Hash, HashKey, Hold, OnDown, OnDownReasons, Passive,
    Pool, WhenFull, WhenNoneUp,
};

pub fn build(
    name: &str,
    raw: &raw::Pool,
    users: Users,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Pool {
    let default = Pool::default();
    let (backends, discovery) = backends(raw, files, faults);
    check_source(raw, faults);
    let balance = raw.balance.copied().unwrap_or(default.balance);
    warn_of_idle_hash(raw, balance, faults);
    warn_of_idle_hold(raw, users, faults);
    let health = health::build(raw, users, default.health, faults);
    Pool {
        name: name.into(),
        balance,
        hash: hash(raw.hash.value(), default.hash),
        backends,
        discovery,
        spill: raw.spill.copied().map_or(default.spill, |switch| switch.0),
        connect: connect(raw.connect.value(), default.connect),
        source: raw.source.value().into_iter().flatten().map(|source| source.value.0).collect(),
        source_ports: raw.source_ports.copied().unwrap_or(default.source_ports),
        send_proxy_protocol: send_proxy::build(raw, users, faults),
        send_proxy_tlvs: send_proxy::tlvs(raw, faults),
        send_proxy_datagrams: raw
            .send_proxy_datagrams
            .copied()
            .unwrap_or(default.send_proxy_datagrams),
        tls: tls::client(raw, users, files, faults),
        health,
        passive: match raw.passive.value() {
            None => default.passive,
            Some(OrNone(None)) => None,
            Some(OrNone(Some(own))) => default.passive.map(|default| passive(own, default)),
        },
        slow_start: raw
            .slow_start
            .copied()
            .map_or(default.slow_start, |none| none.0.map(|time| time.0)),
        on_down: raw.on_down.value().map_or(default.on_down, on_down),
        on_down_reasons: raw
            .on_down_reasons
            .value()
            .map_or(default.on_down_reasons, on_down_reasons),
        when_none_up: match raw.when_none_up.value() {
            None => default.when_none_up,
            Some(raw::WhenNoneUp::Refuse) => WhenNoneUp::Refuse,
            Some(raw::WhenNoneUp::TryAll) => WhenNoneUp::TryAll,
            Some(raw::WhenNoneUp::Hold(own)) => {
                hold(own, faults).map_or(default.when_none_up, WhenNoneUp::Hold)
            }
        },
        when_full: match raw.when_full.value() {
            None => default.when_full,
            Some(raw::WhenFull::Refuse) => WhenFull::Refuse,
            Some(raw::WhenFull::Hold(own)) => {
                hold(own, faults).map_or(default.when_full, WhenFull::Hold)
            }
        },
        backend_user_timeout: raw
            .timeouts
            .value()
            .and_then(|timeouts| timeouts.backend_user_timeout.copied())
            .map_or(default.backend_user_timeout, |none| none.0.map(|time| time.0)),
    }
}

/// Whoever chose a key wants it to matter; the default stands in every complete file.
fn warn_of_idle_hash(raw: &raw::Pool, balance: Balance, faults: &mut Faults) {
    let Some(key) = raw.hash.value().and_then(|hash| hash.key.given()) else { return };
    if balance != Balance::ConsistentHash && key.value != HashKey::default() {
        let message = "`hash.key` matters only with `balance: consistent_hash`";
        let fault = Fault::warning(Code::WithoutEffect, key.span, message);
        faults.push(fault.hint("write `balance: consistent_hash`, or leave the key out"));
    }
}

/// A datagram waits for nobody: by the time a backend is up, its client has sent another or given up.
fn warn_of_idle_hold(raw: &raw::Pool, users: Users, faults: &mut Faults) {
    let (Some(udp), None) = (users.udp, users.tcp) else { return };
    let none_up = raw.when_none_up.given();
    let full = raw.when_full.given();
    let holds = [
        none_up.filter(|it| matches!(it.value, raw::WhenNoneUp::Hold(_))).map(|it| it.span),
        full.filter(|it| matches!(it.value, raw::WhenFull::Hold(_))).map(|it| it.span),
    ];
    for span in holds.into_iter().flatten() {
        let message = "`hold` matters only to TCP listeners, and none uses this pool";
        let fault = Fault::warning(Code::WithoutEffect, span, message);
        faults.push(
            fault
                .also(udp, "a UDP listener does")
                .hint("write `refuse`, or leave the key out: datagrams are dropped meanwhile"),
        );
    }
}

fn backends(
    raw: &raw::Pool,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> (Vec<Backend>, Option<Arc<Discovery>>) {
    let is_listed = matches!(raw.discovery.value(), None | Some(raw::Discovery::None));
    if is_listed && !matches!(raw.discovery, Field::Faulty) {
        let hint = "list them, as in `backends: [\"10.0.0.11:5432\"]`";
        raw.backends.require("backends", raw.span, hint, faults);
    }
    let given = raw.backends.given();
    let (listed, names) = given.map_or_else(Default::default, |given| listed(&given.value, faults));
    let discovery = discovery::build(raw, &listed, names.finders, files, faults);
    if given.is_some() && discovery.is_none() && listed.iter().all(|it| it.weight == 0) {
        let message = match listed.as_slice() {
            [] => "this pool has no backend: it can serve nobody",
            _ => "every backend of this pool has weight 0: it can serve nobody",
        };
        faults.push(Fault::warning(Code::NothingToDo, raw.span, message));
    }
    let Some(discovery) = discovery else { return (listed, None) };
    // Only files have been looked at.
    let read = discovery.finders.iter();
    let read = read.filter_map(|it| Some((it.origin.clone(), Arc::clone(it.read.as_ref()?))));
    let balance = raw.balance.copied().unwrap_or_default();
    (discovery.compose(balance, &read.collect(), &[], |_| false).backends, Some(discovery))
}

/// Those with an address, and the host names among them.
pub fn listed(given: &[raw::Backend], faults: &mut Faults) -> (Vec<Backend>, Names) {
    let mut names: HashMap<Arc<str>, Span> = HashMap::with_capacity(given.len());
    let mut addresses: HashMap<BackendAddr, Span> = HashMap::with_capacity(given.len());
    let mut hosts = Names::default();
    let mut built = Vec::with_capacity(given.len());
    for backend in given {
        let raw = &backend.mapping;
        let hint = "write where it is: `address: \"10.0.0.11:5432\"`";
        raw.address.require("address", backend.span, hint, faults);
        let Some(address) = raw.address.given() else { continue };
        let at = match &address.value {
            BackendAddress::At(at) => at.clone(),
            BackendAddress::Named(host) => {
                hosts.add(host, address.span, raw, built.len(), faults);
                continue;
            }
        };
        let name: Arc<str> = match raw.name.value() {
            Some(name) => name.0.as_str().into(),
            None => at.to_string().into(),
        };
        let name_span = raw.name.span().unwrap_or(address.span);
        let backend = Backend { name, address: at, ..terms(raw) };
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

/// What is said of a backend besides name and address.
pub fn terms(raw: &raw::BackendMapping) -> Backend {
    let default = Backend::default();
    Backend {
        weight: raw.weight.copied().map_or(default.weight, |count| count.as_u32()),
        tier: raw.tier.copied().map_or(default.tier, |count| count.as_u32()),
        max_sessions: raw
            .max_sessions
            .copied()
            .map_or(default.max_sessions, |none| none.0.map(|count| count.as_u32())),
        ..default
    }
}

pub fn backend_twice(message: String, second: Span, first: Span) -> Fault {
    Fault::error(Code::BackendTwice, second, message)
        .also(first, "the first is here")
        .hint("remove one; for a larger share give a backend more `weight`")
}

/// A source of one family cannot reach a backend of the other.
fn check_source(raw: &raw::Pool, faults: &mut Faults) {
    let (Some(sources), Some(backends)) = (raw.source.given(), raw.backends.value()) else {
        return;
    };
    if sources.value.is_empty() {
        return;
    }
    let families: Vec<bool> = backends
        .iter()
        .filter_map(|backend| Some(backend.mapping.address.value()?.at()?.ip()?.is_ipv4()))
        .collect();
    let fits = |source: &Placed<_>| {
        let crate::config::value::SourceAddress(ip) = source.value;
        families.contains(&ip.is_ipv4())
    };
    if !families.is_empty() && !sources.value.iter().any(fits) {
        let (own, wanted) = if families[0] { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        let message = format!("every source is {own}, and every backend of this pool is {wanted}");
        let fault = Fault::error(Code::SourceFamily, sources.value[0].span, message);
        faults.push(
            fault.hint(format!("add an {wanted} address of this machine, or leave `source` out")),
        );
    }
}

fn hash(raw: Option<&raw::Hash>, default: Hash) -> Hash {
    let Some(raw) = raw else { return default };
    Hash {
        key: raw.key.copied().unwrap_or(default.key),
        table_size: raw.table_size.copied().map_or(default.table_size, |size| size.0),
        bounded_load: raw
            .bounded_load
            .copied()
            .map_or(default.bounded_load, |none| none.0.map(|share| share.as_u32())),
    }
}

fn connect(raw: Option<&raw::Connect>, default: Connect) -> Connect {
    let Some(raw) = raw else { return default };
    Connect {
        timeout: raw.timeout.copied().map_or(default.timeout, |time| time.0),
        attempts: raw.attempts.copied().map_or(default.attempts, |count| count.as_u32()),
    }
}

fn on_down(raw: &raw::OnDown) -> OnDown {
    match raw {
        raw::OnDown::Auto => OnDown::Auto,
        raw::OnDown::Drain(time) => OnDown::Drain(time.0),
        raw::OnDown::Keep => OnDown::Keep,
        raw::OnDown::Reset => OnDown::Reset,
    }
}

fn on_down_reasons(raw: &raw::OnDownReasons) -> OnDownReasons {
    let of = |field: &Field<raw::OnDown>| field.value().map(on_down);
    OnDownReasons {
        by_hand: of(&raw.by_hand),
        dead: of(&raw.dead),
        removed: of(&raw.removed),
        wrong_role: of(&raw.wrong_role),
    }
}

fn passive(raw: &raw::Passive, default: Passive) -> Passive {
    Passive {
        failures: raw.failures.copied().map_or(default.failures, |count| count.as_u32()),
        window: raw.window.copied().map_or(default.window, |time| time.0),
        eject_for: raw.eject_for.copied().map_or(default.eject_for, |time| time.0),
        max_ejected: raw.max_ejected.copied().map_or(default.max_ejected, |share| share.as_u32()),
    }
}

fn hold(raw: &raw::Hold, faults: &mut Faults) -> Option<Hold> {
    let hint = "give both, as in `{hold: {for: 10s, max: 1000}}`";
    raw.r#for.require("for", raw.span, hint, faults);
    raw.max.require("max", raw.span, hint, faults);
    Some(Hold { time: raw.r#for.copied()?.0, max: raw.max.copied()?.as_u32() })
}
