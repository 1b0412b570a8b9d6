//! Holds a client in stage `route` until a backend is available: `when_none_up: hold`, `when_full: hold`. Used
//! whenever a session would end for lack of a backend, also after failed attempts. The time runs from accept.
//!
//! A held session tries again when something changes. If only an attempt can tell, as with a backend that refused and
//! was not probed since, one of all held sessions tries every quarter of a second. When it is served, the others
//! follow at once.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use tokio::time::sleep;

use super::search::{Hold, LOOK, Search};
use super::watch::Waiting;
use crate::border::record::{CloseReason, Stage};
use crate::config;
use crate::data::pool::{PickError, Picked, Tried};

/// Waits until a backend can be picked; a reload may put another version of the pool in place meanwhile.
pub async fn wait(
    search: &mut Search<'_>,
    error: PickError,
    config: config::Hold,
) -> Result<Picked, CloseReason> {
    let session = search.session;
    let shared = Arc::clone(&search.pool.shared);
    if search.hold.is_none() {
        let place = shared.hold(config.max).ok_or_else(|| search.gave_up(error))?;
        let left = config.time.saturating_sub(session.started.elapsed());
        let deadline = Box::pin(sleep(left));
        search.hold = Some(Box::new(Hold { _place: place, deadline, tried: None }));
    }
    // A session that got no place ends with the reason that it had.
    session.stage.set(Stage::Route);
    loop {
        // Registered before checking, so that no wake-up is lost between the check and the wait.
        let mut changed = pin!(shared.changed.notified());
        changed.as_mut().enable();
        search.pool = session.pool().ok_or(CloseReason::NoRoute)?;
        let mut look = pin!(sleep(LOOK));
        if search.hold.as_mut().is_some_and(|hold| hold.may_try())
            && let Some(picked) = pick(search)
        {
            search.begin_anew();
            return Ok(picked);
        }
        poll_fn(|cx| {
            if let Some(reason) = session.poll_cut(cx) {
                return Poll::Ready(Err(reason));
            }
            let Search { watch, client, hold, .. } = search;
            if let Poll::Ready(reason) = watch.poll_left(client, Waiting::Held, cx) {
                return Poll::Ready(Err(reason));
            }
            let deadline = hold.as_mut().map(|hold| hold.deadline.as_mut().poll(cx));
            if deadline.is_none_or(|deadline| deadline.is_ready()) {
                if error != PickError::AllFull {
                    shared.no_backend.add(1);
                }
                return Poll::Ready(Err(CloseReason::HoldTimeout));
            }
            match changed.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(())),
                Poll::Pending => look.as_mut().poll(cx).map(Ok),
            }
        })
        .await?;
    }
}

/// A backend that is not left alone now.
fn pick(search: &mut Search<'_>) -> Option<Picked> {
    let mut resting = search.pool.resting();
    loop {
        let picked = search.pick(&resting).ok()?;
        if picked.backend().live.rest.may_try(LOOK) {
            return Some(picked);
        }
        if resting.len() == Tried::MAX {
            // More failed backends than can be skipped. Giving this slot back wakes another session, which must not
            // wake us.
            search.begin_anew();
            return None;
        }
        // Another session was the first to try it.
        resting.push(picked.index);
    }
}
