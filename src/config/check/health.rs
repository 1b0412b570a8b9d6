//! How a pool is probed: defaults filled in, and the checks within it.

use super::reference::Users;
use crate::border::addr::BackendAddr;
use crate::config::decode::Field;
use crate::config::fault::{Code, Fault, Faults, quote};
use crate::config::grammar::show_time;
use crate::config::raw;
use crate::config::value::{BackendAddress, Expectation};
use crate::config::{Health, Probe, StatusRange};

pub fn build(pool: &raw::Pool, users: Users, default: Health, faults: &mut Faults) -> Health {
    let auto = if users.tcp.is_some() { Probe::Tcp } else { Probe::None };
    let health = match pool.health.value() {
        None => Health { probe: auto, ..default },
        Some(raw) => {
            let probe = raw.probe.value().and_then(|own| probe(own, faults));
            times(raw, Health { probe: probe.unwrap_or(auto), ..default })
        }
    };
    check_probed(pool, &health, faults);
    check_unix(pool, &health, faults);
    check_mysql(pool, &health, faults);
    check_times(pool, &health, faults);
    health
}

/// One probe waits for the one before.
fn check_times(pool: &raw::Pool, health: &Health, faults: &mut Faults) {
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
    faults.push(Fault::warning(Code::SlowProbe, span, message).hint(hint));
}

/// `None` = auto, and what is reported.
fn probe(raw: &raw::Probe, faults: &mut Faults) -> Option<Probe> {
    match raw {
        raw::Probe::Auto => None,
        raw::Probe::None => Some(Probe::None),
        raw::Probe::Tcp => Some(Probe::Tcp),
        raw::Probe::Exchange(own) => Some(exchange(own, faults)),
        raw::Probe::Http(own) => Some(http(own, faults)),
        raw::Probe::Udp(own) => Some(udp(own, faults)),
        raw::Probe::Dns(own) => {
            let hint = "write what is asked for, as in `{dns: {name: example.com}}`";
            own.name.require("name", own.span, hint, faults);
            let record = own.r#type.copied().unwrap_or_default();
            Some(Probe::Dns { name: own.name.value()?.0.clone(), record })
        }
    }
}

/// Without an expectation nothing is read, and so no standby is heard.
fn exchange(raw: &raw::Exchange, faults: &mut Faults) -> Probe {
    let of = |field: &Field<Expectation>| field.value().and_then(|it| it.0.clone());
    let (expect, standby) = (of(&raw.expect), of(&raw.standby));
    if let Some(span) = raw.standby.span()
        && standby.is_some()
        && expect.is_none()
        && !matches!(raw.expect, Field::Faulty)
    {
        let message = "`standby` needs `expect`: without it no answer is read";
        let hint = "write what a backend says that serves, as in `expect: \"role:master\"`";
        faults.push(Fault::error(Code::MissingKey, span, message).hint(hint));
    }
    let send = raw.send.value().and_then(|payload| payload.0.clone());
    Probe::Exchange { send, expect, standby }
}

/// A datagram without a byte is one that few servers answer, and none says what it is for.
fn udp(raw: &raw::UdpProbe, faults: &mut Faults) -> Probe {
    let hint = "write what is sent, as in `{udp: {send: ping, expect: pong}}`";
    raw.send.require("send", raw.span, hint, faults);
    if let Some(send) = raw.send.given()
        && send.value.0.is_none()
    {
        let message = "`none` is not possible here: a UDP probe has to send something";
        faults.push(Fault::error(Code::Malformed, send.span, message).hint(hint));
    }
    Probe::Udp {
        send: raw.send.value().and_then(|payload| payload.0.clone()),
        expect: raw.expect.value().and_then(|expect| expect.0.clone()),
    }
}

fn times(raw: &raw::Health, default: Health) -> Health {
    Health {
        probe: default.probe,
        port: raw
            .port
            .copied()
            .map_or(default.port, |same| same.0.and_then(|count| u16::try_from(count.0).ok())),
        interval: raw.interval.copied().map_or(default.interval, |time| time.0),
        timeout: raw.timeout.copied().map_or(default.timeout, |time| time.0),
        rise: raw.rise.copied().map_or(default.rise, |count| count.as_u32()),
        fall: raw.fall.copied().map_or(default.fall, |count| count.as_u32()),
        start: raw.start.copied().unwrap_or(default.start),
        jitter: raw.jitter.copied().map_or(default.jitter, |share| share.as_u32()),
    }
}

fn http(raw: &raw::Http, faults: &mut Faults) -> Probe {
    let status: Vec<StatusRange> = match raw.status.given() {
        None => vec![StatusRange { first: 200, last: 399 }],
        Some(given) => given.value.iter().map(|status| status.0).collect(),
    };
    if let Some(span) = raw.status.span()
        && status.is_empty()
    {
        let fault = Fault::error(
            Code::MissingKey,
            span,
            "this list of statuses is empty: no answer would pass",
        );
        faults.push(fault.hint("write at least one, as in `status: [\"200-399\"]`"));
    }
    let given = raw.standby.given();
    for own in given.into_iter().flat_map(|given| &given.value) {
        let StatusRange { first, last } = own.value.0;
        if status.iter().any(|it| it.first <= last && first <= it.last) {
            let message = "this status is also one that passes";
            let hint = "let each be in `status` or in `standby`, as in `status: [\"200\"], standby: [\"503\"]`";
            faults.push(Fault::error(Code::Malformed, own.span, message).hint(hint));
        }
    }
    Probe::Http {
        path: raw.path.value().map_or_else(|| "/".to_owned(), |path| path.0.clone()),
        host: raw.host.value().and_then(|host| host.0.as_ref()).map(|host| host.0.clone()),
        status,
        standby: given.into_iter().flat_map(|given| &given.value).map(|it| it.value.0).collect(),
    }
}

/// A probe needs a port, and a backend may have none of its own.
fn check_probed(raw: &raw::Pool, health: &Health, faults: &mut Faults) {
    if health.probe == Probe::None || health.port.is_some() {
        return;
    }
    for backend in raw.backends.value().into_iter().flatten() {
        let Some(address) = backend.mapping.address.given() else { continue };
        if let Some(host) = address.value.without_port() {
            let message = format!(
                "the backend {} has no port to probe, so it always counts as up",
                quote(&host)
            );
            let hint =
                "write the port to probe in `health.port`, or say so with `health: {probe: none}`";
            faults.push(Fault::warning(Code::NotProbed, address.span, message).hint(hint));
        }
    }
}

/// MySQL and MariaDB count whoever leaves before logging in, and block its address in the end: that of all our clients.
fn check_mysql(raw: &raw::Pool, health: &Health, faults: &mut Faults) {
    const MYSQL: u16 = 3306;
    if !matches!(health.probe, Probe::Tcp | Probe::Exchange { .. }) {
        return;
    }
    let own = raw.health.value().and_then(|health| health.port.span());
    let of_backends = raw.backends.value().into_iter().flatten().find_map(|backend| {
        let address = backend.mapping.address.given()?;
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
    let hint = "they may block this address, and so every client, after `max_connect_errors` (100) of them: probe an HTTP \
                service beside the server (clustercheck) by `health: {probe: {http: …}, port: 9200}`, or raise \
                `max_connect_errors`";
    faults.push(Fault::warning(Code::HarmfulProbe, span, message).hint(hint));
}

/// There is no way to send a datagram of ours to a unix socket of a stream.
fn check_unix(raw: &raw::Pool, health: &Health, faults: &mut Faults) {
    if !matches!(health.probe, Probe::Dns { .. } | Probe::Udp { .. }) {
        return;
    }
    let Some(probe) = raw.health.value().and_then(|health| health.probe.span()) else { return };
    for backend in raw.backends.value().into_iter().flatten() {
        let Some(address) = backend.mapping.address.given() else { continue };
        if let Some(BackendAddr::Unix(_)) = address.value.at() {
            let message = "a unix socket cannot be probed by UDP";
            let fault = Fault::error(Code::OtherProtocol, address.span, message);
            faults.push(fault.also(probe, "this probe").hint("choose another probe"));
        }
    }
}
