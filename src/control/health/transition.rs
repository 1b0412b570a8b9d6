//! From a verdict or an ejection to the backend's state. The order of locks is the pool's order, the ejection's book, then
//! the status.
//! Decisions here are made under both, so that a worker that ejects and a probe that decides cannot undo each other's
//! work. What was set by hand has priority: `drain` and `maintenance` stay, and the verdict is noted below them.

use std::time::{Instant, SystemTime};

pub use crate::border::quantities::moment as time;
use crate::config::DownReason;
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState};
use crate::data::pool::failures::Ejection;
use crate::data::pool::fitness::Standing;
use crate::data::pool::hand::{Hand, HandState, Set};

/// What happened to a backend: its new state, and the ejection that ended with it.
#[derive(Debug)]
pub struct Transition {
    pub to: BackendState,
    /// Why the backend is lost to those it has, if it is.
    pub lost: Option<DownReason>,
    pub why: String,
    pub ended: Option<Ejection>,
    /// Out of `starting`: at a start every backend does this, and it is not worth an event for most.
    pub is_first: bool,
    /// By an operator's change.
    pub is_by_hand: bool,
}

impl Transition {
    /// Whether the change by hand has been reported by its caller. The state below it may still be news.
    pub fn is_told(&self) -> bool {
        self.is_by_hand && !matches!(self.to, BackendState::Down | BackendState::Ejected)
    }
}

/// The probes have a new verdict. Whoever it puts out of its place in the pool loses it first.
pub fn settle(
    pool: &Pool,
    backend: &Backend,
    verdict: Standing,
    why: String,
    now: Instant,
    wall: SystemTime,
) -> Option<Transition> {
    let mut order = pool.order();
    order.note_verdict(pool, backend, (verdict, why), now, wall);
    let outlier = &backend.live.outlier;
    let mut book = outlier.book();
    let mut is_first = false;
    let mut settled = (BackendState::from(verdict), String::new());
    let changed = backend.change(now, wall, |status| {
        is_first = status.state == BackendState::Starting && !status.returns;
        status.returns = false;
        settled = status.settled();
        let by_hand = matches!(status.state, BackendState::Drain | BackendState::Maintenance);
        (!by_hand).then(|| settled.clone())
    });
    order.follow_up(pool, now, wall);
    if changed.is_none() {
        order.tell_of_hold(pool, backend);
        return None;
    }
    backend.status().part.is_told = true;
    // Down has priority over ejected, and up ends an ejection.
    let ended = outlier.end(&mut book);
    let status = backend.status();
    let (to, why) = settled;
    let wait = status.part.wait_in_words();
    let last = status.last_probe.as_ref();
    let last = last.map_or_else(String::new, |(last, _)| format!(", last: {last}"));
    let why = format!("{why}{wait}{last}");
    Some(Transition { to, lost: status.lost, why, ended, is_first, is_by_hand: false })
}

/// A probe that began at `begun` passed: a backend that was ejected before that is back.
pub fn vindicate(
    backend: &Backend,
    begun: Instant,
    now: Instant,
    wall: SystemTime,
) -> Option<Transition> {
    if !backend.live.outlier.is_ejected() {
        return None;
    }
    end_ejection(backend, "a probe passed", now, wall, |ejection| ejection.since <= begun)
}

/// Ends an ejection whose time is over, or for which there is no rule any more.
pub fn expire(
    backend: &Backend,
    is_ruled: bool,
    now: Instant,
    wall: SystemTime,
) -> Option<Transition> {
    let why = if is_ruled { "the ejection is over" } else { "passive ejection is off" };
    end_ejection(backend, why, now, wall, |ejection| !is_ruled || now >= ejection.until)
}

fn end_ejection(
    backend: &Backend,
    why: &str,
    now: Instant,
    wall: SystemTime,
    is_over: impl FnOnce(&Ejection) -> bool,
) -> Option<Transition> {
    let outlier = &backend.live.outlier;
    let mut book = outlier.book();
    if !is_over(book.ejection()?) {
        return None;
    }
    let ended = outlier.end(&mut book);
    let (mut to, mut why) = (BackendState::Up, why.to_owned());
    backend.change(now, wall, |status| {
        let takes_nothing = backend.takes_nothing_at_start() || status.returns;
        if status.part.is_kept_from_serving() {
            (to, why) = status.settled();
        } else if status.verdict == Standing::Starting && takes_nothing {
            // Only `try_all` sent sessions here; a while without sessions proves nothing.
            to = BackendState::Starting;
        }
        (status.state == BackendState::Ejected).then(|| (to, why.clone()))
    })?;
    let lost = backend.status().lost;
    Some(Transition { to, lost, why, ended, is_first: false, is_by_hand: false })
}

/// Something was set by hand, or lifted: then ejection and verdict count again. A backend in maintenance was not
/// probed and may have changed, so its old verdict no longer counts.
pub fn by_hand(
    backend: &Backend,
    hand: Hand,
    now: Instant,
    wall: SystemTime,
) -> Option<Transition> {
    let mut book = backend.live.outlier.book();
    let is_ejected = book.ejection().is_some();
    let mut transition = None;
    backend.change(now, wall, |status| {
        let is_over = status.state == BackendState::Maintenance
            && hand.state.as_ref().is_none_or(|set| set.value != HandState::Maintenance);
        if is_over && backend.is_probed {
            status.returns = true;
            status.verdict = Standing::Starting;
            status.verdict_why = RETURNS.to_owned();
        }
        let is_set = matches!(status.state, BackendState::Drain | BackendState::Maintenance);
        let (to, why) = match &hand.state {
            Some(set) => (set.value.into(), set_by_hand(set)),
            None if is_set && is_ejected => (BackendState::Ejected, LIFTED.to_owned()),
            None if is_set => status.settled(),
            None => (status.state, status.why.clone()),
        };
        status.part.is_let &= hand.state.is_none();
        status.hand = hand;
        transition = Some(Transition {
            to,
            lost: None,
            why: why.clone(),
            ended: None,
            is_first: false,
            is_by_hand: true,
        });
        Some((to, why))
    })?;
    transition.map(|it| Transition { lost: backend.status().lost, ..it })
}

const RETURNS: &str = "back from maintenance, no probe has decided yet";
const LIFTED: &str = "what was set by hand is lifted";

fn set_by_hand<T>(set: &Set<T>) -> String {
    let until = set.until.map_or_else(String::new, |until| format!(" until {}", time(until)));
    format!("by hand{until} ({})", set.who)
}

/// Reports an ejection that was not reported yet.
pub fn announce(backend: &Backend) -> Option<String> {
    let mut book = backend.live.outlier.book();
    let ejection = book.ejection()?;
    if std::mem::replace(&mut ejection.is_announced, true) {
        return None;
    }
    Some(describe(ejection))
}

/// The same for an ejection that ended before it was reported.
pub fn announce_ended(ended: Option<&Ejection>) -> Option<String> {
    ended.filter(|ejection| !ejection.is_announced).map(describe)
}

fn describe(ejection: &Ejection) -> String {
    let Ejection { failures, length, .. } = ejection;
    format!("ejected for {length:?}: {failures} failures in a row")
}
