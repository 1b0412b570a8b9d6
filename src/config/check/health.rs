//! How a pool is probed: what `auto` means, and what takes more than one key to see.

use super::reference::{Users, addresses};
use crate::border::addr::BackendAddr;
use crate::border::quantities::show_time;
use crate::border::written::BackendAddress;
use crate::config::decode::{Field, Given, Key, Placed};
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::keys::{Exchange, Health, Http, Pool, Probe, UdpProbe};

pub fn check(pool: &Given<Pool>, users: Users, health: &mut Health, faults: &mut Faults) {
    if health.probe == Probe::Auto {
        health.probe = if users.tcp.is_some() { Probe::Tcp } else { Probe::None };
    }
    type Kind = Given<Probe>;
    match pool.health.value().and_then(|own| own.probe.value()) {
        Some(Kind::Exchange(own)) => exchange(own, faults),
        Some(Kind::Http(own)) => http(own, faults),
        Some(Kind::Udp(own)) => udp(own, faults),
        _ => {}
    }
    check_probed(pool, health, faults);
    check_unix(pool, health, faults);
    check_mysql(pool, health, faults);
    check_times(pool, health, faults);
}

/// One probe waits for the one before.
fn check_times(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    let Some(raw) = pool.health.value().filter(|_| health.timeout > health.interval) else {
        return;
    };
    let Some(span) = raw.timeout.span().or(raw.interval.span()) else { return };
    let (timeout, interval) = (show_time(health.timeout), show_time(health.interval));
    let silent = show_time(health.timeout * health.fall);
    let message = format!("`timeout` ({timeout}) is above `interval` ({interval})");
    let hint = format!(
        "a silent backend is asked every {timeout} only, and down after {silent}: write a shorter `timeout`, or an \
         `interval` as long"
    );
    faults.warning(Code::SlowProbe, span, message, hint);
}

/// Without an expectation nothing is read, and so no standby is heard.
fn exchange(own: &Given<Exchange>, faults: &mut Faults) {
    if let Some(standby) = own.standby.on()
        && own.expect.value().is_none_or(Option::is_none)
        && !matches!(own.expect, Field::Faulty)
    {
        let message = "`standby` needs `expect`: without it no answer is read";
        let hint = "write what a backend says that serves, as in `expect: \"role:master\"`";
        faults.error(Code::MissingKey, standby.span, message, hint);
    }
}

/// A datagram without a byte is one that few servers answer, and none says what it is for.
fn udp(own: &Given<UdpProbe>, faults: &mut Faults) {
    if let Some(Placed { value: None, span }) = own.send.given() {
        let message = "`none` is not possible here: a UDP probe has to send something";
        let hint = "write what is sent, as in `{udp: {send: ping, expect: pong}}`";
        faults.error(Code::Malformed, *span, message, hint);
    }
}

fn http(own: &Given<Http>, faults: &mut Faults) {
    let status = Http::settle(own).status;
    if let Some(span) = own.status.span()
        && status.is_empty()
    {
        let message = "this list of statuses is empty: no answer would pass";
        let hint = "write at least one, as in `status: [\"200-399\"]`";
        faults.error(Code::MissingKey, span, message, hint);
    }
    for standby in own.standby.items() {
        let own = standby.value;
        if status.iter().any(|it| it.first <= own.last && own.first <= it.last) {
            let message = "this status is also one that passes";
            let hint = "let each be in `status` or in `standby`, as in `status: [\"200\"], standby: [\"503\"]`";
            faults.error(Code::Malformed, standby.span, message, hint);
        }
    }
}

/// A probe needs a port, and a backend may have none of its own.
fn check_probed(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    if health.probe == Probe::None || health.port.is_some() {
        return;
    }
    for address in addresses(pool) {
        if let Some(host) = address.value.without_port() {
            let message = format!(
                "the backend {} has no port to probe, so it always counts as up",
                quote(&host)
            );
            let hint =
                "write the port to probe in `health.port`, or say so with `health: {probe: none}`";
            faults.warning(Code::NotProbed, address.span, message, hint);
        }
    }
}

/// MySQL and MariaDB count whoever leaves before logging in, and block its address in the end: that of all our clients.
fn check_mysql(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    const MYSQL: u16 = 3306;
    if !matches!(health.probe, Probe::Tcp | Probe::Exchange(_)) {
        return;
    }
    let own = pool.health.value().and_then(|health| health.port.span());
    let of_backends = addresses(pool).find_map(|address| {
        let port = match &address.value {
            BackendAddress::At(BackendAddr::Inet(address)) => Some(address.port()),
            BackendAddress::Named(host) => host.port,
            BackendAddress::At(_) => None,
        };
        (port == Some(MYSQL)).then_some(address.span)
    });
    let span = match health.port {
        Some(port) => own.filter(|_| port == MYSQL),
        None => of_backends,
    };
    let Some(span) = span else { return };
    let message =
        "a probe of MySQL or MariaDB that does not log in counts there as a failed connection";
    let hint = "they may block this address, and so every client, after `max_connect_errors` (100) of them: log in, by \
                `health: {probe: {mysql: {user: maitred, password_file: FILE}}}`";
    faults.warning(Code::HarmfulProbe, span, message, hint);
}

/// There is no way to send a datagram of ours to a unix socket of a stream.
fn check_unix(pool: &Given<Pool>, health: &Health, faults: &mut Faults) {
    if !matches!(health.probe, Probe::Dns(_) | Probe::Udp(_)) {
        return;
    }
    let Some(probe) = pool.health.value().and_then(|health| health.probe.span()) else { return };
    for address in addresses(pool) {
        if let Some(BackendAddr::Unix(_)) = address.value.at() {
            let message = "a unix socket cannot be probed by UDP";
            let fault =
                Fault::error(Code::OtherProtocol, address.span, message, "choose another probe");
            faults.push(fault.also(probe, "this probe"));
        }
    }
}
