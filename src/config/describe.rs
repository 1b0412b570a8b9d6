//! A whole configuration in the file's own grammar, with every default said: what `show config` shows, and what two
//! configurations are compared by. Most of it comes from the keys' declarations; here is what a check made of several
//! keys. A test reads it again and finds the same configuration.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::decode::Key;
use super::discovery::{DnsServer, Finder, Origin, Question};
use super::keys::{
    Admin, Asked, Backend, Balance, HashKey, Listener, Log, Pool, ProbeTls, Process, Route,
};
use super::net::{Net, NetFile};
use super::protocol::Protocol;
use super::scalar::{DAY, OrAuto, Time};
use super::value::ProxyVersion;
use super::whole::Config;
use crate::border::dns_name::NamePattern;
use crate::data::tls::protocols;

/// Keys stand in alphabetical order, but for listeners and pools, whose order means nothing.
pub fn describe(config: &Config) -> Value {
    let listeners = config.listeners.iter().map(|it| (it.name.to_string(), listener(it)));
    let pools = config.pools.iter().map(|it| (it.name.to_string(), pool(it)));
    json!({
        "version": 1,
        "process": process(&config.process),
        // The token is not shown, nor where it came from.
        "admin": Admin::describe(&config.admin, None),
        "log": Log::describe(&config.log, None),
        "listeners": Map::from_iter(listeners),
        "pools": Map::from_iter(pools),
    })
}

/// Without what probes send, which may hold a password: for log, API and everybody who reads them.
pub fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                if (key == "send" || key == "password") && *value != "none" {
                    *value = "(not shown)".into();
                }
                hide_secrets(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide_secrets),
        _ => {}
    }
}

fn process(process: &Process) -> Value {
    let mut keys = Process::describe(process, None);
    keys["user"] = none(process.user.as_ref().map(|user| user.name.as_str()));
    keys["group"] = none(process.group);
    keys
}

pub(super) fn listener(listener: &Listener) -> Value {
    let own = |all: &[IpNet], file: &Option<NetFile>| {
        let written = file.as_ref().map_or(all.len(), |file| file.written.min(all.len()));
        texts::<Net>(&all[..written])
    };
    let file =
        |file: &Option<NetFile>| none(file.as_ref().map(|file| file.path.display().to_string()));
    let mut keys = Listener::describe(listener, Some(listener.protocol));
    keys["bind"] = listener.bind.iter().map(ToString::to_string).collect();
    keys["allow"] = own(&listener.allow, &listener.allow_file).into();
    keys["allow_file"] = file(&listener.allow_file);
    keys["deny"] = own(&listener.deny, &listener.deny_file).into();
    keys["deny_file"] = file(&listener.deny_file);
    if listener.protocol == Protocol::Tcp {
        keys["tls"] = none(listener.tls.as_ref().map(|tls| tls.describe()));
    }
    if let Some(own) = &listener.proxy_protocol {
        let unix = own.trusted.unix.then(|| "unix".to_owned());
        let trusted: Vec<String> =
            texts::<Net>(&own.trusted.nets).into_iter().chain(unix).collect();
        keys["proxy_protocol"]["trusted"] = trusted.into();
    }
    keys
}

/// A route in one line: what has to hold, and where it leads.
pub fn route_in_words(route: &Route) -> String {
    let list = |what: &str, items: Vec<String>| {
        (!items.is_empty()).then(|| format!("{what}{}", items.join(", ")))
    };
    let parts = [
        list("", texts::<NamePattern>(&route.server_name)),
        list("ALPN ", protocols(&route.alpn)),
        list("from ", texts::<Net>(&route.client)),
        route.port.map(|port| format!("port {port}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = if parts.is_empty() { "everyone".to_owned() } else { parts.join(" and ") };
    format!("{what} → {}", route.pool.as_deref().unwrap_or("closed"))
}

pub(super) fn pool(pool: &Pool) -> Value {
    let mut keys = Pool::describe(pool, None);
    keys["backends"] = listed(pool).into();
    keys["discovery"] = none(pool.finders().iter().find(|it| !is_backend(it)).map(finder));
    keys["send_proxy_protocol"] = match pool.send_proxy_protocol {
        None => "none".into(),
        Some(ProxyVersion::V1) => "v1".into(),
        Some(ProxyVersion::V2) => "v2".into(),
    };
    let tlvs = &pool.send_proxy_tlvs;
    let named = [("authority", tlvs.authority), ("alpn", tlvs.alpn), ("crc32c", tlvs.crc32c)];
    keys["send_proxy_tlvs"] =
        named.into_iter().filter_map(|(name, is_sent)| is_sent.then_some(name)).collect();
    keys["tls"] = none(pool.tls.as_ref().map(|tls| tls.describe()));
    keys["health"]["tls"] = match &pool.health.tls {
        ProbeTls::Same => "same".into(),
        ProbeTls::None => "none".into(),
        ProbeTls::Own(tls) => tls.describe(),
    };
    if pool.balance == Balance::IpHash {
        keys["hash"]["key"] = HashKey::ClientIp.as_str().into();
    }
    keys
}

/// Those that the configuration has, in its order; what was found is no part of it.
fn listed(pool: &Pool) -> Vec<Value> {
    let Some(discovery) = &pool.discovery else {
        return pool.backends.iter().map(backend).collect();
    };
    let mut rows: Vec<Value> = discovery.listed.iter().map(backend).collect();
    // From the last on, so that places before stay as they are.
    for finder in discovery.finders.iter().rev().filter(|it| is_backend(it)) {
        let Origin::Dns(question) = &finder.origin else { continue };
        let port = finder.port.map_or_else(String::new, |port| format!(":{port}"));
        let Finder { weight, tier, max_sessions, .. } = *finder;
        let terms = Backend { weight, tier, max_sessions, ..Backend::default() };
        let mut row = Backend::describe(&terms, None);
        row["address"] = format!("{}{port}", question.name).into();
        rows.insert(finder.after.min(rows.len()), row);
    }
    rows
}

/// Whether a host name among the backends says the same.
fn is_backend(finder: &Finder) -> bool {
    let is_plain = |it: &Question| it.record == Asked::Address && it.servers.is_empty();
    matches!(&finder.origin, Origin::Dns(question) if is_plain(question))
        && finder.refresh.is_none()
}

fn finder(finder: &Finder) -> Value {
    let question = match &finder.origin {
        Origin::File(path) => return json!({ "file": { "path": path.display().to_string() } }),
        Origin::Dns(question) => question,
    };
    let mut keys = json!({
        "name": question.name,
        "type": question.record.as_str(),
        "refresh": OrAuto::<Time<0, DAY>>::describe(&finder.refresh, None),
        "servers": texts::<DnsServer>(&question.servers),
    });
    // Services bring their own.
    if let Some(port) = finder.port {
        keys["port"] = port.into();
    }
    json!({ "dns": keys })
}

pub(super) fn backend(backend: &Backend) -> Value {
    let mut keys = Backend::describe(backend, None);
    let address = backend.address.to_string();
    // An address is no name that one could write.
    if *backend.name != *address {
        keys["name"] = (&*backend.name).into();
    }
    keys["address"] = address.into();
    keys
}

/// Values that are written as texts.
fn texts<K: Key>(values: &[K::Settled]) -> Vec<String> {
    let text = |value| match K::describe(value, None) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    values.iter().map(text).collect()
}

fn none(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| "none".into(), Into::into)
}
