//! From a verdict or an ejection to the backend's state. The order of locks is the ejection's book, then the status.
//! Decisions here are made under both, so that a worker that ejects and a probe that decides cannot undo each other's
//! work. What was set by hand has priority: `drain` and `maintenance` stay, and the verdict is noted below them.

use std::time::{Instant, SystemTime};

use crate::config::DownReason;
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

/// The probes have a new verdict.
pub fn settle(
    backend: &Backend,
    verdict: Standing,
    why: String,
    now: Instant,
    wall: SystemTime,
) -> Option<Transition> {
    let outlier = &backend.live.outlier;
    let mut book = outlier.book();
    let to = BackendState::from(verdict);
    let mut is_first = false;
    let mut told = String::new();
    let changed = backend.change(now, wall, |status| {
        status.verdict = verdict;
        status.verdict_why.clone_from(&why);
        is_first = status.state == BackendState::Starting && !status.returns;
        status.returns = false;
        let last = status.last_probe.as_ref();
        told = last.map_or_else(|| why.clone(), |(last, _)| format!("{why}, last: {last}"));
        let by_hand = matches!(status.state, BackendState::Drain | BackendState::Maintenance);
        (!by_hand).then_some((to, why))
    });
    changed?;
    // Down has priority over ejected, and up ends an ejection.
    let ended = outlier.end(&mut book);
    Some(Transition {
        to,
        lost: backend.status().lost,
        why: told,
        ended,
        is_first,
        is_by_hand: false,
    })
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
    let mut to = BackendState::Up;
    backend.change(now, wall, |status| {
        let takes_nothing = backend.takes_nothing_at_start() || status.returns;
        if status.verdict == Standing::Starting && takes_nothing {
            // Only `try_all` sent sessions here; a while without sessions proves nothing.
            to = BackendState::Starting;
        }
        (status.state == BackendState::Ejected).then(|| (to, why.into()))
    })?;
    Some(Transition { to, lost: None, why: why.into(), ended, is_first: false, is_by_hand: false })
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
            None if is_set => (status.verdict.into(), status.verdict_why.clone()),
            None => (status.state, status.why.clone()),
        };
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

/// RFC 3339, to the second.
pub fn time(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.0}"))
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
