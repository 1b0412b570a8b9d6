//! Who may come in: the limits a session is held against before anything is spent on it, and the permits
//! that give the places back on drop.

mod gate;
mod acl;
mod rate;
mod client;
mod quotas;

pub use acl::Acl;
pub use client::{ClientNet, ClientPermit, ClientRates, Clients};
pub use gate::{Gate, GatePermit};
pub use quotas::Quotas;
pub use rate::Bucket;

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::addr::ClientAddr;
use crate::snapshot::Listener;
use crate::telemetry::record::CloseReason;

/// One session's place in its listener's limit, and its settings as they were when it was accepted.
pub struct ListenerPermit(Arc<Listener>);

/// Who was let in: a place in the listener's limit, and one in the client's own where that is limited.
pub struct Admission {
    pub listener: ListenerPermit,
    pub client: Option<ClientPermit>,
}

/// The checks in order, cheap ones first. The process's own limit was taken before accept(), which pauses at it;
/// the backend's is taken by the pick. A client of a unix socket has no address, so `allow`, `deny` and the limits of
/// each client say nothing about it: who may use the socket is said by its file.
///
/// `now_ns`: on the clock that the listener's quotas are always asked with.
pub fn admit(
    listener: Arc<Listener>,
    client: ClientAddr,
    now_ns: u64,
) -> Result<Admission, (Arc<Listener>, CloseReason)> {
    let looked = look_at(&listener, client.ip(), now_ns);
    let client = match looked.and_then(|()| client_place(&listener, client.ip())) {
        Ok(permit) => permit,
        Err(reason) => return Err((listener, reason)),
    };
    if !listener.live.enter(listener.config.max_sessions) {
        return Err((listener, CloseReason::OverLimit));
    }
    Ok(Admission { listener: ListenerPermit(listener), client })
}

/// Whether a client may come in, and comes slowly enough. Its own rate before the listener's: who is over the one does
/// not use up the other.
pub fn look_at(listener: &Listener, ip: Option<IpAddr>, now_ns: u64) -> Result<(), CloseReason> {
    if ip.is_some_and(|ip| !listener.acl.allows(ip)) {
        return Err(CloseReason::Denied);
    }
    let (limits, quotas) = (&listener.config.limits, &listener.live.quotas);
    let net = ip.map(ClientNet::of);
    if let (Some(rate), Some(net)) = (limits.rate_per_client, net)
        && let Some(bucket) = quotas.rates.bucket(net, now_ns)
        && bucket.take(rate, 1, now_ns) == 0
    {
        return Err(CloseReason::RateLimited);
    }
    if limits.rate.is_some_and(|rate| quotas.rate.take(rate, 1, now_ns) == 0) {
        return Err(CloseReason::RateLimited);
    }
    Ok(())
}

/// One of the client's own places, where they are limited.
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

impl ListenerPermit {
    /// A place among at most `limit`.
    pub fn enter(listener: &Arc<Listener>, limit: Option<u64>) -> Option<ListenerPermit> {
        listener.live.enter(limit).then(|| ListenerPermit(Arc::clone(listener)))
    }
}

impl Deref for ListenerPermit {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.0
    }
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.0.live.leave();
    }
}
