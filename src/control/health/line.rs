//! The line to one server: one task that probes it at its interval and gives what it found to every backend that asks
//! the same there, whatever its pool.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use socket2::SockAddr;
use tokio::sync::{Notify, Semaphore};
use tokio::time;

use super::herald::Herald;
use super::probe::facts::Found;
use super::probe::parting::Parting;
use super::probe::{Kept, Prober};
use super::watch::Watched;
use crate::data::pool::fitness::ProbeResult;

/// Where a server counts failed TLS handshakes against our address, it is asked this often once some have failed.
const RARELY: Duration = Duration::from_secs(60);
const SOME: u32 = 3;

/// Probes are made together within so much, and within a hundredth of their interval.
const GRAIN: Duration = Duration::from_millis(20);

/// What the grains are counted from.
static START: OnceLock<time::Instant> = OnceLock::new();

pub struct Line {
    prober: Rc<Prober>,
    address: SockAddr,
    /// Who is told.
    pub watched: RefCell<Vec<Rc<Watched>>>,
    /// The next probe must be made now.
    pub wanted: Notify,
    /// Nobody listens any more, and nobody will.
    ends: Cell<bool>,
    kept: Kept,
    tls_failures: Cell<u32>,
    /// The last of them, and when it was made.
    last: RefCell<Option<(Found, Instant)>>,
}

impl Line {
    pub fn new(prober: Rc<Prober>, address: SockAddr) -> Line {
        Line {
            prober,
            address,
            watched: RefCell::default(),
            wanted: Notify::new(),
            ends: Cell::default(),
            kept: Kept::default(),
            tls_failures: Cell::default(),
            last: RefCell::default(),
        }
    }

    /// Its task ends once it has parted from the server.
    pub fn end(&self) {
        self.watched.borrow_mut().clear();
        self.ends.set(true);
        self.wanted.notify_one();
    }

    /// How to part from the connection that is kept.
    fn parting(&self) -> Parting {
        Parting(self.kept.take().map(|stream| self.prober.leave(stream, true)))
    }

    /// So long from now, and together with the probes of other lines: each waking of this thread costs more than a
    /// probe on a connection that is kept.
    fn after(&self, wait: Duration) -> time::Instant {
        let grain = GRAIN.min(self.prober.interval / 100);
        let at = time::Instant::now() + wait;
        let since = at.duration_since(*START.get_or_init(time::Instant::now));
        at + to_the_next(since, grain)
    }

    async fn probe(&self) -> (Found, Parting) {
        if self.prober.is_counted()
            && self.tls_failures.get() >= SOME
            && let Some((found, asked)) = &*self.last.borrow()
            && asked.elapsed() < RARELY
        {
            return (found.clone(), Parting(None));
        }
        let asked = Instant::now();
        let (found, parting) = self.prober.probe(&self.address, &self.kept).await;
        let is_failure = found.ended.as_ref().is_err_and(|it| it.result == ProbeResult::TlsFailed);
        self.tls_failures.set(if is_failure { self.tls_failures.get() + 1 } else { 0 });
        *self.last.borrow_mut() = is_failure.then(|| (found.clone(), asked));
        (found, parting)
    }

    fn is_heard_by(&self, watched: &Rc<Watched>) -> bool {
        self.watched.borrow().iter().any(|it| Rc::ptr_eq(it, watched))
    }
}

/// Probes until the line ends, first after `first`. From one probe's start to the next is one interval, also while results are
/// counted: a failure is noticed within `fall` intervals and one timeout.
pub async fn follow(line: Rc<Line>, herald: Rc<Herald>, permits: Rc<Semaphore>, first: Duration) {
    let prober = &line.prober;
    let mut next = time::Instant::now() + first;
    loop {
        tokio::select! {
            () = time::sleep_until(next) => {}
            // A result is needed at once.
            () = line.wanted.notified() => {}
        }
        // The semaphore is never closed.
        let Ok(_permit) = permits.acquire().await else { return };
        let begun = Instant::now();
        next = line.after(jittered(prober.interval, prober.jitter, fastrand::f64()));
        let listening: Vec<Rc<Watched>> =
            line.watched.borrow().iter().filter(|it| it.listens()).cloned().collect();
        if listening.is_empty() {
            line.parting().over().await;
            if line.ends.get() {
                return;
            }
            continue;
        }
        let (found, parting) = line.probe().await;
        for watched in &listening {
            // A reload may have taken it away meanwhile.
            if line.is_heard_by(watched) {
                watched.take_in(&found, begun, &herald);
            }
        }
        parting.over().await;
    }
}

/// From `since` to the next multiple of `grain`.
fn to_the_next(since: Duration, grain: Duration) -> Duration {
    let grain = grain.as_nanos().max(1);
    let rest = since.as_nanos() % grain;
    let missing = if rest == 0 { 0 } else { grain - rest };
    Duration::from_nanos(u64::try_from(missing).unwrap_or(0))
}

/// `interval` give or take `percent` of it; `draw` is from 0 to 1.
fn jittered(interval: Duration, percent: u32, draw: f64) -> Duration {
    let share = f64::from(percent.min(100)) / 100.0;
    interval.mul_f64(1.0 + share * (2.0 * draw - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_made_at_multiples_of_a_grain() {
        let ms = Duration::from_millis;
        assert_eq!(to_the_next(ms(41), ms(20)), ms(19));
        assert_eq!(to_the_next(ms(40), ms(20)), ms(0));
        assert_eq!(to_the_next(ms(7), Duration::ZERO), ms(0));
    }

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
