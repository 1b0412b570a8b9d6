//! How fast held sessions are let through to a backend that came while they waited: a hundred a second, the first ten at
//! once, so that a server that has just started is not overrun. Only held sessions ask; time is passed in.

use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

/// From one session to the next, in nanoseconds.
const STEP: u64 = 10_000_000;

/// Sessions at once after a silence.
const BURST: u64 = 10;

/// Of one backend.
#[derive(Debug, Default)]
pub struct Inflow {
    /// The round of the queue that waited when the backend came; for others there is no pace. 0: for none.
    round: AtomicU64,
    /// When the next session would be due if there were no bursts, in nanoseconds.
    due: AtomicU64,
}

impl Inflow {
    /// The backend came. If it came before in the same round, what it was sent since still counts.
    pub fn begin(&self, round: u64, now: u64) {
        if self.round.load(Relaxed) != round {
            self.due.store(now, Relaxed);
            self.round.store(round, Release);
        }
    }

    /// How long until it may be sent another session of this round; `None`: now.
    pub fn wait(&self, round: u64, now: u64) -> Option<Duration> {
        if self.round.load(Acquire) != round {
            return None;
        }
        let early = self.due.load(Relaxed).saturating_sub((BURST - 1) * STEP);
        (early > now).then(|| Duration::from_nanos(early - now))
    }

    /// Whether it may be sent another session of this round; then it counts as sent.
    pub fn take(&self, round: u64, now: u64) -> bool {
        self.round.load(Acquire) != round
            || self
                .due
                .fetch_update(Relaxed, Relaxed, |due| {
                    let is_early = due.saturating_sub((BURST - 1) * STEP) > now;
                    (!is_early).then(|| due.max(now) + STEP)
                })
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn ten_at_once_and_then_a_hundred_a_second() {
        let inflow = Inflow::default();
        assert!((0..1_000).all(|_| inflow.take(1, SECOND)), "it did not come in this round");
        inflow.begin(1, SECOND);
        let sent = (0..2 * SECOND).step_by(1_000_000).map(|after| SECOND + after);
        let sent: Vec<u64> = sent.filter(|now| inflow.take(1, *now)).collect();
        assert_eq!(sent.iter().filter(|at| **at == SECOND).count(), 1);
        assert_eq!(sent.iter().filter(|at| **at < SECOND + 10_000_000).count(), 10);
        assert!((205..=210).contains(&sent.len()), "{}", sent.len());
        assert!((0..1_000).all(|_| inflow.take(2, SECOND)), "nobody of that round is left");
    }

    #[test]
    fn coming_twice_is_no_second_burst_and_the_wait_is_told() {
        let inflow = Inflow::default();
        inflow.begin(1, SECOND);
        assert_eq!(inflow.wait(1, SECOND), None);
        assert!((0..10).all(|_| inflow.take(1, SECOND)) && !inflow.take(1, SECOND));
        inflow.begin(1, SECOND);
        assert_eq!(inflow.wait(1, SECOND), Some(Duration::from_millis(10)));
        assert!(!inflow.take(1, SECOND + STEP - 1) && inflow.take(1, SECOND + STEP));
        inflow.begin(3, SECOND);
        assert_eq!(inflow.wait(3, SECOND), None);
    }
}
