//! The search of one session for a backend: what was tried, why it failed, and whether the client may be held.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::failure::Failure;
use super::session::Session;
use super::watch::Watch;
use crate::border::plane::SETTLING;
use crate::border::record::CloseReason;
use crate::config::{self, WhenFull, WhenNoneUp};
use crate::data::pool::{Held, PickError, PickKey, Picked, Pool, Tried};
use crate::data::stream::Stream;

/// Looking for a backend that answers, while the client is watched.
pub struct Search<'a> {
    pub session: &'a Rc<Session>,
    pub client: &'a mut Stream,
    /// A reload may put another version in its place while the session is held.
    pub pool: Arc<Pool>,
    pub watch: Watch,
    pub tried: Tried,
    /// Of the last attempt.
    pub failure: Option<Failure>,
    /// Once it was held: boxed, for few are.
    pub hold: Option<Box<Hold>>,
}

/// How often somebody looks although nothing told of a change.
pub const LOOK: Duration = Duration::from_millis(250);

/// A session's place among the held ones, and its time, over all of its tries.
pub struct Hold {
    pub(super) _place: Held,
    pub(super) deadline: Pin<Box<Sleep>>,
    /// One that tried and failed lets others try first.
    pub tried: Option<Instant>,
}

impl Hold {
    pub fn may_try(&mut self) -> bool {
        !self.deadline.is_elapsed() && self.tried.is_none_or(|tried| tried.elapsed() >= LOOK)
    }
}

impl Search<'_> {
    pub fn pick(&self, tried: &Tried) -> Result<Picked, PickError> {
        let client = self.session.client();
        let by = |server_name: Option<&str>| {
            self.pool.pick(&PickKey { client, server_name }, tried, Instant::now())
        };
        self.session.told(|told| by(told.server_name())).unwrap_or_else(|| by(None))
    }

    /// Whether the pool lets a client wait rather than turning it away. A wait helps against nothing but a want of backends.
    pub fn hold_for(&self, error: PickError) -> Option<config::Hold> {
        if !self.failure.is_none_or(Failure::may_pass) {
            return None;
        }
        match (error, self.pool.config.when_full, self.pool.config.when_none_up) {
            (PickError::AllFull, WhenFull::Hold(hold), _) => Some(hold),
            (PickError::NoneUp | PickError::AllTried, _, WhenNoneUp::Hold(hold)) => Some(hold),
            // Not all are full: one of them failed.
            (PickError::AllFull, _, WhenNoneUp::Hold(hold)) if self.failure.is_some() => Some(hold),
            // Who serves here was asked for and is not known yet, which is over soon.
            (PickError::NoneUp, _, _) if self.pool.waits_for_tier() => {
                Some(config::Hold { time: SETTLING, max: 1_000 })
            }
            _ => None,
        }
    }

    /// Whether those that failed may be tried once more, for no other is left.
    pub fn may_return(&self, error: PickError) -> bool {
        error != PickError::NoneUp && self.failure.is_some_and(Failure::may_pass)
    }

    /// It was held, and is about to try: whom it tried before may be there now, in another version of the pool at that.
    pub fn begin_anew(&mut self) {
        self.tried = Tried::default();
        if let Some(hold) = &mut self.hold {
            hold.tried = Some(Instant::now());
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
