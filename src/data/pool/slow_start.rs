//! Slow start: the part of its weight that a recovered backend has already. Pure; time is passed in.
//!
//! The share grows linearly over the window and starts at a tenth. A session of layer 4 may last for hours, so a ramp
//! from (almost) nothing would give no evidence that a recovered backend works; a tenth is enough for that, and small
//! enough not to overload it again.

use std::time::{Duration, Instant};

use super::slots::WEIGHT_UNIT;

/// The smallest share of the weight is one part in this many.
const FIRST_SHARE: u32 = 10;

/// The weight that counts at `now`, in `WEIGHT_UNIT`s. `up_since` is when the backend recovered, `None` if it never
/// had to; `window` is `slow_start`.
pub fn effective_weight(
    weight: u32,
    up_since: Option<Instant>,
    window: Option<Duration>,
    now: Instant,
) -> u32 {
    let full = weight.saturating_mul(WEIGHT_UNIT);
    let (Some(up_since), Some(window)) = (up_since, window) else { return full };
    let age = now.saturating_duration_since(up_since);
    if age >= window || full == 0 {
        return full;
    }
    let ramped = u128::from(full) * age.as_nanos() / window.as_nanos().max(1);
    u32::try_from(ramped).unwrap_or(full).max(full.div_ceil(FIRST_SHARE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Option<Duration> = Some(Duration::from_secs(100));

    fn weight_after(seconds: u64) -> u32 {
        let start = Instant::now();
        effective_weight(100, Some(start), WINDOW, start + Duration::from_secs(seconds))
    }

    #[test]
    fn the_ramp_is_linear_from_a_tenth_to_all() {
        let shares: Vec<u32> =
            [0, 5, 10, 25, 50, 99, 100, 1000].map(|s| weight_after(s) / WEIGHT_UNIT).into();
        assert_eq!(shares, [10, 10, 10, 25, 50, 99, 100, 100]);
    }

    #[test]
    fn without_recovery_or_window_the_weight_is_whole() {
        let now = Instant::now();
        assert_eq!(effective_weight(3, None, WINDOW, now), 3 * WEIGHT_UNIT);
        assert_eq!(effective_weight(3, Some(now), None, now), 3 * WEIGHT_UNIT);
        assert_eq!(effective_weight(3, Some(now), Some(Duration::ZERO), now), 3 * WEIGHT_UNIT);
    }

    #[test]
    fn weight_nought_stays_nought_and_weight_one_is_never_nought() {
        let now = Instant::now();
        assert_eq!(effective_weight(0, Some(now), WINDOW, now), 0);
        assert_eq!(effective_weight(1, Some(now), WINDOW, now), 26);
    }
}
