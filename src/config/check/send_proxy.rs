//! The PROXY header for backends: which version can be sent depends on who uses the pool.

use super::reference::Users;
use crate::config::decode::Given;
use crate::config::fault::{Code, Fault, Faults};
use crate::config::keys::{Pool, ProxyDatagrams, ProxyTlv, SendProxy};
use crate::config::value::{ProxyTlvs, ProxyVersion};

pub fn version(pool: &Given<Pool>, users: Users, faults: &mut Faults) -> Option<ProxyVersion> {
    warn_of_idle_datagrams(pool, faults);
    let given = pool.send_proxy_protocol.given()?;
    match (given.value, users.udp) {
        (SendProxy::None, _) => None,
        (SendProxy::V1, Some(udp)) => {
            let message = "version 1 of PROXY knows no UDP";
            let fault = Fault::error(Code::OtherProtocol, given.span, message);
            faults.push(
                fault
                    .also(udp, "a UDP listener uses this pool")
                    .hint("write `send_proxy_protocol: v2`"),
            );
            None
        }
        (SendProxy::V1, None) => Some(ProxyVersion::V1),
        (SendProxy::V2, _) => Some(ProxyVersion::V2),
    }
}

pub fn tlvs(pool: &Given<Pool>, faults: &mut Faults) -> ProxyTlvs {
    let Some(given) = pool.send_proxy_tlvs.given() else { return ProxyTlvs::default() };
    let version = pool.send_proxy_protocol.value().unwrap_or(&SendProxy::None);
    if !given.value.is_empty() && *version != SendProxy::V2 {
        let message = "`send_proxy_tlvs` matters only with version 2 of `send_proxy_protocol`";
        let fault = Fault::warning(Code::WithoutEffect, given.span, message);
        faults.push(fault.hint("write `send_proxy_protocol: v2`, or leave the key out"));
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
        let fault = Fault::warning(Code::WithoutEffect, datagrams.span, message);
        faults.push(fault.hint("write `send_proxy_protocol: v2`, or leave the key out"));
    }
}
