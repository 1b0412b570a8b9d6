//! The watch of one backend: probes it at its interval for as long as the task lives, and applies the verdict of the
//! probes to the backend's state.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use socket2::SockAddr;
use tokio::sync::{Notify, Semaphore};
use tokio::time;

use super::herald::Herald;
use super::probe::Prober;
use super::transition;
use super::verdict::{Thresholds, Verdict};
use crate::config::{DownReason, Health};
use crate::data::pool::Pool;
use crate::data::pool::backend::{Backend, BackendState, CONNECT_BOUNDS};
use crate::data::pool::fitness::{Outcome, Standing, Vote};

/// How one pool is probed; the same object until its settings change.
pub struct Rules {
    pub health: Health,
    pub prober: Prober,
}

/// One backend under watch.
pub struct Watched {
    /// The version in use: an older one would write older settings into the row that both share.
    pub current: RefCell<Current>,
    pub address: SockAddr,
    pub rules: Rc<Rules>,
    /// The next probe must be made now.
    pub wanted: Notify,
}

#[derive(Clone)]
pub struct Current {
    pub pool: Arc<Pool>,
    pub backend: Arc<Backend>,
}

/// Probes for ever, first after `first`. From one probe's start to the next is one interval, also while results are
/// counted: a failure is noticed within `fall` intervals and one timeout.
pub async fn watch(
    watched: Rc<Watched>,
    herald: Rc<Herald>,
    permits: Rc<Semaphore>,
    first: Duration,
) {
    let health = &watched.rules.health;
    let standing = watched.current.borrow().backend.status().verdict;
    let mut verdict = Verdict::new(Thresholds::of(health), standing);
    let mut next = time::Instant::now() + first;
    loop {
        tokio::select! {
            () = time::sleep_until(next) => {}
            // A result is needed at once.
            () = watched.wanted.notified() => {}
        }
        // The semaphore is never closed.
        let Ok(_permit) = permits.acquire().await else { return };
        let begun = Instant::now();
        next = time::Instant::now() + jittered(health.interval, health.jitter, fastrand::f64());
        let backend = watched.current().backend;
        let (state, returns) = {
            let status = backend.status();
            (status.state, status.returns)
        };
        if returns && !verdict.is_of_a_return() {
            verdict = Verdict::of_a_return(Thresholds::of(health));
        }
        if state != BackendState::Maintenance {
            let (outcome, parting) = watched.rules.prober.probe(&watched.address).await;
            watched.take_in(&mut verdict, &outcome, begun, &herald);
            parting.over().await;
        }
    }
}

/// `interval` give or take `percent` of it; `draw` is from 0 to 1.
fn jittered(interval: Duration, percent: u32, draw: f64) -> Duration {
    let share = f64::from(percent.min(100)) / 100.0;
    interval.mul_f64(1.0 + share * (2.0 * draw - 1.0))
}

impl Watched {
    pub fn current(&self) -> Current {
        self.current.borrow().clone()
    }

    fn take_in(&self, verdict: &mut Verdict, outcome: &Outcome, begun: Instant, herald: &Herald) {
        let Current { pool, backend } = self.current();
        backend.live.probes.of(outcome.result).add(1);
        backend.status().last_probe = Some((outcome.clone(), Instant::now()));
        pool.shared.probe_duration.observe(&CONNECT_BOUNDS, outcome.took);
        let Some(vote) = outcome.result.vote() else {
            tracing::debug!(pool = &*pool.name, backend = &*backend.name, "probe: {outcome}");
            return;
        };
        let (now, wall) = (Instant::now(), SystemTime::now());
        let transition = match verdict.observe(vote) {
            Some(standing) => {
                let why = reason(standing, verdict.in_a_row());
                transition::settle(&backend, standing, why, now, wall)
            }
            None if vote == Vote::Passed => transition::vindicate(&backend, begun, now, wall),
            None => None,
        };
        if let Some(transition) = transition {
            herald.tell(&pool, &backend, &transition, now);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_goes_both_ways_by_at_most_its_share() {
        let interval = Duration::from_secs(10);
        assert_eq!(jittered(interval, 10, 0.0), Duration::from_secs(9));
        assert_eq!(jittered(interval, 10, 0.5), interval);
        assert_eq!(jittered(interval, 10, 1.0), Duration::from_secs(11));
        assert_eq!(jittered(interval, 0, 0.9), interval);
        assert_eq!(jittered(interval, 100, 0.0), Duration::ZERO);
    }
}
