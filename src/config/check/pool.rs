//! One pool: defaults filled in, and the checks within it.

use std::sync::Arc;

use super::backends::listed;
use super::reference::Users;
use super::{discovery, health, login, order, tls};
use crate::border::addr::ZonedIp;
use crate::config::decode::{Field, Given, Key, Placed};
use crate::config::discovery::Discovery;
use crate::config::fault::{Code, Fault, Faults};
use crate::config::files::NetFiles;
use crate::config::keys::{
    Backend, Balance, Found, HashKey, Pool, ProxyDatagrams, ProxyTlv, RetryUntil, SendProxy,
    WhenFull, WhenNoneUp,
};
use crate::config::value::{ProxyTlvs, ProxyVersion};

pub fn build(
    name: &str,
    given: &Given<Pool>,
    users: Users,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> Pool {
    Pool::require(given, faults);
    let mut pool = Pool::settle(given);
    pool.name = name.into();
    (pool.backends, pool.discovery) = backends(given, pool.balance, files, faults);
    check_source(given, faults);
    warn_of_idle_hash(given, pool.balance, faults);
    warn_of_idle_hold(given, users, faults);
    check_retries(given, users, faults);
    health::check(given, users, &mut pool.health, faults);
    login::check(given, &mut pool.health, files, faults);
    order::check(given, &pool, faults);
    pool.send_proxy_protocol = proxy_version(given, users, faults);
    pool.send_proxy_tlvs = proxy_tlvs(given, faults);
    pool.tls = tls::client(given, users, files, faults);
    pool.health.tls = tls::of_probes(given, files, faults);
    pool
}

/// Whoever chose a key wants it to matter; the default stands in every complete file.
fn warn_of_idle_hash(given: &Given<Pool>, balance: Balance, faults: &mut Faults) {
    let Some(key) = given.hash.value().and_then(|hash| hash.key.given()) else { return };
    if balance != Balance::ConsistentHash && key.value != HashKey::ClientIp {
        let message = "`hash.key` matters only with `balance: consistent_hash`";
        let hint = "write `balance: consistent_hash`, or leave the key out";
        faults.warning(Code::WithoutEffect, key.span, message, hint);
    }
}

/// A datagram waits for nobody: by the time a backend is up, its client has sent another or given up.
fn warn_of_idle_hold(given: &Given<Pool>, users: Users, faults: &mut Faults) {
    let (Some(udp), None) = (users.udp, users.tcp) else { return };
    type NoneUp = Given<WhenNoneUp>;
    type Full = Given<WhenFull>;
    let (none_up, full) = (given.when_none_up.given(), given.when_full.given());
    let holds = [
        none_up.filter(|it| matches!(it.value, NoneUp::Hold(_))).map(|it| it.span),
        full.filter(|it| matches!(it.value, Full::Hold(_))).map(|it| it.span),
    ];
    for span in holds.into_iter().flatten() {
        let message = "`hold` matters only to TCP listeners, and none uses this pool";
        let hint = "write `refuse`, or leave the key out: datagrams are dropped meanwhile";
        let fault = Fault::warning(Code::WithoutEffect, span, message, hint);
        faults.push(fault.also(udp, "a UDP listener does"));
    }
}

/// What a client has sent is kept for another backend: a spliced byte is never seen, and a datagram is passed on at once.
fn check_retries(given: &Given<Pool>, users: Users, faults: &mut Faults) {
    let connect = given.connect.value();
    let Some(retry_until) = connect.and_then(|connect| connect.retry_until.given()) else { return };
    if retry_until.value != RetryUntil::FirstByte {
        return;
    }
    if let Some(udp) = users.udp {
        let message = "`retry_until: first_byte` is for sessions of TCP";
        let hint = "leave it out, or give the UDP listener another pool";
        let fault = Fault::error(Code::OtherProtocol, retry_until.span, message, hint);
        faults.push(fault.also(udp, "a UDP listener uses this pool"));
    }
    if connect.is_some_and(|connect| connect.attempts.value() == Some(&1)) {
        let message = "`retry_until` matters only where there may be another attempt";
        let hint = "allow `attempts: 2` or more, or leave it out";
        faults.warning(Code::WithoutEffect, retry_until.span, message, hint);
    }
    if let Some(splice) = users.splice {
        let message = "`retry_until: first_byte` keeps a client's first bytes, and spliced bytes are never seen";
        let hint = "write `relay: auto` or `relay: copy` in the listener";
        let fault = Fault::error(Code::NotTogether, retry_until.span, message, hint);
        faults.push(fault.also(splice, "this listener leads to the pool"));
    }
}

fn backends(
    pool: &Given<Pool>,
    balance: Balance,
    files: &mut NetFiles,
    faults: &mut Faults,
) -> (Vec<Backend>, Option<Arc<Discovery>>) {
    type Kind = Given<Found>;
    let is_listed = matches!(pool.discovery.value(), None | Some(Kind::Listed));
    if is_listed && !matches!(pool.discovery, Field::Faulty) {
        let hint = "list them, as in `backends: [\"10.0.0.11:5432\"]`";
        pool.backends.require("backends", pool.span, hint, faults);
    }
    let (listed, names) = listed(pool.backends.items(), faults);
    let discovery = discovery::build(pool, &listed, names.finders, files, faults);
    let is_given = pool.backends.value().is_some();
    if is_given && discovery.is_none() && listed.iter().all(|it| it.weight == 0) {
        let message = match listed.as_slice() {
            [] => "this pool has no backend: it can serve no client",
            _ => "every backend of this pool has weight 0: it can serve no client",
        };
        faults.warning(Code::NothingToDo, pool.span, message, "");
    }
    let Some(discovery) = discovery else { return (listed, None) };
    // Only files have been looked at.
    let read = discovery.finders.iter();
    let read = read.filter_map(|it| Some((it.origin.clone(), Arc::clone(it.read.as_ref()?))));
    (
        discovery.compose(balance, &read.collect(), |_| Vec::new(), |_| false).backends,
        Some(discovery),
    )
}

/// A source of one family cannot reach a backend of the other.
fn check_source(given: &Given<Pool>, faults: &mut Faults) {
    let (sources, backends) = (given.source.items(), given.backends.items());
    let families: Vec<bool> = backends
        .iter()
        .filter_map(|backend| Some(backend.value.address.value()?.at()?.ip()?.is_ipv4()))
        .collect();
    let fits = |source: &Placed<ZonedIp>| families.contains(&source.value.is_ipv4());
    if let (Some(first), Some(is_ipv4)) = (sources.first(), families.first())
        && !sources.iter().any(fits)
    {
        let (own, wanted) = if *is_ipv4 { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        let message = format!("every source is {own}, and every backend of this pool is {wanted}");
        let hint = format!("add an {wanted} address of this machine, or leave `source` out");
        faults.error(Code::SourceFamily, first.span, message, hint);
    }
}

fn proxy_version(pool: &Given<Pool>, users: Users, faults: &mut Faults) -> Option<ProxyVersion> {
    warn_of_idle_datagrams(pool, faults);
    let given = pool.send_proxy_protocol.given()?;
    match (given.value, users.udp) {
        (SendProxy::None, _) => None,
        (SendProxy::V1, Some(udp)) => {
            let message = "version 1 of PROXY knows no UDP";
            let hint = "write `send_proxy_protocol: v2`";
            let fault = Fault::error(Code::OtherProtocol, given.span, message, hint);
            faults.refuse(fault.also(udp, "a UDP listener uses this pool"))
        }
        (SendProxy::V1, None) => Some(ProxyVersion::V1),
        (SendProxy::V2, _) => Some(ProxyVersion::V2),
    }
}

fn proxy_tlvs(pool: &Given<Pool>, faults: &mut Faults) -> ProxyTlvs {
    let Some(given) = pool.send_proxy_tlvs.given() else { return ProxyTlvs::default() };
    let version = pool.send_proxy_protocol.value().unwrap_or(&SendProxy::None);
    if !given.value.is_empty() && *version != SendProxy::V2 {
        let message = "`send_proxy_tlvs` matters only with version 2 of `send_proxy_protocol`";
        let hint = "write `send_proxy_protocol: v2`, or leave the key out";
        faults.warning(Code::WithoutEffect, given.span, message, hint);
    }
    let has = |tlv| given.value.iter().any(|it| it.value == tlv);
    ProxyTlvs {
        authority: has(ProxyTlv::Authority),
        alpn: has(ProxyTlv::Alpn),
        crc32c: has(ProxyTlv::Crc32c),
    }
}

/// Whoever asks for it with every datagram wants it sent; the default stands in every complete file.
fn warn_of_idle_datagrams(pool: &Given<Pool>, faults: &mut Faults) {
    let Some(datagrams) = pool.send_proxy_datagrams.given() else { return };
    let is_sent = pool.send_proxy_protocol.value().is_some_and(|it| *it != SendProxy::None);
    if datagrams.value == ProxyDatagrams::Every && !is_sent {
        let message = "`send_proxy_datagrams` matters only with `send_proxy_protocol`";
        let hint = "write `send_proxy_protocol: v2`, or leave the key out";
        faults.warning(Code::WithoutEffect, datagrams.span, message, hint);
    }
}
