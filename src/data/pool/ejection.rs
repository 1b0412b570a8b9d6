//! Passive ejection: a backend on which session after session fails is left alone for a while. The data plane reports
//! how connects went; the monitor ends ejections. Time is passed in.
//!
//! ```text
//!   IDLE ──failure──▶ COUNTING ──`failures` in a row within `window`, and room──▶ EJECTED ──over──▶ IDLE
//!    ▲                   │                                                          (probe, time, departure)
//!    └──────success──────┘
//! ```
//!
//! A success on a backend without pending failures costs one relaxed load. Everything else is rare and happens under
//! the backend's lock, which is taken before the lock of its status and is never held across anything that waits.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Instant, SystemTime};

use super::backend::Backend;
use super::failures::{COUNTING, EJECTED, Ejection, IDLE, Place};
use super::state::BackendState;
use crate::config::Passive;

/// How many of `backends` may be ejected at once: rounded down, and never a lone backend.
fn most_ejected(backends: usize, percent: u32) -> u32 {
    if backends < 2 {
        return 0;
    }
    let share = backends as u64 * u64::from(percent.min(100)) / 100;
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// A session connected.
#[inline]
pub fn succeeded(backend: &Backend) {
    if backend.live.outlier.phase.load(Relaxed) == COUNTING {
        backend.live.outlier.forget();
    }
}

/// A session failed, and it was the fault of the backend, which is one of `backends`.
pub fn failed(passive: &Passive, backends: usize, backend: &Backend, now: Instant) {
    let outlier = &backend.live.outlier;
    let mut book = outlier.book();
    if book.is_retired || book.ejection.is_some() {
        return;
    }
    if !matches!(backend.status().state, BackendState::Starting | BackendState::Up) {
        // Down, or set by hand: only `try_all` sends sessions here, and ejected would say less.
        book.run.0.clear();
        outlier.phase.store(IDLE, Relaxed);
        return;
    }
    outlier.phase.store(COUNTING, Relaxed);
    if !book.run.add(passive, now) {
        return;
    }
    let most = most_ejected(backends, passive.max_ejected);
    // If no place is left, the run of failures stays, and the next failure tries again.
    let Some(place) = Place::take(&backend.shared, most) else { return };
    let failures = book.run.0.len();
    let changed = backend.change(now, SystemTime::now(), |status| {
        let is_up = matches!(status.state, BackendState::Starting | BackendState::Up);
        is_up.then(|| (BackendState::Ejected, format!("{failures} failures in a row")))
    });
    if changed.is_none() {
        return;
    }
    book.run.0.clear();
    book.ejection = Some(Ejection {
        since: now,
        until: now + passive.eject_for,
        length: passive.eject_for,
        failures,
        is_announced: false,
        _place: place,
    });
    outlier.phase.store(EJECTED, Relaxed);
}

/// The backend is in the pool, perhaps again: if it was removed while ejected, the ejection is over now.
pub fn enlist(backend: &Backend, now: Instant, wall: SystemTime) {
    let mut book = backend.live.outlier.book();
    book.is_retired = false;
    if book.ejection.is_none() {
        backend.change(now, wall, |status| {
            let (state, _) = status.settled();
            (status.state == BackendState::Ejected)
                .then(|| (state, "came back into the pool".into()))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DownReason;
    use crate::config::{self, Balance};
    use crate::control::health::transition::{self, announce};
    use crate::data::pool::Pool;
    use crate::data::pool::fitness::Standing;
    use crate::data::pool::tests::{build, config_of};
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;

    const PASSIVE: Passive = Passive {
        failures: 3,
        window: Duration::from_secs(10),
        eject_for: Duration::from_secs(30),
        max_ejected: 50,
    };

    fn pool(backends: usize, passive: Passive) -> Pool {
        let config = config_of(Balance::RoundRobin, &vec![1; backends]);
        build(config::Pool { passive: Some(passive), ..config })
    }

    fn state(pool: &Pool, index: usize) -> BackendState {
        pool.backends[index].status().state
    }

    fn fail(pool: &Pool, index: usize, times: usize, now: Instant) {
        (0..times).for_each(|_| pool.failed(&pool.backends[index], now));
    }

    fn ejected(pool: &Pool) -> usize {
        (0..pool.backends.len())
            .filter(|index| state(pool, *index) == BackendState::Ejected)
            .count()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_starts_anew() {
        let (pool, now) = (pool(2, PASSIVE), Instant::now());
        fail(&pool, 0, 2, now);
        succeeded(&pool.backends[0]);
        fail(&pool, 0, 2, now);
        assert_eq!(state(&pool, 0), BackendState::Up);
        fail(&pool, 0, 1, now);
        assert_eq!(state(&pool, 0), BackendState::Ejected);
        assert_eq!(pool.backends[0].status().why, "3 failures in a row");
        let text = announce(&pool.backends[0]).unwrap();
        assert_eq!(text, "ejected for 30s: 3 failures in a row");
        assert!(announce(&pool.backends[0]).is_none());
    }

    #[test]
    fn only_failures_within_the_window_count() {
        let (pool, start) = (pool(2, PASSIVE), Instant::now());
        for second in [0, 8, 16, 24, 32] {
            fail(&pool, 0, 1, start + Duration::from_secs(second));
            assert_eq!(state(&pool, 0), BackendState::Up);
        }
        fail(&pool, 0, 1, start + Duration::from_secs(34));
        assert_eq!(state(&pool, 0), BackendState::Ejected, "24, 32 and 34");
    }

    #[test]
    fn a_lone_backend_is_never_ejected() {
        let pool = pool(1, Passive { max_ejected: 100, ..PASSIVE });
        fail(&pool, 0, 50, Instant::now());
        assert_eq!(state(&pool, 0), BackendState::Up);
    }

    #[test]
    fn the_share_of_ejected_is_rounded_down() {
        let most = [(2, 49), (2, 50), (3, 50), (3, 100), (5, 50), (10, 33)]
            .map(|(backends, percent)| most_ejected(backends, percent));
        assert_eq!(most, [0, 1, 1, 3, 2, 3]);
    }

    #[test]
    fn an_ejection_ends_by_itself_and_gives_its_place_back() {
        let (pool, now) = (pool(2, PASSIVE), Instant::now());
        fail(&pool, 0, 3, now);
        fail(&pool, 1, 3, now);
        assert_eq!(ejected(&pool), 1, "no room for the second");
        let wall = SystemTime::now();
        let (backend, end) = (&pool.backends[0], now + PASSIVE.eject_for);
        let early = end - Duration::from_millis(1);
        assert!(transition::expire(backend, true, early, wall).is_none());
        assert_eq!(transition::expire(backend, true, end, wall).unwrap().to, BackendState::Up);
        assert_eq!(backend.status().up_since, Some(end), "a recovery");
        assert_eq!(pool.shared.ejected.load(Relaxed), 0);
        fail(&pool, 1, 1, now);
        assert_eq!(state(&pool, 1), BackendState::Ejected, "the run had stayed");
    }

    #[test]
    fn probes_end_an_ejection_either_way() {
        let (pool, now) = (pool(4, PASSIVE), Instant::now());
        let wall = SystemTime::now();
        fail(&pool, 0, 3, now);
        fail(&pool, 1, 3, now);
        let before = now - Duration::from_millis(1);
        assert!(transition::vindicate(&pool.backends[0], before, now, wall).is_none());
        assert!(transition::vindicate(&pool.backends[0], now, now, wall).is_some());
        let down = transition::settle(
            &pool,
            &pool.backends[1],
            Standing::Down(DownReason::Dead),
            "x".into(),
            now,
            wall,
        );
        assert!(down.unwrap().ended.is_some());
        assert_eq!((state(&pool, 0), state(&pool, 1)), (BackendState::Up, BackendState::Down));
        assert_eq!(pool.shared.ejected.load(Relaxed), 0);
    }

    #[test]
    fn who_is_down_or_taken_out_by_hand_is_not_ejected() {
        let (pool, now) = (pool(2, PASSIVE), Instant::now());
        for state in [BackendState::Down, BackendState::Drain, BackendState::Maintenance] {
            pool.backends[0].set_state(state, "test", now, SystemTime::now());
            fail(&pool, 0, 9, now);
            assert_eq!(pool.backends[0].status().state, state);
        }
        assert_eq!(pool.shared.ejected.load(Relaxed), 0);
    }

    #[test]
    fn a_hand_stays_when_the_probes_decide_and_the_verdict_is_noted() {
        let (pool, now) = (pool(2, PASSIVE), Instant::now());
        let (backend, wall) = (&pool.backends[0], SystemTime::now());
        backend.set_state(BackendState::Drain, "by hand", now, wall);
        assert!(
            transition::settle(
                &pool,
                backend,
                Standing::Down(DownReason::Dead),
                "x".into(),
                now,
                wall
            )
            .is_none()
        );
        let status = backend.status().clone();
        assert_eq!(
            (status.state, status.verdict),
            (BackendState::Drain, Standing::Down(DownReason::Dead))
        );
        assert_eq!(status.why, "by hand");
    }

    #[test]
    fn who_leaves_the_pool_gives_its_place_back_and_comes_back_as_it_was() {
        let (before, now) = (pool(2, PASSIVE), Instant::now());
        let wall = SystemTime::now();
        fail(&before, 0, 3, now);
        let mut config = (*before.config).clone();
        let gone = config.backends.remove(0);
        let without = Pool::build(Arc::new(config.clone()), Some(&before), 1);
        without.activate(now, wall);
        assert_eq!(before.shared.ejected.load(Relaxed), 0);
        fail(&before, 0, 9, now);
        assert_eq!(before.shared.ejected.load(Relaxed), 0, "its last sessions do not count");
        config.backends.push(gone);
        let again = Pool::build(Arc::new(config), Some(&without), 1);
        again.activate(now, wall);
        assert_eq!(state(&again, 1), BackendState::Up);
        fail(&again, 1, 3, now);
        assert_eq!(state(&again, 1), BackendState::Ejected);
    }

    #[test]
    fn the_cap_is_exact_over_threads() {
        let pool = pool(10, Passive { max_ejected: 35, ..PASSIVE });
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pool = &pool;
                scope.spawn(move || {
                    for turn in 0..200 {
                        let index = (turn + thread) % 10;
                        pool.failed(&pool.backends[index], Instant::now());
                        if turn % 7 == 0 {
                            let later = Instant::now() + PASSIVE.eject_for;
                            let backend = &pool.backends[index];
                            transition::expire(backend, true, later, SystemTime::now());
                        }
                        assert!(pool.shared.ejected.load(Relaxed) <= 3);
                    }
                });
            }
        });
        assert_eq!(pool.shared.ejected.load(Relaxed) as usize, ejected(&pool));
    }

    proptest! {
        /// Against the rule written out: the last `failures` reports are failures and none is older than the window.
        #[test]
        fn a_run_is_the_last_failures_within_the_window(
            reports in prop::collection::vec((any::<bool>(), 0..6_000_u64), 1..40),
        ) {
            let pool = pool(2, PASSIVE);
            let start = Instant::now();
            let (mut now, mut run) = (start, Vec::new());
            for (fails, later) in reports {
                now += Duration::from_millis(later);
                if fails {
                    run.push(now);
                    pool.failed(&pool.backends[0], now);
                } else {
                    run.clear();
                    succeeded(&pool.backends[0]);
                }
                let enough = run.len() >= 3 && now - run[run.len() - 3] <= PASSIVE.window;
                prop_assert_eq!(state(&pool, 0) == BackendState::Ejected, enough);
                if enough {
                    return Ok(());
                }
            }
        }
    }
}
