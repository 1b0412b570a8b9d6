//! One backend: its settings from the file, and its state that lives across reloads.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::closing::Closing;
use super::failures::Outlier;
use super::fitness::{Outcome, ProbeCounters, Standing};
use super::hand::Hand;
use super::inflow::Inflow;
use super::latency::milliseconds;
use super::part::{Part, Seat};
use super::resting::Rest;
use super::shared::Shared;
use super::slots::{Slot, WEIGHT_UNIT};
use super::slow_start::effective_weight;
use crate::border::addr::BackendAddr;
use crate::border::counters::{Counter, Histogram, PerWorker, SharedCounter};
use crate::config::{self, DownReason};
use crate::sys::clock::{Moment, coarse_ms};

pub use super::shared::CONNECT_BOUNDS;
pub use super::state::BackendState;

/// A backend of one version of its pool. Identity across reloads is pool, name and address.
pub struct Backend {
    pub pool: Arc<str>,
    pub name: Arc<str>,
    pub address: BackendAddr,
    /// Configured, 0…256.
    pub weight: u32,
    pub tier: u32,
    pub max_sessions: Option<u32>,
    /// From the pool: the window of the ramp after a recovery.
    pub slow_start: Option<Duration>,
    /// From the pool: whether it takes sessions before the first verdict.
    pub start: config::Start,
    /// From the pool: without probes there is never a verdict, and the backend is up.
    pub is_probed: bool,
    pub live: Arc<Live>,
    /// From the pool: when a backend becomes available, the sessions that wait for one are woken.
    pub shared: Arc<Shared>,
}

/// What survives a reload while the backend's identity does.
pub struct Live {
    pub slot: Slot,
    pub counters: PerWorker<BackendCounters>,
    pub connect_failures: ConnectFailures,
    /// Failed connects in a row, and the ejection that followed.
    pub outlier: Outlier,
    pub probes: ProbeCounters,
    /// After a failure; for held sessions.
    pub rest: Rest,
    /// After it came; for held sessions.
    pub inflow: Inflow,
    /// No longer in its pool; a flow checks this before each datagram that it passes on.
    pub removed: Since,
    /// Probes, its role, failures or maintenance make it lose its sessions and flows, whatever its weight; a flow
    /// checks this, too.
    pub down: Since,
    /// Why it is or was lost; a `DownReason`.
    reason: AtomicU8,
    /// Written only by the control plane (health, changes by hand); a pick or a relay never takes the lock.
    pub status: Mutex<Status>,
}

/// Since when something is true, if it is, in milliseconds of the coarse clock.
#[derive(Debug, Default)]
pub struct Since {
    ms: AtomicU64,
    /// How often it was true, and no longer is.
    ends: AtomicU32,
}

impl Since {
    /// If it is true already, it keeps its time.
    pub fn set(&self, is_so: bool) {
        if is_so {
            if self.ms().is_none() {
                self.ms.store(coarse_ms().max(1), Relaxed);
            }
        } else if self.ms.swap(0, Relaxed) > 0 {
            self.ends.fetch_add(1, Relaxed);
        }
    }

    pub fn ms(&self) -> Option<u64> {
        Some(self.ms.load(Relaxed)).filter(|ms| *ms > 0)
    }

    /// Another number each time that it ends.
    pub fn ends(&self) -> u32 {
        self.ends.load(Relaxed)
    }
}

/// The backend's state now, why, and since when.
#[derive(Clone, Debug)]
pub struct Status {
    pub state: BackendState,
    /// Why it is lost to those it has, if it is.
    pub lost: Option<DownReason>,
    pub why: String,
    /// What was set by hand; its state overrules everything else.
    pub hand: Hand,
    /// The verdict of the probes, also while a change by hand or an ejection overrules it.
    pub verdict: Standing,
    /// Why the verdict is so.
    pub verdict_why: String,
    /// Back from maintenance: it takes no sessions until probes have found out its state.
    pub returns: bool,
    /// How its sessions are closed, if it is lost and they are.
    pub closing: Weak<Closing>,
    /// Its part in the pool, which may overrule the verdict.
    pub part: Part,
    /// The result of the last probe, and its time.
    pub last_probe: Option<(Outcome, Instant)>,
    pub since: SystemTime,
    /// Since when it is down or ejected, if it is.
    down_since: Option<Instant>,
    /// How long it was down or ejected before.
    down_before: Duration,
    /// Monotonic, for slow start.
    pub up_since: Option<Instant>,
    /// Counts of `backend_transitions_total{to}`, in the order of `BackendState::ALL`.
    pub transitions: [u64; BackendState::ALL.len()],
}

impl Status {
    /// For a backend that was not probed yet.
    pub fn new(is_probed: bool, wall: SystemTime) -> Self {
        let (verdict, why) = if is_probed {
            (Standing::Starting, "no probe has decided yet")
        } else {
            (Standing::Up, WITHOUT_PROBES)
        };
        Status {
            state: verdict.into(),
            lost: None,
            why: why.into(),
            hand: Hand::default(),
            verdict,
            verdict_why: why.into(),
            returns: false,
            part: Part::default(),
            closing: Weak::new(),
            last_probe: None,
            since: wall,
            down_since: None,
            down_before: Duration::ZERO,
            up_since: None,
            transitions: [0; BackendState::ALL.len()],
        }
    }

    /// Why it is in its state, and the result of the last probe.
    pub fn told(&self, now: Instant) -> String {
        let why = format!("{}{}", self.why, self.part.wait_in_words());
        let Some((outcome, when)) = &self.last_probe else { return why };
        let age = ago(now.saturating_duration_since(*when));
        format!("{why}, {}: {outcome}, {age} ago", self.last())
    }

    /// The state, and why, where nothing is set by hand and it is not ejected.
    pub fn settled(&self) -> (BackendState, String) {
        match (&self.part.hold, &self.part.seat, self.verdict) {
            (Some(hold), ..) => (BackendState::Down, hold.why.clone()),
            (None, Seat::LeftOut(why), Standing::Up) => (BackendState::Standby, why.clone()),
            (None, _, verdict) => (verdict.into(), self.verdict_why.clone()),
        }
    }

    /// The reason that follows from state and verdict.
    fn lost_for(&self) -> Option<DownReason> {
        match (self.state, self.verdict) {
            (BackendState::Down, Standing::Down(reason)) => Some(reason),
            (BackendState::Down | BackendState::Ejected, _) => Some(DownReason::Dead),
            (BackendState::Maintenance, _) => Some(DownReason::ByHand),
            (BackendState::Standby, _) => Some(DownReason::WrongRole),
            _ => None,
        }
    }

    /// How long it was down or ejected in all.
    pub fn down(&self, now: Instant) -> Duration {
        let lasts = self.down_since.map(|since| now.saturating_duration_since(since));
        self.down_before + lasts.unwrap_or_default()
    }

    /// If the state does not come from probes, the text says that a probe's result follows.
    fn last(&self) -> &'static str {
        use BackendState::{Drain, Ejected, Maintenance};
        match self.state {
            Drain | Ejected | Maintenance => "last probe",
            _ => "last",
        }
    }

    pub fn transitions(&self, to: BackendState) -> u64 {
        self.transitions[to.position()]
    }
}

fn ago(age: Duration) -> String {
    match age.as_secs() {
        0..60 => format!("{:.1} s", age.as_secs_f64()),
        seconds @ 60..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

const WITHOUT_PROBES: &str = "no probes are configured";

impl Live {
    pub fn new(slot: Slot, workers: usize, status: Status) -> Self {
        Live {
            slot,
            counters: PerWorker::new(workers),
            connect_failures: ConnectFailures::default(),
            outlier: Outlier::default(),
            probes: ProbeCounters::default(),
            rest: Rest::default(),
            inflow: Inflow::default(),
            removed: Since::default(),
            down: Since::default(),
            reason: AtomicU8::new(DownReason::Dead as u8),
            status: Mutex::new(status),
        }
    }
}

impl Live {
    /// The status; if another holder panicked, it is still whole, because every write is a plain store.
    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is down, if it is.
    pub fn down_reason(&self) -> DownReason {
        let reason = self.reason.load(Relaxed);
        DownReason::ALL.into_iter().find(|it| *it as u8 == reason).unwrap_or(DownReason::Dead)
    }
}

impl Backend {
    pub fn new(
        pool: &config::Pool,
        backend: &config::Backend,
        live: Arc<Live>,
        shared: Arc<Shared>,
    ) -> Self {
        Backend {
            pool: Arc::clone(&pool.name),
            name: Arc::clone(&backend.name),
            address: backend.address.clone(),
            weight: backend.weight,
            tier: backend.tier,
            max_sessions: backend.max_sessions,
            slow_start: pool.slow_start,
            start: pool.health.start,
            is_probed: pool.health.probe != config::Probe::None,
            live,
            shared,
        }
    }

    /// Whether a reload left all changeable settings of the same backend as they are.
    pub(super) fn has_settings_of(&self, other: &Backend) -> bool {
        let settings = |backend: &Backend| {
            let Backend { weight, tier, max_sessions, slow_start, start, is_probed, .. } = *backend;
            (weight, tier, max_sessions, slow_start, start, is_probed)
        };
        settings(self) == settings(other)
    }

    /// Sets the state and everything that depends on it in one step: counts the transition, recomputes the weight,
    /// wakes held sessions if the backend became available. Returns whether the state changed; a new `why` alone is
    /// noted, but is not a change.
    pub fn set_state(
        &self,
        state: BackendState,
        why: &str,
        now: Instant,
        wall: SystemTime,
    ) -> bool {
        self.change(now, wall, |_| Some((state, why.into()))).is_some()
    }

    /// The same, but `decide` sees the old state, so that of several threads that decide at once each knows what the
    /// one before decided. `None` leaves the state as it is. Returns the state before a change.
    pub fn change(
        &self,
        now: Instant,
        wall: SystemTime,
        decide: impl FnOnce(&mut Status) -> Option<(BackendState, String)>,
    ) -> Option<BackendState> {
        let mut status = self.status();
        let returned = status.returns;
        let (state, why) = decide(&mut status)?;
        status.why = why;
        let before = status.state;
        let lost_before = status.lost;
        status.state = state;
        status.lost = status.lost_for();
        if before == state {
            if status.lost == lost_before {
                return None;
            }
            // Down as before, for another reason.
            self.write_weights(&status, now);
            return Some(before);
        }
        use BackendState::{Down, Ejected, Maintenance, Up};
        // A backend in maintenance had lost its sessions too, and usually starts cold.
        let recovers = (returned || matches!(before, Down | Ejected | Maintenance)) && state == Up;
        status.up_since = recovers.then_some(now);
        status.down_before = status.down(now);
        status.down_since = matches!(state, Down | Ejected).then_some(now);
        status.since = wall;
        status.transitions[state.position()] += 1;
        self.write_weights(&status, now);
        Some(before)
    }

    /// Recomputes the row's weights from status and settings: on a tick of slow start, or after new settings.
    pub fn refresh_weight(&self, now: Instant) {
        self.write_weights(&self.status(), now);
    }

    /// A connect or first-byte time, for `least_latency`.
    pub fn observe_latency(&self, sample: Duration, now: Instant) {
        self.live.slot.latency().observe(sample, milliseconds(now));
    }

    /// Puts these settings in force, when the version of the pool that has them is swapped in.
    pub(super) fn activate(&self, now: Instant, wall: SystemTime) {
        self.write_limit();
        // There are no probes any more that could change the verdict. An ejection ends by itself.
        if !self.is_probed {
            self.change(now, wall, |status| {
                status.verdict = Standing::Up;
                status.returns = false;
                status.last_probe = None;
                status.verdict_why = WITHOUT_PROBES.into();
                let state = status.state;
                matches!(state, BackendState::Starting | BackendState::Down | BackendState::Standby)
                    .then(|| status.settled())
            });
        }
        self.refresh_weight(now);
    }

    /// The row of a backend that is in no pool in use yet.
    pub(super) fn write_first_row(&self, now: Instant) {
        self.write_limit();
        self.refresh_weight(now);
    }

    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.live.status()
    }

    /// Whether the pool waits for a first verdict before the first session.
    pub fn takes_nothing_at_start(&self) -> bool {
        self.start == config::Start::Down
    }

    /// The row's `weight` and `forced_weight` for this status.
    fn weights(&self, status: &Status, now: Instant) -> (u32, u32) {
        if let Seat::LeftOut(_) = status.part.seat {
            return (0, 0);
        }
        let full = self.weight.saturating_mul(WEIGHT_UNIT);
        let takes = self.start == config::Start::Up && !status.returns;
        let starting = if takes { full } else { 0 };
        match status.state {
            BackendState::Starting => (starting, full),
            BackendState::Up => {
                (effective_weight(self.weight, status.up_since, self.slow_start, now), full)
            }
            BackendState::Down | BackendState::Ejected => (0, full),
            // Not with `try_all` either: a standby must not do what it is not for.
            BackendState::Drain | BackendState::Maintenance | BackendState::Standby => (0, 0),
        }
    }

    fn write_limit(&self) {
        self.live.slot.hot().limit.store(self.max_sessions.unwrap_or(u32::MAX), Relaxed);
    }

    fn write_weights(&self, status: &Status, now: Instant) {
        if let Some(reason) = status.lost {
            self.live.reason.store(reason as u8, Relaxed);
        }
        self.live.down.set(status.lost.is_some());
        let (weight, forced) = self.weights(status, now);
        let (before, forced_before) = self.live.slot.set_weights(weight, forced);
        if (before == 0 && weight > 0) || (forced_before == 0 && forced > 0) {
            self.comes();
            self.shared.queue.call_all();
        }
    }

    /// It may be sent sessions from now on: those that are held for it not all at once.
    pub fn comes(&self) {
        if let Some(round) = self.shared.queue.round() {
            self.live.inflow.begin(round, Moment::now().nanoseconds());
        }
    }
}

/// Statistics of one worker about one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Sessions that connected.
    pub sessions: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// Retries on other backends, caused by a failure of this one.
    pub retries: Counter,
    pub connect_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
    pub first_byte_duration: Histogram<{ CONNECT_BOUNDS.len() }>,
}

/// `backend_connect_failures_total{reason}`.
#[derive(Debug, Default)]
pub struct ConnectFailures {
    pub refused: SharedCounter,
    pub timeout: SharedCounter,
    /// It did not accept TLS.
    pub tls_failed: SharedCounter,
    pub unreachable: SharedCounter,
    /// What maitred itself lacked: never the backend's fault.
    pub no_source_port: SharedCounter,
    pub no_descriptors: SharedCounter,
}

impl ConnectFailures {
    pub fn by_reason(&self) -> [(&'static str, u64); 6] {
        [
            ("no_descriptors", &self.no_descriptors),
            ("no_source_port", &self.no_source_port),
            ("refused", &self.refused),
            ("timeout", &self.timeout),
            ("tls_failed", &self.tls_failed),
            ("unreachable", &self.unreachable),
        ]
        .map(|(reason, counter)| (reason, counter.value()))
    }
}
