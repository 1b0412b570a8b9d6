//! One listener: defaults filled in, and the checks within it.

use std::sync::Arc;
use std::time::Duration;

use super::{access, routes, tls};
use crate::border::addr::ListenAddr;
use crate::config::decode::Field;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::grammar::{show_size, show_time};
use crate::config::load::NetFiles;
use crate::config::net::Sender;
use crate::config::raw;
use crate::config::scalar::{Count, OrNone, Size, Time};
use crate::config::tree::Span;
use crate::config::{
    Bandwidth, Flow, Keepalive, Limits, Listener, ListenerTimeouts, Rate, Route, SocketBuffers,
    Trusted,
};

pub fn build(
    name: &str,
    raw: &raw::Listener,
    nets: &mut NetFiles,
    faults: &mut Faults,
) -> Listener {
    let default = Listener::default();
    let limits = raw.limits.value();
    let (access, access_files) = access::build(raw, nets, faults);
    let listener = Listener {
        name: name.into(),
        bind: raw.bind.value().map_or(default.bind, |bind| {
            bind.0.iter().flat_map(|item| item.value.0.addresses()).collect()
        }),
        protocol: raw.protocol.copied().unwrap_or(default.protocol),
        pool: raw.pool.value().and_then(|pool| pool.0.as_deref().map(Arc::from)),
        routes: routes::build(raw, faults),
        proxy_protocol: proxy_protocol(raw, faults),
        tls: tls::server(raw, nets, faults),
        deny_sessions: raw.deny_sessions.copied().unwrap_or(default.deny_sessions),
        on_refuse: raw.on_refuse.copied().unwrap_or(default.on_refuse),
        relay: raw.relay.copied().unwrap_or(default.relay),
        access,
        access_files,
        limits: limits.map_or(default.limits, |limits| self::limits(limits, faults)),
        flow: raw.flow.value().map_or(default.flow, |own| flow(own, default.flow)),
        max_sessions: limits
            .and_then(|limits| limits.sessions.copied())
            .map_or(default.max_sessions, |limit| limit.0.map(|count| count.0)),
        preread_size: raw
            .preread_size
            .copied()
            .map_or(default.preread_size, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
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
    };
    first_bytes_fit(&listener, raw, faults);
    listener
}

/// What is looked at stays in the kernel's buffer meanwhile; where that is smaller, the rest would never come.
fn first_bytes_fit(listener: &Listener, raw: &raw::Listener, faults: &mut Faults) {
    let waits =
        listener.proxy_protocol.is_some() || listener.routes.iter().any(Route::asks_for_bytes);
    let Some(buffers) = raw.socket_buffers.value().and_then(|auto| auto.0.as_ref()) else { return };
    let (Some(client), true) = (buffers.client.given(), waits) else { return };
    let size = u64::try_from(listener.preread_size).unwrap_or(u64::MAX);
    if client.value.0 >= size {
        return;
    }
    let size = show_size(size);
    let (name, shown) = (quote(&listener.name), quote(&size));
    let message = format!("the first bytes that {name} looks at, up to {shown}, do not fit");
    let mut fault = Fault::error(Code::OutOfRange, client.span, message);
    if let Some(span) = raw.preread_size.span() {
        fault = fault.also(span, "as many may be looked at");
    }
    faults.push(
        fault.hint(format!("give the client's buffer {shown} and more, or lower `preread_size`")),
    );
}

/// Everyone may say who a client is only where that is written out.
fn proxy_protocol(raw: &raw::Listener, faults: &mut Faults) -> Option<Trusted> {
    let own = raw.proxy_protocol.value()?.0.as_ref()?;
    let hint = "name who sends the header, as in `{trusted: [\"10.0.0.0/8\"]}`";
    own.trusted.require("trusted", own.span, hint, faults);
    let given = own.trusted.given()?;
    if given.value.is_empty() {
        let fault = Fault::error(Code::EmptyValue, given.span, "nobody is trusted here");
        faults.push(fault.hint("name who sends the header, or write `proxy_protocol: none`"));
    }
    let mut trusted = Trusted::default();
    for sender in &given.value {
        match sender.value {
            Sender::Net(net) => trusted.nets.push(net),
            Sender::Unix => trusted.unix = true,
        }
    }
    senders_can_come(raw, &trusted, given.span, faults);
    Some(trusted)
}

/// A client of a unix socket has no address: networks trust none of them, and their headers would be payload.
fn senders_can_come(raw: &raw::Listener, trusted: &Trusted, at: Span, faults: &mut Faults) {
    let Some(bind) = raw.bind.value() else { return };
    let addresses = || bind.0.iter().flat_map(|item| item.value.0.addresses());
    let is_unix = |address: &ListenAddr| matches!(address, ListenAddr::Unix(_));
    if !trusted.unix && !trusted.nets.is_empty() && addresses().all(|it| is_unix(&it)) {
        let what = "nobody is trusted here: no network holds a client of a unix socket, and its header would reach the backend";
        let fault = Fault::error(Code::EmptyValue, at, what);
        faults.push(fault.hint("write `trusted: [unix]`; the socket's file says who may use it"));
    }
    if trusted.unix && !addresses().any(|it| is_unix(&it)) {
        let what = "nobody comes by a unix socket here";
        let fault = Fault::warning(Code::WithoutEffect, at, what);
        faults
            .push(fault.hint("bind one, as in `unix:/run/maitred/door.sock`, or leave `unix` out"));
    }
}

fn limits(raw: &raw::Limits, faults: &mut Faults) -> Limits {
    let mut rate = |field: &Field<OrNone<raw::Rate>>| {
        field.value().and_then(|none| none.0.as_ref()).and_then(|own| rate(own, faults))
    };
    Limits {
        rate: rate(&raw.rate),
        rate_per_client: rate(&raw.rate_per_client),
        datagram_rate: rate(&raw.datagram_rate),
        datagram_rate_per_client: rate(&raw.datagram_rate_per_client),
        prereads: optional_count(raw.prereads.copied().map(|none| none.0), None),
        bandwidth: bandwidth(raw),
        sessions_per_client: raw
            .sessions_per_client
            .copied()
            .and_then(|none| none.0.map(|count| count.0)),
    }
}

fn bandwidth(raw: &raw::Limits) -> Bandwidth {
    let Some(own) = raw.bandwidth.value().and_then(|none| none.0.as_ref()) else {
        return Bandwidth::default();
    };
    let size = |field: &Field<OrNone<Size<1_024, { 1 << 40 }>>>| {
        field.copied().and_then(|none| none.0.map(|size| size.0))
    };
    Bandwidth { to_client: size(&own.to_client), to_backend: size(&own.to_backend) }
}

/// Without a burst, as many at once as in a second: whoever asks for 100 a second does not mean one each 10 ms.
fn rate(raw: &raw::Rate, faults: &mut Faults) -> Option<Rate> {
    let hint = "write how many a second, as in `{per_second: 100, burst: 200}`";
    raw.per_second.require("per_second", raw.span, hint, faults);
    let per_second = raw.per_second.copied()?.0;
    Some(Rate { per_second, burst: raw.burst.copied().map_or(per_second, |burst| burst.0) })
}

fn flow(raw: &raw::Flow, default: Flow) -> Flow {
    Flow {
        timeout: raw.timeout.copied().map_or(default.timeout, |time| time.0),
        max_flows: optional_count(raw.max_flows.copied().map(|auto| auto.0), default.max_flows),
        requests: optional_count(raw.requests.copied().map(|none| none.0), default.requests),
        responses: optional_count(raw.responses.copied().map(|none| none.0), default.responses),
        when_full: raw.when_full.copied().unwrap_or(default.when_full),
    }
}

fn optional_count<const MIN: u64, const MAX: u64>(
    own: Option<Option<Count<MIN, MAX>>>,
    default: Option<u64>,
) -> Option<u64> {
    own.map_or(default, |given| given.map(|count| count.0))
}

fn timeouts(raw: Option<&raw::ListenerTimeouts>, default: ListenerTimeouts) -> ListenerTimeouts {
    let Some(raw) = raw else { return default };
    ListenerTimeouts {
        preread: raw.preread.copied().map_or(default.preread, |time| time.0),
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
