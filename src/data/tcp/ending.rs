//! Records a session when it goes out of scope, whatever happened, exactly once.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::resources::Resources;
use super::session::Session;
use super::worker::Worker;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::record::{CloseReason, Record, Stage, can_occur};
use crate::border::snapshot::Listener;
use crate::config::Protocol;
use crate::data::pool::SESSION_BOUNDS;

/// Records the session when it goes out of scope, and takes it off the worker's roster.
pub struct Ending {
    pub session: Rc<Session>,
    pub worker: Rc<Worker>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Ending { session, worker } = self;
        worker.sessions.borrow_mut().leave(session.seat.get());
        if worker.sessions.borrow().is_empty() {
            worker.pipes.borrow_mut().close_idle();
        }
        let (stage, reason) = (session.stage.get(), session.reason.get());
        debug_assert!(
            can_occur(Protocol::Tcp, stage, reason),
            "{stage:?} cannot end with {reason:?}"
        );
        let worker = worker.id;
        session.listener.live.counters.of(worker).closed(stage, reason).add(1);
        if stage == Stage::Relay {
            session.with_backend(|backend| {
                let durations = &backend.shared.counters.of(worker).session_duration;
                durations.observe(&SESSION_BOUNDS, session.started.elapsed());
            });
        }
        let log = &session.worker.plane.session_log;
        if log.wants(reason) {
            log.write(Record {
                id: session.id,
                listener: Arc::clone(&session.listener.config.name),
                protocol: Protocol::Tcp,
                client: session.client(),
                sender: session.told(|told| told.sender).flatten(),
                local: session.local(),
                server_name: session.told(|told| told.server_name().map(str::to_owned)).flatten(),
                cause: session.told(|told| told.cause.clone()).flatten(),
                pool: session.pool_name(),
                backend: session.with_backend(|backend| Arc::clone(&backend.name)),
                tried: u32::from(session.failed_attempts.get()),
                stage,
                reason,
                bytes: session.all_bytes(),
                connect: session.times.get().connect.map(duration),
                first_byte: session.times.get().first_byte.map(duration),
                duration: session.started.elapsed(),
            });
        }
    }
}

/// Records a client that was refused before it became a session.
pub fn record_refusal(
    worker: &Resources,
    listener: &Listener,
    client: ClientAddr,
    local: LocalAddr,
    stage: Stage,
    reason: CloseReason,
) {
    let counters = listener.live.counters.of(worker.id);
    counters.sessions.add(1);
    counters.closed(stage, reason).add(1);
    if worker.plane.session_log.wants(reason) {
        let id = worker.plane.next_session_id();
        let ends = (client, local);
        worker.plane.session_log.write(Record::refusal(id, &listener.config, ends, stage, reason));
    }
}

fn duration(microseconds: NonZeroU32) -> Duration {
    Duration::from_micros(u64::from(microseconds.get()))
}
