//! One listener: defaults filled in, and the checks within it. Keys that only one of the protocols has: in a listener those
//! of the other are errors; in `defaults`, which are for listeners of both, they are passed over.

use std::time::Duration;

use ipnet::IpNet;

use super::{access, tls};
use crate::border::addr::ListenAddr;
use crate::border::quantities::{show_size, show_time};
use crate::config::NamePattern;
use crate::config::decode::{Field, Given, Key};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::files::NetFiles;
use crate::config::keys::{Keepalive, Listener, ProxyProtocol, Route};
use crate::config::net::{Sender, Trusted};
use crate::config::protocol::Protocol;
use crate::config::tree::Span;

pub fn build(
    name: &str,
    given: &Given<Listener>,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Listener {
    Listener::require(given, faults);
    let mut listener = Listener::settle(given);
    listener.name = name.into();
    listener.bind = addresses(given).collect();
    hidden_routes(given, &listener.routes, faults);
    listener.proxy_protocol = proxy_protocol(given, faults);
    listener.tls = tls::server(given, files, faults);
    access::build(given, &mut listener, files, faults);
    if let Some(Some(own)) = given.keepalive.value() {
        whole_seconds(own, faults);
    }
    first_bytes_fit(&listener, given, faults);
    listener
}

fn addresses(given: &Given<Listener>) -> impl Iterator<Item = ListenAddr> {
    given.bind.items().iter().flat_map(|item| item.value.addresses())
}

/// What is looked at stays in the kernel's buffer meanwhile; where that is smaller, the rest would never come.
fn first_bytes_fit(listener: &Listener, given: &Given<Listener>, faults: &mut Faults) {
    let waits =
        listener.proxy_protocol.is_some() || listener.routes.iter().any(Route::asks_for_bytes);
    let Some(Some(buffers)) = given.socket_buffers.value() else { return };
    let (Some(client), true) = (buffers.client.given(), waits) else { return };
    let size = u64::try_from(listener.preread_size).unwrap_or(u64::MAX);
    if client.value >= size {
        return;
    }
    let size = show_size(size);
    let (name, shown) = (quote(&listener.name), quote(&size));
    let message = format!("the first bytes that {name} looks at, up to {shown}, do not fit");
    let hint = format!("give the client's buffer {shown} and more, or lower `preread_size`");
    let fault = Fault::error(Code::OutOfRange, client.span, message, hint);
    faults.push(fault.also(given.preread_size.span(), "as many may be looked at"));
}

/// Everyone may say who a client is only where that is written out.
fn proxy_protocol(listener: &Given<Listener>, faults: &mut Faults) -> Option<ProxyProtocol> {
    let given = listener.proxy_protocol.value()?.as_ref()?.trusted.given()?;
    if given.value.is_empty() {
        let message = "no sender is trusted here";
        let hint = "list the networks that send the header, or write `proxy_protocol: none`";
        faults.error(Code::EmptyValue, given.span, message, hint);
    }
    let mut trusted = Trusted::default();
    for sender in &given.value {
        match sender.value {
            Sender::Net(net) => trusted.nets.push(net),
            Sender::Unix => trusted.unix = true,
        }
    }
    senders_can_come(listener, &trusted, given.span, faults);
    Some(ProxyProtocol { trusted })
}

/// A client of a unix socket has no address: networks trust none of them, and their headers would be payload.
fn senders_can_come(given: &Given<Listener>, trusted: &Trusted, at: Span, faults: &mut Faults) {
    if given.bind.value().is_none() {
        return;
    }
    let is_unix = |address: &ListenAddr| matches!(address, ListenAddr::Unix(_));
    if !trusted.unix && !trusted.nets.is_empty() && addresses(given).all(|it| is_unix(&it)) {
        let what = "no sender is trusted here: a client of a unix socket is in no network, and its header would reach the backend";
        let hint = "write `trusted: [unix]`; the socket's file says who may use it";
        faults.error(Code::EmptyValue, at, what, hint);
    }
    if trusted.unix && !addresses(given).any(|it| is_unix(&it)) {
        let what = "no client comes by a unix socket here";
        let hint = "bind one, as in `unix:/run/maitred/door.sock`, or leave `unix` out";
        faults.warning(Code::WithoutEffect, at, what, hint);
    }
}

/// A fraction would be lost without a word.
fn whole_seconds(own: &Given<Keepalive>, faults: &mut Faults) {
    for time in [&own.idle, &own.interval].into_iter().filter_map(Field::given) {
        if time.value.subsec_nanos() != 0 {
            let whole = show_time(Duration::from_secs(time.value.as_secs()));
            let message = "the kernel counts keepalives in whole seconds";
            let hint = format!("write whole seconds, such as {}", quote(&whole));
            faults.error(Code::OutOfRange, time.span, message, hint);
        }
    }
}

/// Pairs of routes compared at most: a file may have very many routes.
const MAX_COMPARED: usize = 1_000;

fn hidden_routes(listener: &Given<Listener>, routes: &[Route], faults: &mut Faults) {
    let given = listener.routes.items();
    for (index, own) in routes.iter().enumerate().take(MAX_COMPARED) {
        let Some(earlier) = routes[..index].iter().position(|earlier| covers(earlier, own)) else {
            continue;
        };
        let message = "no session comes to this route: an earlier one takes them all";
        let hint = "put the narrower route first, or remove this one";
        let fault = Fault::warning(Code::WithoutEffect, given[index].span, message, hint);
        faults.push(fault.also(given[earlier].span, "this one, and the first that holds wins"));
    }
}

/// Whether `earlier` holds wherever `later` does.
fn covers(earlier: &Route, later: &Route) -> bool {
    all_covered(&earlier.server_name, &later.server_name, NamePattern::covers)
        && all_covered(&earlier.alpn, &later.alpn, Vec::eq)
        && all_covered(&earlier.client, &later.client, |wide: &IpNet, narrow| wide.contains(narrow))
        && (earlier.port.is_none() || earlier.port == later.port)
}

/// Of an empty list nothing is asked.
fn all_covered<T>(earlier: &[T], later: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    earlier.is_empty()
        || !later.is_empty()
            && later.iter().all(|later| earlier.iter().any(|earlier| covers(earlier, later)))
}

/// Before `defaults` are merged: what the listener itself says must be of its protocol.
pub fn of_protocol(own: &mut Given<Listener>, protocol: Protocol, faults: &mut Faults) {
    let sizes = own.socket_buffers.value().is_some_and(Option::is_some);
    if let (Protocol::Udp, true, Some(span)) = (protocol, sizes, own.socket_buffers.span()) {
        let message = "`socket_buffers` does nothing for UDP listeners yet: they ask for 8 MiB and flows for 2 MiB";
        let hint = "remove it; `sysctl net.core.rmem_max` says how much of that is given";
        faults.warning(Code::WithoutEffect, span, message, hint);
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
    let fault = Fault::error(Code::OtherProtocol, at, message, hint);
    fault.also(says, format!("this makes it a {this} listener"))
}

fn check_bind(own: &Given<Listener>, faults: &mut Faults) {
    for bind in own.bind.items() {
        if bind.value.is_unix() {
            let message = "a UDP listener cannot listen on a unix socket";
            let hint = "write an address and a port, such as `:53`";
            faults.error(Code::OtherProtocol, bind.span, message, hint);
        }
    }
}
