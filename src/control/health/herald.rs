//! The consequences of a transition: the event, cutting sessions, the ramp of slow start. One per monitor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::transition::{self, Transition};
use crate::border::addr::BackendAddr;
use crate::border::plane::SessionFilter;
use crate::border::record::{CloseReason, Stage};
use crate::config::{self, DownReason, OnDown};
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState};
use crate::telemetry::events::Events;

/// What the control plane can do to sessions and flows without knowing where they are.
pub struct Means {
    pub cut: Box<dyn Fn(SessionFilter, CloseReason) + Send + Sync>,
    /// Flows that wait for an answer from these backends ask another backend.
    pub ask_others: Box<dyn Fn(SessionFilter) + Send + Sync>,
}

pub struct Herald {
    events: Arc<Events>,
    means: Means,
    /// Pools with a backend in slow start, and the latest time until which it lasts.
    ramps: RefCell<HashMap<Arc<str>, Instant>>,
    /// Backends that are down and whose sessions may stay for a while yet, by pool and name: at most one entry for
    /// each.
    drains: RefCell<HashMap<Place, Respite>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Place {
    pool: Arc<str>,
    backend: Arc<str>,
    address: BackendAddr,
}

/// With `on_down: {drain: …}`.
struct Respite {
    until: Instant,
    lost: Lost,
}

enum Lost {
    To {
        state: BackendState,
        reason: DownReason,
        /// How often the backend had entered that state: if it enters it again, the later entry counts.
        times: u64,
    },
    /// It is no longer in the pool.
    Removed(Arc<Backend>),
}

impl Herald {
    pub fn new(events: Arc<Events>, means: Means) -> Herald {
        Herald { events, means, ramps: RefCell::default(), drains: RefCell::default() }
    }

    pub fn tell(&self, pool: &Pool, backend: &Backend, transition: &Transition, now: Instant) {
        if let Some(text) = transition::announce_ended(transition.ended.as_ref()) {
            self.note(backend, &text);
        }
        let mut text = format!("{}: {}", transition.to.as_str(), transition.why);
        let is_gone = matches!(transition.to, BackendState::Down | BackendState::Standby);
        let is_last = is_gone && !transition.is_first && pool.is_deserted();
        if is_last {
            text.push_str(&format!("; no backend of pool {} takes new sessions now", pool.name));
        }
        let is_well = matches!(transition.to, BackendState::Up | BackendState::Standby);
        if transition.is_first && is_well {
            tracing::debug!("{}/{} {text}", backend.pool, backend.name);
        } else if transition.is_told() {
            tracing::debug!("{}/{} {text}", backend.pool, backend.name);
        } else if transition.to == BackendState::Down || is_last {
            self.warn(backend, &text);
        } else {
            self.note(backend, &text);
        }
        match transition.to {
            BackendState::Up => self.note_ramp(backend, now),
            state => {
                if let Some(reason) = transition.lost {
                    self.see_to_sessions(pool, backend, (state, reason), now);
                }
            }
        }
    }

    /// What `on_down` says.
    fn see_to_sessions(
        &self,
        pool: &Pool,
        backend: &Backend,
        (state, reason): (BackendState, DownReason),
        now: Instant,
    ) {
        match pool.config.on_down_for(reason) {
            OnDown::Auto => {
                self.cut_connecting(backend);
                self.leave(pool, backend, reason);
            }
            OnDown::Keep => self.cut_connecting(backend),
            OnDown::Drain(time) => {
                let times = backend.status().transitions(state);
                self.cut_connecting(backend);
                let respite =
                    Respite { until: now + time, lost: Lost::To { state, reason, times } };
                self.drains.borrow_mut().insert(place(backend), respite);
            }
            OnDown::Reset => {
                (self.means.cut)(on(backend), CloseReason::BackendDown);
                self.leave(pool, backend, reason);
            }
        }
    }

    /// A backend is no longer in its pool, whose settings are these.
    pub fn part(&self, pool: &config::Pool, backend: &Arc<Backend>, now: Instant) {
        match pool.on_down_reasons.removed {
            None | Some(OnDown::Auto | OnDown::Keep) => {}
            Some(OnDown::Drain(time)) => {
                let lost = Lost::Removed(Arc::clone(backend));
                let respite = Respite { until: now + time, lost };
                self.drains.borrow_mut().insert(place(backend), respite);
            }
            Some(OnDown::Reset) => (self.means.cut)(on(backend), CloseReason::BackendRemoved),
        }
    }

    /// A session that is still connecting to it tries another backend.
    fn cut_connecting(&self, backend: &Backend) {
        let connecting = SessionFilter { stage: Some(Stage::Connect), ..on(backend) };
        (self.means.cut)(connecting, CloseReason::BackendDown);
    }

    /// A backend is down or ejected: requests that it has not answered go to other backends, if the pool lets flows
    /// move.
    pub fn leave(&self, pool: &Pool, backend: &Backend, reason: DownReason) {
        if matches!(pool.config.on_down_for(reason), OnDown::Auto | OnDown::Reset) {
            (self.means.ask_others)(on(backend));
        }
    }

    /// Cuts the sessions of backends that are down or removed, once their `drain` is over. A backend is left alone if
    /// it has recovered since, if it was down and is in none of `pools` any more, if it came back, or if its pool no
    /// longer asks for this.
    pub fn end_respites(&self, pools: &[Arc<Pool>], now: Instant) {
        let mut drains = self.drains.borrow_mut();
        drains.retain(|Place { pool, backend: name, address }, respite| {
            if respite.until > now {
                return true;
            }
            let (state, reason, times) = match &respite.lost {
                Lost::To { state, reason, times } => (*state, *reason, *times),
                Lost::Removed(backend) => {
                    if backend.live.removed.ms().is_some() {
                        (self.means.cut)(on(backend), CloseReason::BackendRemoved);
                    }
                    return false;
                }
            };
            let found = pools.iter().find(|it| it.name == *pool);
            let drains =
                |it: &&Arc<Pool>| matches!(it.config.on_down_for(reason), OnDown::Drain(_));
            let wants = found.filter(drains);
            let is_it = |it: &&Arc<Backend>| it.name == *name && it.address == *address;
            let backend = wants.and_then(|it| it.backends.iter().find(is_it));
            if let Some(backend) = backend.filter(|backend| {
                let status = backend.status();
                (status.state, status.lost) == (state, Some(reason))
                    && status.transitions(state) == times
            }) {
                (self.means.cut)(on(backend), CloseReason::BackendDown);
            }
            false
        });
    }

    /// Whether no server lets the probes of this pool in; told when it begins, and when it ends.
    pub fn tell_blind(&self, pool: &Pool, is_blind: bool) {
        if pool.shared.is_blind.swap(is_blind, Relaxed) == is_blind {
            return;
        }
        if is_blind {
            let why = "no backend that answers lets the probes log in; its backends stay as they are until one does";
            self.events.fail_pool(&pool.name, format!("pool {}: {why}", pool.name));
        } else {
            let why = "probes can log in again";
            self.events.note_backends(&pool.name, format!("pool {}: {why}", pool.name));
        }
    }

    /// The same for events that an operator should look at.
    pub fn warn(&self, backend: &Backend, text: &str) {
        let (pool, name) = (&backend.pool, &backend.name);
        self.events.warn_backend(pool, name, format!("{pool}/{name} {text}"));
    }

    /// `text` continues after the backend's name.
    pub fn note(&self, backend: &Backend, text: &str) {
        let (pool, name) = (&backend.pool, &backend.name);
        self.events.note_backend(pool, name, format!("{pool}/{name} {text}"));
    }

    /// Remembers to raise the backend's weight, if slow start applies.
    pub fn note_ramp(&self, backend: &Backend, now: Instant) {
        let Some(window) = backend.slow_start else { return };
        let Some(end) = backend.status().up_since.map(|since| since + window) else { return };
        if end > now {
            let mut ramps = self.ramps.borrow_mut();
            let until = ramps.entry(Arc::clone(&backend.pool)).or_insert(end);
            *until = end.max(*until);
        }
    }

    /// Whether the weights of `pool` must be computed again; once more after the last ramp, for the full weight.
    pub fn is_ramping(&self, pool: &str, now: Instant) -> bool {
        let mut ramps = self.ramps.borrow_mut();
        let Some(until) = ramps.get(pool) else { return false };
        if *until <= now {
            ramps.remove(pool);
        }
        true
    }
}

fn place(backend: &Backend) -> Place {
    Place {
        pool: Arc::clone(&backend.pool),
        backend: Arc::clone(&backend.name),
        address: backend.address.clone(),
    }
}

/// Selects the sessions on this backend, and not those on another one that had its name before a reload.
fn on(backend: &Backend) -> SessionFilter {
    SessionFilter {
        pool: Some(backend.pool.to_string()),
        backend: Some(backend.name.to_string()),
        address: Some(backend.address.clone()),
        ..SessionFilter::default()
    }
}
