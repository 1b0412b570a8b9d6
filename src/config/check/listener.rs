//! One listener: defaults filled in, and the checks within it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::decode::Field;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::grammar::show_time;
use crate::config::raw;
use crate::config::scalar::{OrNone, Time};
use crate::config::{Keepalive, Listener, ListenerTimeouts, SocketBuffers};

pub fn build(name: &str, raw: &raw::Listener, faults: &mut Faults) -> Listener {
    let default = Listener::default();
    Listener {
        name: name.into(),
        bind: raw.bind.value().map_or(default.bind, |bind| {
            bind.0.iter().flat_map(|item| item.value.0.addresses()).collect()
        }),
        protocol: raw.protocol.copied().unwrap_or(default.protocol),
        pool: raw.pool.value().and_then(|pool| pool.0.as_deref().map(Arc::from)),
        on_refuse: raw.on_refuse.copied().unwrap_or(default.on_refuse),
        relay: raw.relay.copied().unwrap_or(default.relay),
        access: default.access,
        limits: default.limits,
        flow: default.flow,
        max_sessions: raw
            .limits
            .value()
            .and_then(|limits| limits.sessions.copied())
            .map_or(default.max_sessions, |limit| limit.0.map(|count| count.0)),
        timeouts: timeouts(raw.timeouts.value(), default.timeouts),
        keepalive: match raw.keepalive.value() {
            None => default.keepalive,
            Some(OrNone(None)) => None,
            Some(OrNone(Some(own))) => {
                default.keepalive.map(|default| keepalive(own, default, faults))
            }
        },
        socket_buffers: raw
            .socket_buffers
            .value()
            .and_then(|auto| auto.0.as_ref())
            .and_then(|own| socket_buffers(own, faults)),
        backlog: raw.backlog.copied().map_or(default.backlog, |count| count.as_u32()),
    }
}

fn timeouts(raw: Option<&raw::ListenerTimeouts>, default: ListenerTimeouts) -> ListenerTimeouts {
    let Some(raw) = raw else { return default };
    ListenerTimeouts {
        idle: optional_time(&raw.idle, default.idle),
        half_closed: optional_time(&raw.half_closed, default.half_closed),
        max_lifetime: optional_time(&raw.max_lifetime, default.max_lifetime),
    }
}

fn optional_time<const MIN: u64, const MAX: u64>(
    field: &Field<OrNone<Time<MIN, MAX>>>,
    default: Option<Duration>,
) -> Option<Duration> {
    field.copied().map_or(default, |time| time.0.map(|time| time.0))
}

fn keepalive(raw: &raw::Keepalive, default: Keepalive, faults: &mut Faults) -> Keepalive {
    whole_seconds(&raw.idle, faults);
    whole_seconds(&raw.interval, faults);
    Keepalive {
        idle: raw.idle.copied().map_or(default.idle, |time| time.0),
        interval: raw.interval.copied().map_or(default.interval, |time| time.0),
        count: raw.count.copied().map_or(default.count, |count| count.as_u32()),
    }
}

/// A fraction would be lost without a word.
fn whole_seconds<const MIN: u64, const MAX: u64>(
    field: &Field<Time<MIN, MAX>>,
    faults: &mut Faults,
) {
    let Some(time) = field.given() else { return };
    if time.value.0.subsec_nanos() != 0 {
        let whole = show_time(Duration::from_secs(time.value.0.as_secs()));
        let message = "the kernel counts keepalives in whole seconds";
        let fault = Fault::error(Code::OutOfRange, time.span, message);
        faults.push(fault.hint(format!("write whole seconds, such as {}", quote(&whole))));
    }
}

fn socket_buffers(raw: &raw::SocketBuffers, faults: &mut Faults) -> Option<SocketBuffers> {
    let hint = "give both sizes, as in `{client: 256KiB, backend: 256KiB}`";
    raw.client.require("client", raw.span, hint, faults);
    raw.backend.require("backend", raw.span, hint, faults);
    Some(SocketBuffers { client: raw.client.copied()?.0, backend: raw.backend.copied()?.0 })
}
