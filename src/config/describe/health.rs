//! How a pool is probed, in the grammar of the file.

use serde_json::{Value, json};

use super::{bytes, none, share, time};
use crate::config::{Expect, Health, Probe, Start, StatusRange};

pub(super) fn health(health: &Health) -> Value {
    json!({
        "probe": probe(&health.probe),
        "port": health.port.map_or_else(|| "same".into(), Value::from),
        "interval": time(health.interval),
        "timeout": time(health.timeout),
        "rise": health.rise,
        "fall": health.fall,
        "start": match health.start {
            Start::Down => "down",
            Start::Up => "up",
        },
        "jitter": share(health.jitter),
    })
}

fn probe(probe: &Probe) -> Value {
    let expected = |expect: &Option<Expect>| match expect {
        None => "none".into(),
        Some(Expect::Bytes(it)) => bytes(it),
        Some(Expect::Regex(it)) => json!({ "regex": it }),
    };
    let sent = |send: &Option<Vec<u8>>| send.as_ref().map_or_else(|| "none".into(), |it| bytes(it));
    match probe {
        Probe::Dns { name, record } => {
            json!({ "dns": { "name": name, "type": format!("{record:?}").to_uppercase() } })
        }
        Probe::Exchange { send, expect, standby } => json!({ "exchange": {
            "send": sent(send), "expect": expected(expect), "standby": expected(standby),
        } }),
        Probe::Http { path, host, status, standby } => json!({ "http": {
            "path": path,
            "host": none(host.as_deref()),
            "status": statuses(status),
            "standby": statuses(standby),
        } }),
        Probe::None => "none".into(),
        Probe::Tcp => "tcp".into(),
        Probe::Udp { send, expect } => {
            json!({ "udp": { "send": sent(send), "expect": expected(expect) } })
        }
    }
}

fn statuses(ranges: &[StatusRange]) -> Vec<String> {
    ranges.iter().map(|it| format!("{}-{}", it.first, it.last)).collect()
}
