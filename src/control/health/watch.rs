//! The watch of one backend: what a probe found, judged as its pool wants it, and the verdict that follows applied to the
//! backend's state. `line` makes the probes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use socket2::SockAddr;

use super::blind::{Entries, Entry};
use super::herald::Herald;
use super::probe::Prober;
use super::probe::facts::{Found, Judge};
use super::transition;
use super::verdict::{Thresholds, Verdict};
use crate::config::{DownReason, Health};
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState, CONNECT_BOUNDS};
use crate::data::pool::fitness::{Standing, Vote};

/// How one pool is probed; the same object until its settings change.
pub struct Rules {
    pub health: Health,
    pub prober: Rc<Prober>,
    pub judge: Judge,
    /// How logging in goes, over the backends of this pool.
    pub entries: Entries,
}

/// One backend under watch.
pub struct Watched {
    /// The version in use: an older one would write older settings into the row that both share.
    current: RefCell<Current>,
    address: SockAddr,
    rules: Rc<Rules>,
    verdict: RefCell<Verdict>,
    entry: Entry,
}

#[derive(Clone)]
pub struct Current {
    pub pool: Arc<Pool>,
    pub backend: Arc<Backend>,
}

impl Watched {
    pub fn new(current: Current, address: SockAddr, rules: Rc<Rules>) -> Watched {
        let standing = current.backend.status().verdict;
        let verdict = Verdict::new(Thresholds::of(&rules.health), standing).into();
        Watched { current: current.into(), address, rules, verdict, entry: Entry::default() }
    }

    pub fn fits(&self, rules: &Rc<Rules>, address: &SockAddr) -> bool {
        Rc::ptr_eq(&self.rules, rules) && self.address == *address
    }

    /// Goes on with another version of the same backend. Until now this watch may have written the settings of the
    /// old version.
    pub fn replace(&self, current: Current) {
        let is_other = !Arc::ptr_eq(&self.current.borrow().backend, &current.backend);
        if is_other {
            current.backend.refresh_weight(Instant::now());
        }
        *self.current.borrow_mut() = current;
    }

    fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    /// It is watched no longer; a probe that is under way says nothing about it.
    pub fn retire(&self) {
        self.rules.entries.forget(&self.entry);
    }

    /// Whether it wants to know: not in maintenance.
    pub fn listens(&self) -> bool {
        let Current { backend, .. } = self.current();
        let (state, returns) = {
            let status = backend.status();
            (status.state, status.returns)
        };
        let mut verdict = self.verdict.borrow_mut();
        if returns && !verdict.is_of_a_return() {
            *verdict = Verdict::of_a_return(Thresholds::of(&self.rules.health));
        }
        state != BackendState::Maintenance
    }

    pub fn take_in(&self, found: &Found, begun: Instant, herald: &Herald) {
        let Current { pool, backend } = self.current();
        let outcome = self.rules.judge.outcome(found);
        backend.live.probes.of(outcome.result).add(1);
        backend.status().last_probe = Some((outcome.clone(), Instant::now()));
        pool.shared.probe_duration.observe(&CONNECT_BOUNDS, outcome.took);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let entries = &self.rules.entries;
        let is_known = entries.note(&self.entry, outcome.result, begun, now);
        if self.rules.prober.logs_in() {
            herald.tell_blind(&pool, entries.is_blind());
        }
        let Some(vote) = outcome.result.vote().filter(|_| is_known) else {
            tracing::debug!(pool = &*pool.name, backend = &*backend.name, "probe: {outcome}");
            return;
        };
        let mut verdict = self.verdict.borrow_mut();
        let transition = match verdict.observe(vote) {
            Some(standing) => {
                let why = reason(standing, verdict.in_a_row());
                transition::settle(&pool, &backend, standing, why, now, wall)
            }
            None if vote == Vote::Passed => transition::vindicate(&backend, begun, now, wall),
            None => None,
        };
        if let Some(transition) = transition {
            herald.tell(&pool, &backend, &transition, now);
        }
        herald.tell_news(&pool, now);
    }
}

fn reason(standing: Standing, count: u32) -> String {
    let probes = if count == 1 { "probe" } else { "probes" };
    match standing {
        Standing::Down(DownReason::Lagging) => format!("{count} {probes} found it lagging"),
        Standing::Down(DownReason::LoginFailed) => format!("{count} {probes} could not log in"),
        Standing::Down(DownReason::QueryFailed) => {
            format!("it refused the question of {count} {probes}")
        }
        Standing::Up => format!("{count} {probes} passed"),
        Standing::Standby => format!("{count} {probes} answered that it is a standby"),
        Standing::Down(_) | Standing::Starting => format!("{count} {probes} failed"),
    }
}
