//! A backend that failed, and that held sessions leave alone for a moment: otherwise each of a thousand waiting
//! sessions would try it at once, again and again. After that moment one of them tries; if it is served, all may.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::sys::clock::coarse_ms;

/// Until when, in milliseconds of the coarse clock; 0: it is not resting.
#[derive(Debug, Default)]
pub struct Rest(AtomicU64);

impl Rest {
    pub fn begin(&self, time: Duration) {
        self.0.store(after(time), Relaxed);
    }

    pub fn is_on(&self) -> bool {
        self.0.load(Relaxed) > coarse_ms()
    }

    /// It never failed, or served since.
    pub fn is_lifted(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Whether the caller may try: every session if it never failed, one of all if its rest is over, which then
    /// begins anew.
    pub fn may_try(&self, time: Duration) -> bool {
        let until = self.0.load(Relaxed);
        let is_over = || until <= coarse_ms();
        until == 0
            || (is_over() && self.0.compare_exchange(until, after(time), Relaxed, Relaxed).is_ok())
    }

    /// It served a session; returns whether any session may have left it alone.
    pub fn lift(&self) -> bool {
        self.0.load(Relaxed) != 0 && self.0.swap(0, Relaxed) != 0
    }
}

fn after(time: Duration) -> u64 {
    coarse_ms() + u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tries_when_the_rest_is_over_and_all_once_it_served() {
        let rest = Rest::default();
        assert!(rest.may_try(Duration::ZERO) && rest.may_try(Duration::ZERO), "it never failed");
        rest.begin(Duration::from_secs(60));
        assert!(rest.is_on() && !rest.may_try(Duration::ZERO));
        rest.begin(Duration::ZERO);
        let long = Duration::from_secs(60);
        assert!(!rest.is_on() && rest.may_try(long), "the first");
        assert!(!rest.may_try(long), "the second leaves it alone");
        assert!(rest.lift() && !rest.lift());
        assert!(rest.may_try(long) && rest.may_try(long));
    }
}
