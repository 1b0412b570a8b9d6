//! Keys that only one of the protocols has. In a listener those of the other are errors; in `defaults`, which are for
//! listeners of both, they are passed over.

use crate::config::decode::{Given, Key};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::Listener;
use crate::config::protocol::Protocol;
use crate::config::tree::Span;

/// Before `defaults` are merged: what the listener itself says must be of its protocol.
pub fn check(own: &mut Given<Listener>, protocol: Protocol, faults: &mut Faults) {
    let sizes = own.socket_buffers.value().is_some_and(Option::is_some);
    if let (Protocol::Udp, true, Some(span)) = (protocol, sizes, own.socket_buffers.span()) {
        let message = "`socket_buffers` does nothing for UDP listeners yet: they ask for 8 MiB and flows for 2 MiB";
        let fault = Fault::warning(Code::WithoutEffect, span, message);
        faults.push(
            fault.hint("remove it; `sysctl net.core.rmem_max` says how much of that is given"),
        );
    }
    let says = own.protocol.span();
    Listener::only(own, protocol, &mut |key, span| {
        faults.push(of_the_other(key, protocol, span, says));
    });
    if protocol == Protocol::Udp {
        check_bind(own, faults);
    }
}

fn of_the_other(key: &str, protocol: Protocol, at: Span, says: Option<Span>) -> Fault {
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
    match says {
        Some(span) => fault.also(span, format!("this makes it a {this} listener")),
        None => fault,
    }
}

fn check_bind(own: &Given<Listener>, faults: &mut Faults) {
    for bind in own.bind.items() {
        if bind.value.is_unix() {
            let message = "a UDP listener cannot listen on a unix socket";
            let fault = Fault::error(Code::OtherProtocol, bind.span, message);
            faults.push(fault.hint("write an address and a port, such as `:53`"));
        }
    }
}
