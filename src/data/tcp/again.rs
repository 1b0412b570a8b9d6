//! `connect.retry_until: first_byte`: if a backend closes or resets before it says anything, another one is asked with
//! what the client sent so far.
//!
//! ```text
//! connect ──▶ relay, on trial ──first byte of the backend, or too much from the client──▶ relay
//!    ▲               │ the backend ended without a byte
//!    └─another one───┴──none──▶ relay: the client gets that end
//! ```

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::connect;
use super::half::{End, Half, Side, State};
use super::port_book::End as PortEnd;
use super::refusal::refuse;
use super::relay::Relay;
use super::replay::Replay;
use crate::border::record::{self, CloseReason, Stage};

impl Relay {
    /// The backend ended without a byte; returns whether another one is to be asked.
    pub(super) fn may_ask_another(&self) -> bool {
        // A client that was reset asks nobody any more.
        let state = self.to_backend.state;
        state != State::Ending(End::Reset) && {
            let has_ended = matches!(state, State::Done | State::Ending(End::Fin));
            self.session.asks_another(has_ended)
        }
    }

    /// Asks another backend with the same bytes, and goes on with it.
    pub async fn again(mut self, end: End) -> Result<Relay, CloseReason> {
        let session = Rc::clone(&self.session);
        self.leave_backend(end);
        let pool = session.told(|told| told.replay.as_ref().map(|it| Arc::clone(&it.pool)));
        let pool = pool.flatten().ok_or(CloseReason::Internal)?;
        let connected = match connect::connect(&session, &mut self.client, pool).await {
            Ok(connected) => connected,
            Err(reason) => {
                self.over = true;
                return Err(refuse(&session, &mut self.client, reason));
            }
        };
        session.stage.set(Stage::Relay);
        self.backend = connected.opened.stream;
        session.holds.slot.set(Some(connected.permit));
        session.holds.lease.set(connected.opened.lease.map(Box::new));
        if connected.client.has_looked() {
            self.client.announce_again().map_err(|_| CloseReason::Internal)?;
        }
        let kept = |replay: &Replay| Bytes::copy_from_slice(&replay.kept);
        let kept = session.told(|told| told.replay.as_deref().map(kept)).flatten();
        let mode = Relay::mode(&session, &self.client, &self.backend);
        // The client's end, if it was read, is read again.
        self.to_backend = Half::new(Side::Client, mode, session.is_on_trial());
        self.to_backend.begin_with(kept.unwrap_or_default());
        self.to_client = Half::new(Side::Backend, mode, session.is_on_trial());
        self.first_end = None;
        self.arm(true);
        Ok(self)
    }

    /// Closes the connection to a backend that ended it, and gives back what the session held there.
    fn leave_backend(&mut self, end: End) {
        let session = &self.session;
        self.to_backend.drop_pending(session);
        self.to_client.drop_pending(session);
        if self.to_backend.state != State::Done {
            // Its FIN came first, or there was a reset.
            if let Some(mut lease) = session.holds.lease.take() {
                lease.ended(PortEnd::Free);
            }
        }
        match end {
            End::Fin => self.backend.finish(),
            End::Reset => self.backend.reset_on_close(),
        }
        session.holds.lease.set(None);
        session.holds.slot.set(None);
        session.failed_attempts.set(session.failed_attempts.get().saturating_add(1));
        let bytes = session.bytes.get();
        session.bytes.set(record::Bytes { backend_sent: 0, ..bytes });
    }
}
