//! Holding a client, in stage `route`, until a backend can be had: `when_none_up: hold`, `when_full: hold`. Asked whenever a
//! session would end for want of a backend, also after attempts that failed. The time runs from accept.
//!
//! A held session tries again when something changes. Where a try is the only way to find out, as with a backend that
//! refused and that the probes have not looked at since, one of all that are held tries every quarter of a second, and
//! when it is served the others follow at once.

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
    // Who got no place ends where it was.
    session.stage.set(Stage::Route);
    loop {
        // Registered before looking, so that no wake-up falls between the look and the wait.
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
            // More rest than can be passed over. Giving this one back wakes another session, which is not to wake us.
            search.begin_anew();
            return None;
        }
        // Another one was first to try it.
        resting.push(picked.index);
    }
}
