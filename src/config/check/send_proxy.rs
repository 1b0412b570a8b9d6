//! The PROXY header for backends: which version can be sent depends on who uses the pool.

use super::reference::Users;
use crate::config::fault::{Code, Fault, Faults};
use crate::config::raw::{self, SendProxy};
use crate::config::{ProxyDatagrams, ProxyVersion};

pub fn build(raw: &raw::Pool, users: Users, faults: &mut Faults) -> Option<ProxyVersion> {
    warn_of_idle_datagrams(raw, faults);
    let given = raw.send_proxy_protocol.given()?;
    let fault = match (given.value, users.tcp, users.udp) {
        (SendProxy::None, _, _) => return None,
        (SendProxy::V1, _, Some(udp)) => {
            Fault::error(Code::OtherProtocol, given.span, "version 1 of PROXY knows no UDP")
                .also(udp, "a UDP listener uses this pool")
                .hint("write `send_proxy_protocol: v2`")
        }
        (_, Some(tcp), _) => {
            let message = "a PROXY header is not supported yet for pools of TCP listeners";
            let fault = Fault::error(Code::NotYet, given.span, message);
            fault.also(tcp, "a TCP listener uses this pool").hint("remove it for now")
        }
        (SendProxy::V1, None, None) => {
            let message = "version 1 of PROXY is not supported yet";
            Fault::error(Code::NotYet, given.span, message).hint("this version knows `v2`, for UDP")
        }
        (SendProxy::V2, None, _) => return Some(ProxyVersion::V2),
    };
    faults.push(fault);
    None
}

/// Whoever asks for it with every datagram wants it sent; the default stands in every complete file.
fn warn_of_idle_datagrams(raw: &raw::Pool, faults: &mut Faults) {
    let Some(datagrams) = raw.send_proxy_datagrams.given() else { return };
    let is_sent = raw.send_proxy_protocol.value().is_some_and(|it| *it != SendProxy::None);
    if datagrams.value == ProxyDatagrams::Every && !is_sent {
        let message = "`send_proxy_datagrams` matters only with `send_proxy_protocol`";
        let fault = Fault::warning(Code::WithoutEffect, datagrams.span, message);
        faults.push(fault.hint("write `send_proxy_protocol: v2`, or leave the key out"));
    }
}
