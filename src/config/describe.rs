//! A whole configuration in the file's own grammar, with every default said: what `show config` shows, and what two
//! configurations are compared by. A test reads it again and finds the same configuration.

use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::discovery::{Asked, Finder, Origin, Question};
use super::route::{NamePattern, Route};
use super::{
    Admin, AdminSocket, Balance, Config, DenySessions, Hold, LogFormat, LogLevel, OnDown,
    OnDownReasons, OnRefuse, Passive, Pool, Process, Protocol, ProxyDatagrams, ProxyVersion, Rate,
    RelayMode, SessionLog, SourcePorts, WhenFlowsFull, WhenFull, WhenNoneUp,
};
use super::{Listener, Trusted, pool};
use crate::data::tls::protocols;

mod health;

/// Keys stand in alphabetical order, but for listeners and pools, whose order means nothing.
pub fn describe(config: &Config) -> Value {
    let listeners = config.listeners.iter().map(|it| (it.name.to_string(), listener(it)));
    let pools = config.pools.iter().map(|it| (it.name.to_string(), pool_keys(it)));
    json!({
        "version": 1,
        "process": process(&config.process),
        "admin": admin(&config.admin),
        "log": {
            "level": match config.log.level {
                LogLevel::Error => "error",
                LogLevel::Warn => "warn",
                LogLevel::Info => "info",
                LogLevel::Debug => "debug",
                LogLevel::Trace => "trace",
            },
            "format": match config.log.format {
                LogFormat::Auto => "auto",
                LogFormat::Json => "json",
                LogFormat::Text => "text",
            },
            "sessions": match config.log.sessions {
                SessionLog::All => "all",
                SessionLog::Failures => "failures",
                SessionLog::None => "none",
            },
        },
        "listeners": Map::from_iter(listeners),
        "pools": Map::from_iter(pools),
    })
}

/// Without what probes send, which may hold a password: for log, API and everybody who reads them.
pub fn hide_secrets(value: &mut Value) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                if key == "send" && *value != "none" {
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
    let user = process.user.as_ref();
    json!({
        "workers": auto(process.workers),
        "max_sessions": auto(process.max_sessions),
        "watch": process.watch,
        "busy_poll": none(process.busy_poll.map(time)),
        "user": none(user.map(|user| user.name.as_str())),
        "group": none(user.map(|user| user.gid)),
        "shutdown": {
            "delay": time(process.shutdown.delay),
            "timeout": time(process.shutdown.timeout),
        },
    })
}

/// The token is not shown, nor where it came from.
fn admin(admin: &Admin) -> Value {
    json!({
        "listen": none(admin.listen.map(|address| address.to_string())),
        "socket": match &admin.socket {
            AdminSocket::Auto => "auto".into(),
            AdminSocket::None => "none".into(),
            AdminSocket::Path(path) => path.display().to_string(),
        },
    })
}

pub(super) fn listener(listener: &Listener) -> Value {
    let bind = listener.bind.iter().map(ToString::to_string);
    let files = &listener.access_files;
    let own = |all: &[IpNet], file: &Option<super::NetFile>| -> Vec<String> {
        let written = file.as_ref().map_or(all.len(), |file| file.written.min(all.len()));
        nets(&all[..written])
    };
    let file = |file: &Option<super::NetFile>| {
        none(file.as_ref().map(|file| file.path.display().to_string()))
    };
    let mut keys = object(json!({
        "bind": bind.collect::<Vec<_>>(),
        "protocol": listener.protocol.as_str(),
        "pool": none(listener.pool.as_deref()),
        "allow": own(&listener.access.allow, &files.allow),
        "allow_file": file(&files.allow),
        "deny": own(&listener.access.deny, &files.deny),
        "deny_file": file(&files.deny),
        "socket_buffers": match listener.socket_buffers {
            None => "auto".into(),
            Some(it) => json!({ "client": size(it.client), "backend": size(it.backend) }),
        },
    }));
    let of_protocol = match listener.protocol {
        Protocol::Tcp => tcp_keys(listener),
        Protocol::Udp => udp_keys(listener),
    };
    keys.extend(object(of_protocol));
    keys.insert("limits".to_owned(), limits(listener));
    Value::Object(keys)
}

fn limits(listener: &Listener) -> Value {
    let limits = &listener.limits;
    let mut keys = object(json!({
        "sessions": none(listener.max_sessions),
        "sessions_per_client": none(limits.sessions_per_client),
        "rate": none(limits.rate.map(rate)),
        "rate_per_client": none(limits.rate_per_client.map(rate)),
    }));
    keys.extend(object(match listener.protocol {
        Protocol::Tcp => json!({
            "prereads": none(limits.prereads),
            "bandwidth": {
                "to_client": none(limits.bandwidth.to_client.map(size)),
                "to_backend": none(limits.bandwidth.to_backend.map(size)),
            },
        }),
        Protocol::Udp => json!({
            "datagram_rate": none(limits.datagram_rate.map(rate)),
            "datagram_rate_per_client": none(limits.datagram_rate_per_client.map(rate)),
        }),
    }));
    if limits.bandwidth == super::Bandwidth::default() && listener.protocol == Protocol::Tcp {
        keys.insert("bandwidth".to_owned(), "none".into());
    }
    Value::Object(keys)
}

fn tcp_keys(listener: &Listener) -> Value {
    let timeouts = &listener.timeouts;
    let trusted = listener.proxy_protocol.as_ref();
    json!({
        "routes": listener.routes.iter().map(route).collect::<Vec<_>>(),
        "proxy_protocol": none(trusted.map(|it| json!({ "trusted": senders(it) }))),
        "tls": none(listener.tls.as_ref().map(|tls| tls.describe())),
        "preread_size": size(listener.preread_size as u64),
        "deny_sessions": match listener.deny_sessions {
            DenySessions::End => "end",
            DenySessions::Keep => "keep",
        },
        "on_refuse": match listener.on_refuse {
            OnRefuse::Close => "close",
            OnRefuse::Reset => "reset",
        },
        "relay": match listener.relay {
            RelayMode::Auto => "auto",
            RelayMode::Copy => "copy",
            RelayMode::Splice => "splice",
        },
        "timeouts": {
            "preread": time(timeouts.preread),
            "idle": none(timeouts.idle.map(time)),
            "half_closed": none(timeouts.half_closed.map(time)),
            "max_lifetime": none(timeouts.max_lifetime.map(time)),
        },
        "keepalive": none(listener.keepalive.map(|it| json!({
            "idle": time(it.idle), "interval": time(it.interval), "count": it.count,
        }))),
        "backlog": listener.backlog,
    })
}

fn udp_keys(listener: &Listener) -> Value {
    let flow = &listener.flow;
    json!({
        "flow": {
            "timeout": time(flow.timeout),
            "max_flows": auto(flow.max_flows),
            "requests": none(flow.requests),
            "responses": none(flow.responses),
            "when_full": match flow.when_full {
                WhenFlowsFull::EvictIdle => "evict_idle",
                WhenFlowsFull::Shed => "shed",
            },
        },
    })
}

fn route(route: &Route) -> Value {
    json!({
        "server_name": server_names(route),
        "alpn": protocols(&route.alpn),
        "client": nets(&route.client),
        "port": none(route.port),
        "pool": none(route.pool.as_deref()),
    })
}

fn server_names(route: &Route) -> Vec<String> {
    let names = route.server_name.iter().map(|name| match name {
        NamePattern::Any => "*".to_owned(),
        NamePattern::Below(parent) => format!("*.{parent}"),
        NamePattern::Exact(name) => name.clone(),
    });
    names.collect()
}

/// A route in one line: what has to hold, and where it leads.
pub fn route_in_words(route: &Route) -> String {
    let list = |what: &str, items: Vec<String>| {
        (!items.is_empty()).then(|| format!("{what}{}", items.join(", ")))
    };
    let parts = [
        list("", server_names(route)),
        list("ALPN ", protocols(&route.alpn)),
        list("from ", nets(&route.client)),
        route.port.map(|port| format!("port {port}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = if parts.is_empty() { "everyone".to_owned() } else { parts.join(" and ") };
    format!("{what} → {}", route.pool.as_deref().unwrap_or("closed"))
}

pub(super) fn pool_keys(pool: &Pool) -> Value {
    json!({
        "balance": pool.balance.as_str(),
        "hash": hash(pool),
        "backends": listed(pool),
        "discovery": none(pool.finders().iter().find(|it| !is_backend(it)).map(finder)),
        "spill": pool.spill,
        "connect": { "timeout": time(pool.connect.timeout), "attempts": pool.connect.attempts },
        "source": pool.source.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "source_ports": match pool.source_ports {
            SourcePorts::Auto => "auto",
            SourcePorts::Kernel => "kernel",
            SourcePorts::Own => "own",
        },
        "send_proxy_protocol": match pool.send_proxy_protocol {
            None => "none",
            Some(ProxyVersion::V1) => "v1",
            Some(ProxyVersion::V2) => "v2",
        },
        "send_proxy_tlvs": tlvs(pool),
        "send_proxy_datagrams": match pool.send_proxy_datagrams {
            ProxyDatagrams::Every => "every",
            ProxyDatagrams::First => "first",
        },
        "tls": none(pool.tls.as_ref().map(|tls| tls.describe())),
        "health": health::health(&pool.health),
        "passive": none(pool.passive.map(passive)),
        "slow_start": none(pool.slow_start.map(time)),
        "on_down": on_down(pool.on_down),
        "on_down_reasons": on_down_reasons(&pool.on_down_reasons),
        "when_none_up": match pool.when_none_up {
            WhenNoneUp::Hold(it) => hold(it),
            WhenNoneUp::Refuse => "refuse".into(),
            WhenNoneUp::TryAll => "try_all".into(),
        },
        "when_full": match pool.when_full {
            WhenFull::Hold(it) => hold(it),
            WhenFull::Refuse => "refuse".into(),
        },
        "timeouts": { "backend_user_timeout": none(pool.backend_user_timeout.map(time)) },
    })
}

fn on_down(on_down: OnDown) -> Value {
    match on_down {
        OnDown::Auto => "auto".into(),
        OnDown::Drain(length) => json!({ "drain": time(length) }),
        OnDown::Keep => "keep".into(),
        OnDown::Reset => "reset".into(),
    }
}

/// Those given.
fn on_down_reasons(reasons: &OnDownReasons) -> Map<String, Value> {
    let OnDownReasons { by_hand, dead, removed, wrong_role } = *reasons;
    let all =
        [("by_hand", by_hand), ("dead", dead), ("removed", removed), ("wrong_role", wrong_role)];
    all.into_iter().filter_map(|(key, own)| Some((key.to_owned(), on_down(own?)))).collect()
}

fn hash(pool: &Pool) -> Value {
    // Of `ip_hash` the key is given.
    let key = (pool.balance != Balance::IpHash).then_some(match pool.hash.key {
        super::HashKey::ClientAddress => "client_address",
        super::HashKey::ClientIp => "client_ip",
        super::HashKey::ServerName => "server_name",
    });
    json!({
        "key": key.unwrap_or("client_ip"),
        "table_size": pool.hash.table_size,
        "bounded_load": none(pool.hash.bounded_load.map(share)),
    })
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
        let row = json!({
            "address": format!("{}{port}", question.name),
            "weight": finder.weight,
            "tier": finder.tier,
            "max_sessions": none(finder.max_sessions),
        });
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
    match &finder.origin {
        Origin::File(path) => json!({ "file": { "path": path.display().to_string() } }),
        Origin::Dns(question) => {
            let mut keys = object(json!({
                "name": question.name,
                "type": match question.record {
                    Asked::Address => "address",
                    Asked::Srv => "srv",
                },
                "refresh": finder.refresh.map_or_else(|| "auto".to_owned(), time),
                "servers": question.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            }));
            // Services bring their own.
            keys.extend(finder.port.map(|port| ("port".to_owned(), port.into())));
            json!({ "dns": keys })
        }
    }
}

pub(super) fn backend(backend: &pool::Backend) -> Value {
    let address = backend.address.to_string();
    // An address is no name that one could write.
    let name = (*backend.name != *address).then_some(&*backend.name);
    let mut keys = object(json!({
        "address": address,
        "weight": backend.weight,
        "tier": backend.tier,
        "max_sessions": none(backend.max_sessions),
    }));
    keys.extend(name.map(|name| ("name".to_owned(), name.into())));
    Value::Object(keys)
}

fn tlvs(pool: &Pool) -> Vec<&'static str> {
    let tlvs = &pool.send_proxy_tlvs;
    let named = [("authority", tlvs.authority), ("alpn", tlvs.alpn), ("crc32c", tlvs.crc32c)];
    named.into_iter().filter_map(|(name, is_sent)| is_sent.then_some(name)).collect()
}

fn passive(passive: Passive) -> Value {
    json!({
        "failures": passive.failures,
        "window": time(passive.window),
        "eject_for": time(passive.eject_for),
        "max_ejected": share(passive.max_ejected),
    })
}

fn hold(hold: Hold) -> Value {
    json!({ "hold": { "for": time(hold.time), "max": hold.max } })
}

fn rate(rate: Rate) -> Value {
    json!({ "per_second": rate.per_second, "burst": rate.burst })
}

fn senders(trusted: &Trusted) -> Vec<String> {
    let unix = trusted.unix.then(|| "unix".to_owned());
    nets(&trusted.nets).into_iter().chain(unix).collect()
}

fn nets(nets: &[IpNet]) -> Vec<String> {
    nets.iter().map(ToString::to_string).collect()
}

/// A text where it can be one, else hexadecimal.
fn bytes(bytes: &[u8]) -> Value {
    match str::from_utf8(bytes) {
        Ok(text) if text != "none" => text.into(),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

fn none(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| "none".into(), Into::into)
}

fn auto(value: Option<impl Into<Value>>) -> Value {
    value.map_or_else(|| "auto".into(), Into::into)
}

fn share(percent: u32) -> String {
    format!("{percent}%")
}

/// `1h30m`.
fn time(time: Duration) -> String {
    let mut left = time.as_millis();
    let mut text = String::new();
    for (unit, length) in
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]
    {
        if left >= length {
            text += &format!("{}{unit}", left / length);
            left %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// In the largest unit that leaves nothing over.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit =
        units.into_iter().find(|(_, length)| bytes >= *length && bytes.is_multiple_of(*length));
    unit.map_or_else(|| format!("{bytes}B"), |(unit, length)| format!("{}{unit}", bytes / length))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}
