//! The search of one session for a backend: what was tried, why it failed, and whether the client may be held.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::time::Sleep;

use super::failure::Failure;
use super::session::Session;
use super::watch::Watch;
use crate::border::plane::SETTLING;
use crate::border::record::CloseReason;
use crate::config::{self, WhenFull, WhenNoneUp};
use crate::data::pool::{Held, PickError, PickKey, Picked, Pool, Tried};
use crate::data::stream::Stream;

/// While names of backends are not resolved, without any `hold`.
const UNRESOLVED: config::Hold = config::Hold { time: SETTLING, max: 1_000 };

/// The search for a backend that answers, while the client is watched.
pub struct Search<'a> {
    pub session: &'a Rc<Session>,
    pub client: &'a mut Stream,
    /// A reload may put another version in its place while the session is held.
    pub pool: Arc<Pool>,
    pub watch: Watch,
    pub tried: Tried,
    /// Of the last attempt.
    pub failure: Option<Failure>,
    /// Set once the session was held: boxed, because few are.
    pub hold: Option<Box<Hold>>,
    /// Backends ended without a byte (`again`): none of them is tried again.
    is_again: bool,
    /// Bytes of the client were read, and are kept for the backend.
    pub has_asked: bool,
}

/// A session's place among the held ones, and its time, over all of its attempts.
pub struct Hold {
    pub(super) place: Held,
    pub(super) deadline: Pin<Box<Sleep>>,
    /// A session whose attempt failed lets others try first.
    pub(super) has_tried: bool,
}

impl<'a> Search<'a> {
    pub fn new(session: &'a Rc<Session>, client: &'a mut Stream, pool: Arc<Pool>) -> Search<'a> {
        let resumed = session.resumed();
        Search {
            session,
            client,
            pool,
            watch: Watch::default(),
            tried: resumed.as_ref().map_or_else(Tried::default, |it| it.tried),
            failure: None,
            hold: None,
            is_again: resumed.is_some(),
            has_asked: resumed.is_some_and(|it| it.has_asked),
        }
    }

    /// How many it may make.
    pub fn attempts(&self) -> u32 {
        self.session.resumed().map_or(self.pool.config.connect.attempts, |it| it.left)
    }
}

impl Search<'_> {
    /// A backend for it; or why there is none now, and how it may wait for one.
    pub fn look(&self, left: u32) -> Result<Picked, (PickError, Option<config::Hold>)> {
        let missing = |error| (error, self.hold_for(error));
        if let Some(picked) = self.session.take_next() {
            return Ok(picked);
        }
        match left {
            0 => Err(missing(PickError::AllTried)),
            _ if self.hold.is_none() && self.pool.shared.queue.held() > 0 => self.queue_up(),
            _ => self.pick(&self.tried).map_err(missing),
        }
    }

    /// A newcomer does not overtake those who are held: it goes to the end of the queue, and the oldest is let through in
    /// its place. If the queue is as long as it may be, it passes if there is room for all who wait, too.
    fn queue_up(&self) -> Result<Picked, (PickError, Option<config::Hold>)> {
        let missing = |error| (error, self.hold_for(error));
        let hold = match (self.pool.config.when_none_up, self.pool.config.when_full) {
            (WhenNoneUp::Hold(hold), WhenFull::Hold(other)) if other.time > hold.time => other,
            (WhenNoneUp::Hold(hold), _) | (_, WhenFull::Hold(hold)) => hold,
            _ => UNRESOLVED,
        };
        let behind = (PickError::AllFull, Some(hold));
        let queue = &self.pool.shared.queue;
        let (held, room) = (queue.held(), self.pool.room());
        if room > 0 {
            queue.give_way();
            let passes = held >= hold.max && room > held;
            return if passes { self.pick(&self.tried).map_err(missing) } else { Err(behind) };
        }
        // A pick says what is missing. What it finds was given back since, and is for the oldest; or it failed, and who
        // gets no place may try it.
        let picked = self.pick(&self.tried).map_err(missing)?;
        let is_lifted = picked.backend().live.rest.is_lifted();
        if held >= hold.max && !is_lifted { Ok(picked) } else { Err(behind) }
    }

    pub fn pick(&self, tried: &Tried) -> Result<Picked, PickError> {
        let client = self.session.client();
        let by = |server_name: Option<&str>| {
            self.pool.pick(&PickKey { client, server_name }, tried, Instant::now())
        };
        self.session.told(|told| by(told.server_name())).unwrap_or_else(|| by(None))
    }

    /// Whether the pool lets this client wait instead of refusing it. Waiting helps only if backends are what is
    /// missing.
    pub fn hold_for(&self, error: PickError) -> Option<config::Hold> {
        if !self.failure.is_none_or(Failure::may_pass) {
            return None;
        }
        match (error, self.pool.config.when_full, self.pool.config.when_none_up) {
            (PickError::AllFull, WhenFull::Hold(hold), _) => Some(hold),
            (PickError::NoneUp | PickError::AllTried, _, WhenNoneUp::Hold(hold)) => Some(hold),
            // Not all are full: one of them failed.
            (PickError::AllFull, _, WhenNoneUp::Hold(hold)) if self.failure.is_some() => Some(hold),
            // The names of this tier are not resolved yet, which takes only a moment.
            (PickError::NoneUp, _, _) if self.pool.waits_for_tier() => Some(UNRESOLVED),
            _ => None,
        }
    }

    /// Whether the backends that failed may be tried once more, because no other is left.
    pub fn may_return(&self, error: PickError) -> bool {
        !self.is_again && error != PickError::NoneUp && self.failure.is_some_and(Failure::may_pass)
    }

    /// It was held, and is about to try again: the backends that it tried before may be up now, and the pool may be
    /// another version.
    pub fn begin_anew(&mut self) {
        self.tried = Tried::default();
        if let Some(hold) = &mut self.hold {
            hold.has_tried = true;
        }
    }

    /// Why there is none.
    pub fn gave_up(&self, error: PickError) -> CloseReason {
        match (self.failure, error) {
            (Some(failure), _) => failure.reason(),
            (None, PickError::AllFull) => CloseReason::BackendFull,
            (None, PickError::AllTried | PickError::NoneUp) => {
                self.pool.shared.no_backend.add(1);
                CloseReason::NoBackend
            }
        }
    }
}
