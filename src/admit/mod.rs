//! Who may come in: the limits a session is held against before anything is spent on it, and the permits
//! that give the places back on drop.

mod gate;

pub use gate::{Gate, GatePermit};

use std::sync::Arc;

use crate::snapshot::Listener;
use crate::telemetry::record::CloseReason;

/// One session's place in its listener's limit.
pub struct ListenerPermit {
    listener: Arc<Listener>,
}

/// Every place a session holds from accept to close; its backend's is taken by the pick.
pub struct Permit {
    pub process: GatePermit,
    pub listener: ListenerPermit,
}

/// The checks in order, cheap ones first. The process's own limit was taken before accept(), which pauses at
/// it; `process` is that place.
pub fn admit(listener: &Arc<Listener>, process: GatePermit) -> Result<Permit, CloseReason> {
    if !listener.live.enter(listener.config.max_sessions) {
        return Err(CloseReason::OverLimit);
    }
    Ok(Permit { process, listener: ListenerPermit { listener: Arc::clone(listener) } })
}

impl Permit {
    pub fn listener(&self) -> &Listener {
        &self.listener.listener
    }
}

impl Drop for ListenerPermit {
    fn drop(&mut self) {
        self.listener.live.leave();
    }
}
