//! Admission: the limits that a session must pass before anything is spent on it, and the permits that give the
//! places back on drop.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::limits::{ClientNet, ClientPermit};
use crate::border::addr::ClientAddr;
use crate::border::record::CloseReason;
use crate::border::snapshot::{Listener, ListenerLive, Terms};

/// One session's place in its listener's limit, and the terms on which it was accepted.
pub struct ListenerPermit(Arc<Terms>);

/// An admitted client: a place in the listener's limit, and one in the client's own if that is limited.
pub struct Admission {
    pub listener: ListenerPermit,
    pub client: Option<ClientPermit>,
    /// A sender whose PROXY header is awaited, and the rules for the client that it announces.
    pub sender_of: Option<Arc<Listener>>,
}

/// The checks in order, cheap ones first. The process's own limit was taken before accept(), which pauses at it; the
/// backend's is taken by the pick. A client of a unix socket has no address, so `allow`, `deny` and the limits per
/// client do not apply to it: the socket file's permissions say which processes may use it.
///
/// `now_ns`: on the clock with which the listener's quotas are always used.
pub fn admit(
    listener: Arc<Listener>,
    client: ClientAddr,
    now_ns: u64,
) -> Result<Admission, (Arc<Listener>, CloseReason)> {
    let ip = client.ip();
    let is_sender = listener.trusts(ip);
    let client = if is_sender {
        look_at_sender(&listener, ip, now_ns).map(|()| None)
    } else {
        look_at(&listener, ip, now_ns).and_then(|()| client_place(&listener, ip))
    };
    let client = match client {
        Ok(permit) => permit,
        Err(reason) => return Err((listener, reason)),
    };
    if !listener.live.enter(listener.config.limits.sessions) {
        return Err((listener, CloseReason::OverLimit));
    }
    let permit = ListenerPermit(Arc::clone(&listener.terms));
    Ok(Admission { listener: permit, client, sender_of: is_sender.then_some(listener) })
}

/// Whether a client is admitted by the lists, and within the rates. The client's own rate comes before the
/// listener's: a client over its own does not use up the other.
pub fn look_at(listener: &Listener, ip: Option<IpAddr>, now_ns: u64) -> Result<(), CloseReason> {
    if ip.is_some_and(|ip| !listener.acl.allows(ip)) {
        return Err(CloseReason::Denied);
    }
    client_rate(listener, ip, now_ns)?;
    listener_rate(listener, now_ns)
}

/// Whether the client of an open session would be admitted now, and the sender that announced it. `is_sender`: it is
/// a trusted sender that has announced no client yet.
pub fn may_stay(
    listener: &Listener,
    client: Option<IpAddr>,
    sender: Option<IpAddr>,
    is_sender: bool,
) -> bool {
    let acl = &listener.acl;
    let is_allowed = |ip| if is_sender { !acl.denies(ip) } else { acl.allows(ip) };
    client.is_none_or(is_allowed) && sender.is_none_or(|ip| !acl.denies(ip))
}

/// Only a `deny` refuses a sender that is trusted to announce clients: `allow` and the limits per client apply to the
/// clients that it announces.
fn look_at_sender(listener: &Listener, ip: Option<IpAddr>, now_ns: u64) -> Result<(), CloseReason> {
    if ip.is_some_and(|ip| listener.acl.denies(ip)) {
        return Err(CloseReason::Denied);
    }
    listener_rate(listener, now_ns)
}

/// The rules for a client that a trusted sender announced; the listener's own limits were applied to the connection
/// when it came.
pub fn admit_announced(
    listener: &Listener,
    ip: IpAddr,
    now_ns: u64,
) -> Result<Option<ClientPermit>, CloseReason> {
    if !listener.acl.allows(ip) {
        return Err(CloseReason::Denied);
    }
    client_rate(listener, Some(ip), now_ns)?;
    client_place(listener, Some(ip))
}

fn client_rate(listener: &Listener, ip: Option<IpAddr>, now_ns: u64) -> Result<(), CloseReason> {
    let net = ip.map(ClientNet::of);
    if let (Some(rate), Some(net)) = (listener.config.limits.rate_per_client, net)
        && let Some(bucket) = listener.live.quotas.rates.bucket(net, now_ns)
        && bucket.take(rate, 1, now_ns) == 0
    {
        return Err(CloseReason::RateLimited);
    }
    Ok(())
}

fn listener_rate(listener: &Listener, now_ns: u64) -> Result<(), CloseReason> {
    let rate = listener.config.limits.rate;
    match rate.is_some_and(|rate| listener.live.quotas.rate.take(rate, 1, now_ns) == 0) {
        true => Err(CloseReason::RateLimited),
        false => Ok(()),
    }
}

/// One of the client's own places, if they are limited.
pub fn client_place(
    listener: &Listener,
    ip: Option<IpAddr>,
) -> Result<Option<ClientPermit>, CloseReason> {
    let (Some(limit), Some(ip)) = (listener.config.limits.sessions_per_client, ip) else {
        return Ok(None);
    };
    let place = listener.live.quotas.clients.enter(ClientNet::of(ip), limit);
    place.map(Some).ok_or(CloseReason::OverLimit)
}

/// A place among the sessions of a listener whose first bytes are awaited.
pub struct PrereadPermit(Arc<ListenerLive>);

impl PrereadPermit {
    /// One of at most `limit`, in one atomic step.
    pub fn enter(listener: &Terms, limit: Option<u64>) -> Option<PrereadPermit> {
        let limit = limit.unwrap_or(u64::MAX);
        let more = |count: u64| (count < limit).then_some(count + 1);
        let entered = listener.live.prereads.fetch_update(Relaxed, Relaxed, more);
        entered.is_ok().then(|| PrereadPermit(Arc::clone(&listener.live)))
    }
}

impl Drop for PrereadPermit {
    fn drop(&mut self) {
        self.0.prereads.fetch_sub(1, Relaxed);
    }
}

impl ListenerPermit {
    /// A place among at most `limit`.
    pub fn enter(listener: &Arc<Listener>, limit: Option<u64>) -> Option<ListenerPermit> {
        listener.live.enter(limit).then(|| ListenerPermit(Arc::clone(&listener.terms)))
    }
}

impl Deref for ListenerPermit {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.0
    }
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.0.live.leave();
    }
}
