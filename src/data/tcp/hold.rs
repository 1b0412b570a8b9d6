//! Holds a client in stage `route` until a backend is available: `when_none_up: hold`, `when_full: hold`. Used
//! whenever a session would end for lack of a backend, also after failed attempts. The time runs from accept.
//!
//! Of all held sessions of a pool the oldest has the turn (`data/pool/queue`), whichever worker it is on. It picks when
//! something changes. If only an attempt can tell, as with a backend that refused and was not probed since, it tries
//! every quarter of a second. When it is served, the others follow: as many as there is room for, and at a pace if the
//! backend has just come (`data/pool/inflow`).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::search::{Hold, Search};
use super::watch::Waiting;
use crate::border::record::{CloseReason, Stage};
use crate::config;
use crate::data::pool::queue::Turn;
use crate::data::pool::{Held, PickError, Picked, Tried};
use crate::sys::clock::Moment;

/// How often it is checked although no change was reported.
const LOOK: Duration = Duration::from_millis(250);

/// Longer than anybody is held: without the turn there is nothing to look at.
const ASLEEP: Duration = Duration::from_secs(2 * 3600);

/// Waits until a backend can be picked; a reload may put another version of the pool in place meanwhile.
pub async fn wait(
    search: &mut Search<'_>,
    error: PickError,
    config: config::Hold,
) -> Result<Picked, CloseReason> {
    let session = search.session;
    if search.hold.is_none() {
        let place = Held::enter(&search.pool.shared.queue, session.id, config.max);
        let place = place.ok_or_else(|| search.gave_up(error))?;
        let left = config.time.saturating_sub(session.started.elapsed());
        let deadline = Box::pin(sleep(left));
        search.hold = Some(Box::new(Hold { place, deadline, has_tried: false }));
    }
    // A session that got no place ends with the reason that it had.
    session.stage.set(Stage::Route);
    let mut look = pin!(sleep(LOOK));
    loop {
        poll_fn(|cx| poll_turn(search, error, look.as_mut(), cx)).await?;
        search.pool = session.pool().ok_or(CloseReason::NoRoute)?;
        match pick(search) {
            Ok(picked) => {
                search.begin_anew();
                return Ok(picked);
            }
            Err(wait) => look.as_mut().reset(Instant::now() + wait),
        }
    }
}

/// Ready when the session has the turn, or what ends it.
fn poll_turn(
    search: &mut Search<'_>,
    error: PickError,
    mut look: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), CloseReason>> {
    if let Some(reason) = search.session.poll_cut(cx) {
        return Poll::Ready(Err(reason));
    }
    let Search { watch, client, hold, pool, has_asked, .. } = search;
    let waiting = Waiting::Held { has_asked: *has_asked };
    if let Poll::Ready(reason) = watch.poll_left(client, waiting, cx) {
        return Poll::Ready(Err(reason));
    }
    // It has one since it was held.
    let Some(hold) = hold else { return Poll::Ready(Err(CloseReason::Internal)) };
    if hold.deadline.as_mut().poll(cx).is_ready() {
        if error != PickError::AllFull {
            pool.shared.no_backend.add(1);
        }
        return Poll::Ready(Err(CloseReason::HoldTimeout));
    }
    loop {
        let now = Instant::now();
        match hold.place.turn(hold.has_tried, now.into_std(), cx) {
            Turn::Now => return Poll::Ready(Ok(())),
            Turn::Soon(wait) => look.as_mut().reset(now + wait),
            Turn::NotNow => {}
        }
        if look.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        hold.place.call_self();
        look.as_mut().reset(now + ASLEEP);
    }
}

/// A backend that is not left alone now; or how long until it is worth another look, if nothing changes.
fn pick(search: &mut Search<'_>) -> Result<Picked, Duration> {
    let now = Moment::now();
    let (mut left_alone, soonest) = search.pool.left_alone(now);
    let wait = soonest.map_or(LOOK, |soonest| soonest.min(LOOK));
    loop {
        let picked = search.pick(&left_alone).map_err(|_| wait)?;
        let backend = picked.backend();
        if search.pool.lets_through(backend, now) && backend.live.rest.may_try(LOOK) {
            return Ok(picked);
        }
        if left_alone.len() == Tried::MAX {
            // More than can be passed over. Giving this slot back calls us, and must not wake us again and again.
            drop(picked);
            if let Some(hold) = &search.hold {
                hold.place.not_called();
            }
            return Err(wait);
        }
        // It was left alone for another reason than a moment ago, or another session was the first to try it.
        left_alone.push(picked.index);
    }
}
