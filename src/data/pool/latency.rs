//! The recent cost of one backend's answers: a moving average that jumps to a peak at once and decays slowly. Written
//! by the sessions that measure, read by `least_latency`; one atomic word, no lock. Time is passed in.
//!
//! On a sample, with `gap` since the last one and `kept = exp(-gap / 10 s)`: a sample above the average becomes the
//! average; otherwise the average is `average × kept + sample × (1 - kept)`. A read decays it in the same way, as if
//! a sample of 0 came in: a backend that was slow and gets no sessions is tried again after a while.
//!
//! ```text
//! word:  63 ── average in µs, bits of an f32 ── 32 │ 31 ── time of the last sample in ms, wrapping ── 0
//! ```
//! A word of 0 means "no sample yet". The milliseconds count from a fixed moment (`milliseconds`) and wrap after 49
//! days; a backend without a sample for so long merely begins to decay anew.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// After this time without samples a third of the average (1/e) is left.
const MEMORY_MILLISECONDS: f32 = 10_000.0;

/// The least average, so that a word with a sample is never 0.
const LEAST_MICROSECONDS: f32 = 0.001;

/// Tries before a sample is dropped because other threads write at the same time: their samples are as good.
const TRIES: usize = 8;

/// The moving average of one backend.
#[derive(Debug, Default)]
pub struct Latency {
    word: AtomicU64,
}

impl Latency {
    pub fn observe(&self, sample: Duration, time: u32) {
        let sample = (sample.as_secs_f32() * 1e6).max(LEAST_MICROSECONDS);
        for _ in 0..TRIES {
            let word = self.word.load(Relaxed);
            let (average, time) = match unpack(word) {
                Some((average, last)) => {
                    let gap = gap(last, time);
                    let average = if sample < average {
                        sample + (average - sample) * kept(gap)
                    } else {
                        sample
                    };
                    (average, last.wrapping_add(gap))
                }
                None => (sample, time),
            };
            let next = pack(average.max(LEAST_MICROSECONDS), time);
            if self.word.compare_exchange_weak(word, next, Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// The average as it is at `time`; `None` without any sample.
    pub fn microseconds(&self, time: u32) -> Option<f64> {
        let (average, last) = unpack(self.word.load(Relaxed))?;
        Some(f64::from(average * kept(gap(last, time))))
    }

    /// As if there had never been a sample.
    pub fn forget(&self) {
        self.word.store(0, Relaxed);
    }
}

/// How much earlier another thread may have read the clock.
const SKEW_MILLISECONDS: u32 = 60_000;

/// From `last` to `time`. Almost the whole range of the counter means that another thread's clock is slightly
/// earlier.
fn gap(last: u32, time: u32) -> u32 {
    let gap = time.wrapping_sub(last);
    if gap > u32::MAX - SKEW_MILLISECONDS { 0 } else { gap }
}

fn kept(gap: u32) -> f32 {
    // In two halves, each of which an f32 represents exactly.
    let [high, low] = [gap >> 16, gap & 0xffff].map(|half| u16::try_from(half).unwrap_or(u16::MAX));
    let milliseconds = f32::from(high) * 65_536.0 + f32::from(low);
    (milliseconds * (-1.0 / MEMORY_MILLISECONDS)).exp()
}

/// The moment from which milliseconds count, the same for all backends, so that a pick computes it once: the first
/// call.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Times of samples and picks in the form that is stored with an average.
pub fn milliseconds(now: Instant) -> u32 {
    since(*START, now)
}

/// Wrapping; anything earlier than `start` counts as `start`.
fn since(start: Instant, now: Instant) -> u32 {
    let age = now.saturating_duration_since(start);
    let whole = age.as_secs().wrapping_mul(1_000).wrapping_add(age.subsec_millis().into());
    u32::try_from(whole & u64::from(u32::MAX)).unwrap_or_default()
}

fn pack(average: f32, time: u32) -> u64 {
    u64::from(average.to_bits()) << 32 | u64::from(time)
}

fn unpack(word: u64) -> Option<(f32, u32)> {
    let average = u32::try_from(word >> 32).ok()?;
    let time = u32::try_from(word & u64::from(u32::MAX)).ok()?;
    (word != 0).then(|| (f32::from_bits(average), time))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn near(latency: &Latency, time: u32, expected: f64) {
        let value = latency.microseconds(time).unwrap();
        assert!((value - expected).abs() < expected * 0.001 + 0.01, "{value} is not {expected}");
    }

    /// Any moment, and one shortly before the milliseconds wrap.
    const STARTS: [u32; 2] = [7, u32::MAX - 3];

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        for start in STARTS {
            let after = |time: u32| start.wrapping_add(time);
            let latency = Latency::default();
            assert_eq!(latency.microseconds(start), None);
            latency.observe(MS(2), start);
            near(&latency, start, 2_000.0);
            latency.observe(MS(50), after(1));
            near(&latency, after(1), 50_000.0);
            // Ten seconds later the peak counts 1/e, and the small sample the rest.
            latency.observe(MS(2), after(10_001));
            near(&latency, after(10_001), 50_000.0 * 0.367_88 + 2_000.0 * 0.632_12);
        }
    }

    #[test]
    fn silence_forgets_when_read() {
        for start in STARTS {
            let latency = Latency::default();
            latency.observe(MS(100), start);
            near(&latency, start.wrapping_add(10_000), 36_788.0);
            near(&latency, start.wrapping_add(100_000), 4.54);
            latency.forget();
            assert_eq!(latency.microseconds(start), None);
        }
    }

    /// More than half of the counter's range.
    #[test]
    fn a_month_without_a_sample_forgets_too() {
        const MONTH: u32 = 30 * 24 * 3_600 * 1_000;
        let latency = Latency::default();
        latency.observe(MS(900), 1_000);
        near(&latency, 1_000 + MONTH, 0.0);
        latency.observe(MS(2), 1_000 + MONTH);
        near(&latency, 1_000 + MONTH, 2_000.0);
    }

    #[test]
    fn an_earlier_clock_is_no_gap() {
        let latency = Latency::default();
        latency.observe(MS(1), 1_000);
        latency.observe(MS(100), 1_500);
        near(&latency, 1_400, 100_000.0);
        latency.observe(Duration::ZERO, 1_400);
        near(&latency, 1_500, 100_000.0);
    }

    #[test]
    fn milliseconds_count_from_a_start_and_wrap() {
        let start = Instant::now();
        assert_eq!(since(start, start + MS(3)), 3);
        assert_eq!(since(start + MS(3), start), 0);
        assert_eq!(since(start, start + MS(1 << 32) + MS(5)), 5);
    }
}
