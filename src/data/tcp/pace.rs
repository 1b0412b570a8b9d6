//! A session's bandwidth in one direction: a token bucket in its continuous form (GCRA, the ATM Forum's Traffic
//! Management Specification, section 4.4.2), counted in nanoseconds. It says how much may be read from a source, by
//! copy and by splice alike. The rest stays in the kernel, whose window then slows the sender down.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::sys::clock::Moment;

/// The time whose bytes may flow at once after a silence. The smallest step of a limited stream is half of it: long
/// compared to the clock's millisecond, and too short for a person to notice.
const BURST: u64 = 100_000_000;

const SECOND: u64 = 1_000_000_000;

/// The pace of one direction.
#[derive(Default)]
pub struct Pace {
    /// When everything that was read is paid for.
    paid_at: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Ready with the bytes that may be read now, once that is half of a burst.
    pub fn poll(&mut self, per_second: u64, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            let now = Moment::now().nanoseconds();
            let free = BURST.saturating_sub(self.paid_at.saturating_sub(now));
            if free >= BURST / 2 {
                self.timer = None;
                return Poll::Ready(bytes(per_second, free));
            }
            let missing = Duration::from_nanos(BURST / 2 - free);
            let timer =
                self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + missing)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
        }
    }

    pub fn take(&mut self, per_second: u64, count: usize) {
        let now = Moment::now().nanoseconds();
        self.paid_at = self.paid_at.max(now).saturating_add(cost(per_second, count));
    }
}

/// At least one byte, or nothing would ever flow.
fn bytes(per_second: u64, nanoseconds: u64) -> usize {
    let bytes = u128::from(per_second) * u128::from(nanoseconds) / u128::from(SECOND);
    usize::try_from(bytes).unwrap_or(usize::MAX).max(1)
}

/// Rounded up, so that many small pieces do not exceed the limit together.
fn cost(per_second: u64, count: usize) -> u64 {
    let nanoseconds = (count as u128 * u128::from(SECOND)).div_ceil(u128::from(per_second));
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn poll(pace: &mut Pace, per_second: u64) -> Poll<usize> {
        pace.poll(per_second, &mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_nothing_until_half_of_one_is_paid() {
        let mut pace = Pace::default();
        assert_eq!(poll(&mut pace, 1_000_000), Poll::Ready(100_000));
        pace.take(1_000_000, 100_000);
        assert_eq!(poll(&mut pace, 1_000_000), Poll::Pending);
        // What was read beyond the limit is paid for, too.
        pace.take(1_000_000, 100_000_000);
        assert!(pace.paid_at >= Moment::now().nanoseconds() + 99 * SECOND);
    }

    #[test]
    fn figures_at_the_edges() {
        assert_eq!(bytes(1024, BURST), 102);
        assert_eq!(bytes(1, BURST / 2), 1);
        assert_eq!(bytes(u64::MAX, u64::MAX), usize::MAX);
        assert_eq!(cost(3, 1), 333_333_334);
        assert_eq!(cost(1, usize::MAX), u64::MAX);
    }
}
