//! The cheap clock of the byte path: milliseconds of CLOCK_MONOTONIC_COARSE, a few nanoseconds to read and
//! as fine as the kernel's tick (1 to 10 ms). For idle times; never for latencies.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since some fixed moment; never goes back.
pub fn coarse_ms() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let milliseconds = u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
    seconds * 1000 + milliseconds
}
