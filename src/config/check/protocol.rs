//! Keys that only one of the protocols has. In a listener those of the other are errors; in `defaults`, which are for
//! listeners of both, they are passed over.

use crate::config::Protocol;
use crate::config::decode::Field;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::raw;
use crate::config::tree::Span;

/// Before `defaults` are merged: what the listener itself says must be of its protocol.
pub fn check(own: &raw::Listener, protocol: Protocol, faults: &mut Faults) {
    let sizes = own.socket_buffers.value().is_some_and(|auto| auto.0.is_some());
    if let (Protocol::Udp, true, Some(span)) = (protocol, sizes, own.socket_buffers.span()) {
        let message = "`socket_buffers` does nothing for UDP listeners yet: they ask for 8 MiB and flows for 2 MiB";
        let fault = Fault::warning(Code::WithoutEffect, span, message);
        faults.push(
            fault.hint("remove it; `sysctl net.core.rmem_max` says how much of that is given"),
        );
    }
    let limits = own.limits.value();
    let given: Vec<(&str, Option<Span>)> = match protocol {
        Protocol::Tcp => vec![
            ("flow", own.flow.span()),
            ("datagram_rate", limits.and_then(|it| it.datagram_rate.span())),
            ("datagram_rate_per_client", limits.and_then(|it| it.datagram_rate_per_client.span())),
        ],
        Protocol::Udp => vec![
            ("routes", own.routes.span()),
            ("proxy_protocol", own.proxy_protocol.span()),
            ("preread_size", own.preread_size.span()),
            ("tls", own.tls.span()),
            ("prereads", limits.and_then(|it| it.prereads.span())),
            ("bandwidth", limits.and_then(|it| it.bandwidth.span())),
            ("deny_sessions", own.deny_sessions.span()),
            ("on_refuse", own.on_refuse.span()),
            ("relay", own.relay.span()),
            ("timeouts", own.timeouts.span()),
            ("keepalive", own.keepalive.span()),
            ("backlog", own.backlog.span()),
        ],
    };
    for (key, span) in given {
        let Some(span) = span else { continue };
        faults.push(of_the_other(key, protocol, span, own));
    }
    if protocol == Protocol::Udp {
        check_bind(own, faults);
    }
}

fn of_the_other(key: &str, protocol: Protocol, at: Span, own: &raw::Listener) -> Fault {
    let (this, other, word) = match protocol {
        Protocol::Tcp => ("TCP", "UDP", "udp"),
        Protocol::Udp => ("UDP", "TCP", "tcp"),
    };
    let message = format!("{} is a key of {other} listeners, and this one is {this}", quote(key));
    let hint = match (key, protocol) {
        ("timeouts", Protocol::Udp) => {
            "how long a flow lives is said by `flow: {timeout: 60s}`".to_owned()
        }
        ("flow", Protocol::Tcp) => {
            "sessions have `timeouts`; for datagrams write `protocol: udp`".to_owned()
        }
        _ => format!("leave it out, or write `protocol: {word}`"),
    };
    let fault = Fault::error(Code::OtherProtocol, at, message).hint(hint);
    match own.protocol.span() {
        Some(span) => fault.also(span, format!("this makes it a {this} listener")),
        None => fault,
    }
}

fn check_bind(own: &raw::Listener, faults: &mut Faults) {
    for bind in own.bind.value().into_iter().flat_map(|bind| &bind.0) {
        if bind.value.0.is_unix() {
            let message = "a UDP listener cannot listen on a unix socket";
            let fault = Fault::error(Code::OtherProtocol, bind.span, message);
            faults.push(fault.hint("write an address and a port, such as `:53`"));
        }
    }
}

/// After `defaults` are merged: forgets what came from them and is of the other protocol.
pub fn strip(merged: &mut raw::Listener, protocol: Protocol) {
    match protocol {
        Protocol::Tcp => {
            merged.flow = Field::Absent;
            if let Field::Given(limits) = &mut merged.limits {
                limits.value.datagram_rate = Field::Absent;
                limits.value.datagram_rate_per_client = Field::Absent;
            }
        }
        Protocol::Udp => {
            merged.routes = Field::Absent;
            merged.proxy_protocol = Field::Absent;
            merged.preread_size = Field::Absent;
            merged.tls = Field::Absent;
            if let Field::Given(limits) = &mut merged.limits {
                limits.value.prereads = Field::Absent;
                limits.value.bandwidth = Field::Absent;
            }
            merged.deny_sessions = Field::Absent;
            merged.on_refuse = Field::Absent;
            merged.relay = Field::Absent;
            merged.timeouts = Field::Absent;
            merged.keepalive = Field::Absent;
            merged.backlog = Field::Absent;
        }
    }
}
