//! One listener: defaults filled in, and the checks within it.

use std::time::Duration;

use super::{access, routes, tls};
use crate::border::addr::ListenAddr;
use crate::border::quantities::{show_size, show_time};
use crate::config::decode::{Field, Given, Key};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::files::NetFiles;
use crate::config::keys::{Keepalive, Listener, ProxyProtocol, Route};
use crate::config::net::{Sender, Trusted};
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
    routes::check(given, &listener.routes, faults);
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
    let mut fault = Fault::error(Code::OutOfRange, client.span, message);
    if let Some(span) = given.preread_size.span() {
        fault = fault.also(span, "as many may be looked at");
    }
    faults.push(
        fault.hint(format!("give the client's buffer {shown} and more, or lower `preread_size`")),
    );
}

/// Everyone may say who a client is only where that is written out.
fn proxy_protocol(listener: &Given<Listener>, faults: &mut Faults) -> Option<ProxyProtocol> {
    let given = listener.proxy_protocol.value()?.as_ref()?.trusted.given()?;
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
        let what = "nobody is trusted here: no network holds a client of a unix socket, and its header would reach the backend";
        let fault = Fault::error(Code::EmptyValue, at, what);
        faults.push(fault.hint("write `trusted: [unix]`; the socket's file says who may use it"));
    }
    if trusted.unix && !addresses(given).any(|it| is_unix(&it)) {
        let what = "nobody comes by a unix socket here";
        let fault = Fault::warning(Code::WithoutEffect, at, what);
        faults
            .push(fault.hint("bind one, as in `unix:/run/maitred/door.sock`, or leave `unix` out"));
    }
}

/// A fraction would be lost without a word.
fn whole_seconds(own: &Given<Keepalive>, faults: &mut Faults) {
    for time in [&own.idle, &own.interval].into_iter().filter_map(Field::given) {
        if time.value.subsec_nanos() != 0 {
            let whole = show_time(Duration::from_secs(time.value.as_secs()));
            let message = "the kernel counts keepalives in whole seconds";
            let fault = Fault::error(Code::OutOfRange, time.span, message);
            faults.push(fault.hint(format!("write whole seconds, such as {}", quote(&whole))));
        }
    }
}
