//! `flap`: a backend that goes up and down too often is held down for a while. Here is only the count of changes; time is
//! passed in.

use std::collections::VecDeque;
use std::time::{Instant, SystemTime};

use crate::border::quantities::{moment, show_time};
use crate::config::Flap;

/// When a backend last went up or down: at most `changes` times, and none before the first change.
#[derive(Clone, Debug, Default)]
pub struct Changes(VecDeque<Instant>);

/// A backend that is held down, whatever its probes say.
#[derive(Clone, Debug)]
pub struct HoldDown {
    pub until: Instant,
    pub why: String,
}

impl Changes {
    /// Notes a change. Held down if there were as many as `flap` takes, within its time; then the count begins anew.
    pub fn note(&mut self, flap: &Flap, now: Instant, wall: SystemTime) -> Option<HoldDown> {
        let most = usize::try_from(flap.changes).unwrap_or(usize::MAX);
        // A reload may have lowered it.
        while self.0.len() >= most {
            self.0.pop_front();
        }
        self.0.push_back(now);
        let first = *self.0.front()?;
        if self.0.len() < most || now.saturating_duration_since(first) > flap.within {
            return None;
        }
        self.0.clear();
        let until = moment(wall + flap.hold_down);
        let why = format!(
            "flapping: {} changes within {}; held down until {until}",
            flap.changes,
            show_time(flap.within)
        );
        Some(HoldDown { until: now + flap.hold_down, why })
    }

    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    const FLAP: Flap =
        Flap { changes: 3, within: Duration::from_secs(10), hold_down: Duration::from_secs(60) };

    #[test]
    fn as_many_changes_as_it_takes_within_the_time() {
        let start = Instant::now();
        let held = |seconds: &[u64]| {
            let mut changes = Changes::default();
            let at = |second: &u64| start + Duration::from_secs(*second);
            let mut held = |now| changes.note(&FLAP, now, SystemTime::UNIX_EPOCH).is_some();
            seconds
                .iter()
                .map(|second| if held(at(second)) { 'h' } else { '.' })
                .collect::<String>()
        };
        assert_eq!(held(&[0, 5, 10]), "..h");
        assert_eq!(held(&[0, 5, 11]), "...", "the first is too long ago");
        assert_eq!(held(&[0, 5, 11, 14]), "...h");
        assert_eq!(held(&[0, 1, 2, 3, 4, 5]), "..h..h", "it begins anew");
        let mut changes = Changes::default();
        changes.note(&FLAP, start, SystemTime::UNIX_EPOCH);
        changes.note(&FLAP, start, SystemTime::UNIX_EPOCH);
        let hold = changes.note(&FLAP, start, SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(hold.until, start + FLAP.hold_down);
        assert_eq!(
            hold.why,
            "flapping: 3 changes within 10s; held down until 1970-01-01T00:01:00Z"
        );
    }

    proptest! {
        /// Against all changes ever: held exactly when the last so many since the hold before are within the time. Never
        /// more of them are kept.
        #[test]
        fn it_is_held_when_the_last_ones_are_close_enough(
            most in 2..8_u32,
            pauses in prop::collection::vec(0..8_u64, 0..60),
        ) {
            let flap = Flap { changes: most, ..FLAP };
            let (mut changes, mut now, mut all) = (Changes::default(), Instant::now(), Vec::new());
            for pause in pauses {
                now += Duration::from_secs(pause);
                all.push(now);
                let held = changes.note(&flap, now, SystemTime::UNIX_EPOCH).is_some();
                let most = most as usize;
                let close = all.len() >= most && now - all[all.len() - most] <= flap.within;
                prop_assert_eq!(held, close);
                prop_assert!(changes.0.len() <= most);
                if held {
                    all.clear();
                }
            }
        }
    }
}
