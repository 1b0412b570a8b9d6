//! The cheap clock of the byte path: milliseconds of CLOCK_MONOTONIC_COARSE, a few nanoseconds to read and
//! as fine as the kernel's tick (1 to 10 ms). For idle times; never for latencies.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since some fixed moment; never goes back.
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let milliseconds = u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    seconds * 1000 + milliseconds
}

/// A moment in eight bytes, where `Instant` has sixteen; for structures of which there are very many.
#[derive(Clone, Copy, Debug)]
pub struct Moment(u64);

impl Moment {
    pub fn now() -> Moment {
        let now = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        Moment(seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0))
    }

    /// Since some fixed moment.
    pub fn nanoseconds(self) -> u64 {
        self.0
    }

    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(Moment::now().0.saturating_sub(self.0))
    }
}
