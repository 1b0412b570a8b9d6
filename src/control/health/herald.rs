//! The consequences of a transition: the event, cutting sessions, the ramp of slow start. One per monitor.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::transition::{self, Transition};
use crate::border::addr::BackendAddr;
use crate::border::plane::{Cut, SessionFilter};
use crate::border::record::{CloseReason, Stage};
use crate::config::{self, DownReason, OnDown};
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState};
use crate::data::pool::closing::Closing;
use crate::data::pool::memory::News;
use crate::telemetry::events::Events;

/// What the control plane can do to sessions and flows without knowing where they are.
pub struct Means {
    pub cut: Box<dyn Fn(Cut) + Send + Sync>,
    /// The same, each in its first quiet moment.
    pub cut_quiet: Box<dyn Fn(Cut) + Send + Sync>,
    /// Flows that wait for an answer from these backends ask another backend.
    pub ask_others: Box<dyn Fn(SessionFilter) + Send + Sync>,
}

pub struct Herald {
    events: Arc<Events>,
    means: Means,
    /// Pools with a backend in slow start, and the latest time until which it lasts.
    ramps: RefCell<HashMap<Arc<str>, Instant>>,
    /// Backends that are lost and whose sessions may stay for a while yet, by pool and name: at most one entry for
    /// each.
    respites: RefCell<HashMap<Place, Respite>>,
}

#[derive(PartialEq, Eq, Hash)]
struct Place {
    pool: Arc<str>,
    backend: Arc<str>,
    address: BackendAddr,
}

/// With `drain` and `idle_first`.
struct Respite {
    until: Instant,
    /// As it was when the backend was lost.
    policy: OnDown,
    lost: Lost,
    closing: Arc<Closing>,
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

impl Drop for Respite {
    fn drop(&mut self) {
        self.closing.call_off();
    }
}

impl Herald {
    pub fn new(events: Arc<Events>, means: Means) -> Herald {
        Herald { events, means, ramps: RefCell::default(), respites: RefCell::default() }
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
            BackendState::Up => {
                self.respites.borrow_mut().remove(&place(backend));
                self.note_ramp(backend, now);
            }
            state => {
                if let Some(reason) = transition.lost {
                    self.see_to_sessions(pool, backend, (state, reason), now);
                }
            }
        }
    }

    /// What the pool's order decided since.
    pub fn tell_news(&self, pool: &Pool, now: Instant) {
        for news in pool.take_news() {
            match news {
                News::Alarm(what) => self.events.fail_pool(&pool.name, what),
                News::Changed { backend: who, to, lost, why } => {
                    let is_it =
                        |it: &&Arc<Backend>| it.name == who.name && it.address == who.address;
                    // A reload may have removed it since.
                    let Some(backend) = pool.backends.iter().find(is_it) else { continue };
                    let (is_first, is_by_hand) = (false, false);
                    let transition =
                        Transition { to, lost, why, ended: None, is_first, is_by_hand };
                    self.tell(pool, backend, &transition, now);
                }
                News::Held { backend, why } => {
                    let what = format!("{}/{backend} down: {why}", pool.name);
                    self.events.warn_backend(&pool.name, &backend, what);
                }
                News::Note(what) => self.events.note_backends(&pool.name, what),
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
        self.cut_connecting(backend);
        let policy = pool.config.on_down_for(reason);
        match policy {
            OnDown::Auto => self.leave(pool, backend, reason),
            OnDown::Keep => {}
            OnDown::Drain(time) | OnDown::IdleFirst(time) => {
                let times = backend.status().transitions(state);
                let lost = Lost::To { state, reason, times };
                self.grant_respite(backend, policy, (time, lost), now);
            }
            OnDown::Reset => {
                self.close(backend, word(policy), CloseReason::BackendDown);
                self.leave(pool, backend, reason);
            }
        }
    }

    /// A backend is no longer in its pool, whose settings are these.
    pub fn part(&self, pool: &config::Pool, backend: &Arc<Backend>, now: Instant) {
        let Some(policy) = pool.on_down_reasons.removed else { return };
        match policy {
            OnDown::Auto | OnDown::Keep => {}
            OnDown::Drain(time) | OnDown::IdleFirst(time) => {
                let lost = Lost::Removed(Arc::clone(backend));
                self.grant_respite(backend, policy, (time, lost), now);
            }
            OnDown::Reset => self.close(backend, word(policy), CloseReason::BackendRemoved),
        }
    }

    /// Sessions may stay for a while; with `idle_first` only for as long as they are not quiet.
    fn grant_respite(
        &self,
        backend: &Backend,
        policy: OnDown,
        (time, lost): (Duration, Lost),
        now: Instant,
    ) {
        let closing = Arc::new(Closing::new(word(policy), Some(SystemTime::now() + time)));
        backend.status().closing = Arc::downgrade(&closing);
        if let OnDown::IdleFirst(_) = policy {
            let closing = Some(Arc::clone(&closing));
            let filter = SessionFilter { stage: Some(Stage::Relay), ..on(backend) };
            (self.means.cut_quiet)(Cut { filter, reason: lost.reason(), closing, count: None });
        }
        let respite = Respite { until: now + time, policy, lost, closing };
        self.respites.borrow_mut().insert(place(backend), respite);
    }

    /// Closes all its sessions, at a pace if there are many.
    fn close(&self, backend: &Backend, policy: &'static str, reason: CloseReason) {
        let closing = Arc::new(Closing::new(policy, None));
        backend.status().closing = Arc::downgrade(&closing);
        let closing = Some(closing);
        (self.means.cut)(Cut { filter: on(backend), reason, closing, count: None });
    }

    /// A session that is still connecting to it tries another backend.
    fn cut_connecting(&self, backend: &Backend) {
        let connecting = SessionFilter { stage: Some(Stage::Connect), ..on(backend) };
        let reason = CloseReason::BackendDown;
        (self.means.cut)(Cut { filter: connecting, reason, closing: None, count: None });
    }

    /// A backend is down or ejected: requests that it has not answered go to other backends, if the pool lets flows
    /// move.
    pub fn leave(&self, pool: &Pool, backend: &Backend, reason: DownReason) {
        if matches!(pool.config.on_down_for(reason), OnDown::Auto | OnDown::Reset) {
            (self.means.ask_others)(on(backend));
        }
    }

    /// Closes what is left on backends that are lost, once their respite is over. A backend is left alone as soon as it
    /// has recovered, came back, or its pool no longer asks for this; also if it was down and is in none of `pools` any
    /// more.
    pub fn end_respites(&self, pools: &[Arc<Pool>], now: Instant) {
        self.respites.borrow_mut().retain(|place, respite| {
            let Some(backend) = respite.holds_for(place, pools) else { return false };
            if respite.until > now {
                return true;
            }
            self.close(&backend, word(respite.policy), respite.lost.reason());
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

impl Respite {
    /// The backend, if it is still lost in the same way, and its sessions are still to be treated so.
    fn holds_for(&self, place: &Place, pools: &[Arc<Pool>]) -> Option<Arc<Backend>> {
        let (state, reason, times) = match &self.lost {
            Lost::To { state, reason, times } => (*state, *reason, *times),
            Lost::Removed(backend) => {
                return backend.live.removed.ms().map(|_| Arc::clone(backend));
            }
        };
        let pool = pools.iter().find(|it| it.name == place.pool)?;
        let policy = pool.config.on_down_for(reason);
        let is_it = |it: &&Arc<Backend>| it.name == place.backend && it.address == place.address;
        let backend = pool.backends.iter().find(is_it)?;
        let is_lost = {
            let status = backend.status();
            (status.state, status.lost) == (state, Some(reason))
                && status.transitions(state) == times
        };
        (is_lost && word(policy) == word(self.policy)).then(|| Arc::clone(backend))
    }
}

impl Lost {
    fn reason(&self) -> CloseReason {
        match self {
            Lost::To { .. } => CloseReason::BackendDown,
            Lost::Removed(_) => CloseReason::BackendRemoved,
        }
    }
}

/// As the configuration says it.
fn word(policy: OnDown) -> &'static str {
    match policy {
        OnDown::Auto => "auto",
        OnDown::Drain(_) => "drain",
        OnDown::IdleFirst(_) => "idle_first",
        OnDown::Keep => "keep",
        OnDown::Reset => "reset",
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
