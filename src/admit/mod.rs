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

use std::ops::Deref;
use std::sync::Arc;

use crate::snapshot::Listener;
use crate::telemetry::record::CloseReason;

/// One session's place in its listener's limit, and its settings as they were when it was accepted.
pub struct ListenerPermit(Arc<Listener>);

/// The checks in order, cheap ones first. The process's own limit was taken before accept(), which pauses at it;
/// the backend's is taken by the pick.
pub fn admit(listener: Arc<Listener>) -> Result<ListenerPermit, (Arc<Listener>, CloseReason)> {
    if !listener.live.enter(listener.config.max_sessions) {
        return Err((listener, CloseReason::OverLimit));
    }
    Ok(ListenerPermit(listener))
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
