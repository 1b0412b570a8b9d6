//! Rise and fall: what a sequence of probes adds up to. Pure.
//!
//! ```text
//!              1 pass (start: up), `rise` passes (start: down)
//!   starting ────────────────────────────────────────────────▶ up
//!      │ `fall` failures in a row                              │ ▲
//!      └──────────────────────▶ down ◀── `fall` failures ──────┘ │
//!                                └────── `rise` passes ──────────┘
//! ```
//!
//! After a maintenance a backend is `starting` once more, and one failure is enough: nobody knows what was done to it, so
//! the first probe decides.
//!
//! Both counts are of results in a row: a single result of the other kind starts them anew, so that a backend
//! which answers now and then neither comes up nor stays up by luck.

use crate::config::{Health, Start};
use crate::pool::fitness::Standing;

/// How many results in a row it takes.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    pub rise: u32,
    pub fall: u32,
    pub start: Start,
}

impl Thresholds {
    pub fn of(health: &Health) -> Thresholds {
        Thresholds { rise: health.rise, fall: health.fall, start: health.start }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    thresholds: Thresholds,
    standing: Standing,
    /// Of a backend that returns from maintenance.
    is_of_a_return: bool,
    /// In a row; one of the two is always nought.
    passes: u32,
    failures: u32,
}

impl Verdict {
    /// Goes on from `standing`, with nothing counted yet.
    pub fn new(thresholds: Thresholds, standing: Standing) -> Verdict {
        Verdict { thresholds, standing, is_of_a_return: false, passes: 0, failures: 0 }
    }

    /// Begins anew.
    pub fn of_a_return(thresholds: Thresholds) -> Verdict {
        Verdict { is_of_a_return: true, ..Verdict::new(thresholds, Standing::Starting) }
    }

    /// Whether it is, and not decided yet.
    pub fn is_of_a_return(&self) -> bool {
        self.is_of_a_return && self.standing == Standing::Starting
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Counts one probe; returns the new standing if it changes.
    pub fn observe(&mut self, passed: bool) -> Option<Standing> {
        if passed {
            self.passes = self.passes.saturating_add(1);
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            self.passes = 0;
        }
        let next = if passed && self.passes >= self.passes_needed() {
            Standing::Up
        } else if !passed && self.failures >= self.failures_needed() {
            Standing::Down
        } else {
            return None;
        };
        let changes = next != self.standing;
        self.standing = next;
        changes.then_some(next)
    }

    /// Results in a row of the last kind, itself included.
    pub fn in_a_row(&self) -> u32 {
        self.passes.max(self.failures)
    }

    fn failures_needed(&self) -> u32 {
        if self.is_of_a_return() { 1 } else { self.thresholds.fall }
    }

    fn passes_needed(&self) -> u32 {
        match (self.standing, self.thresholds.start) {
            (Standing::Starting, Start::Up) => 1,
            _ => self.thresholds.rise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL: Thresholds = Thresholds { rise: 2, fall: 3, start: Start::Up };

    /// `+` is a pass, `-` a failure; answers the standing after each.
    fn play(thresholds: Thresholds, standing: Standing, probes: &str) -> String {
        let mut verdict = Verdict::new(thresholds, standing);
        let letter = |probe| {
            verdict.observe(probe == '+');
            match verdict.standing() {
                Standing::Down => 'd',
                Standing::Starting => 's',
                Standing::Up => 'u',
            }
        };
        probes.chars().map(letter).collect()
    }

    #[test]
    fn one_success_starts_the_fall_count_anew_and_one_failure_the_rise_count() {
        assert_eq!(play(USUAL, Standing::Up, "--+--+---"), "uuuuuuuud");
        assert_eq!(play(USUAL, Standing::Down, "+-+-++"), "dddddu");
    }

    #[test]
    fn who_starts_up_needs_one_pass_to_be_up_and_all_failures_to_be_down() {
        assert_eq!(play(USUAL, Standing::Starting, "--+"), "ssu");
        assert_eq!(play(USUAL, Standing::Starting, "---++"), "ssddu");
    }

    #[test]
    fn who_starts_down_needs_all_passes() {
        let thresholds = Thresholds { start: Start::Down, ..USUAL };
        assert_eq!(play(thresholds, Standing::Starting, "+-++"), "sssu");
        assert_eq!(play(thresholds, Standing::Starting, "---"), "ssd");
    }

    #[test]
    fn who_returns_from_maintenance_is_what_the_first_probe_says_or_with_start_down_what_all_say() {
        let of = |start, probes: &str| {
            let mut verdict = Verdict::of_a_return(Thresholds { start, ..USUAL });
            for probe in probes.chars() {
                verdict.observe(probe == '+');
            }
            verdict.standing()
        };
        assert_eq!(of(Start::Up, "+"), Standing::Up);
        assert_eq!([of(Start::Up, "-"), of(Start::Down, "-")], [Standing::Down; 2]);
        assert_eq!(of(Start::Down, "+"), Standing::Starting);
        assert_eq!(of(Start::Down, "++"), Standing::Up);
        assert_eq!(of(Start::Down, "+-+"), Standing::Down, "from then on as usual");
    }

    fn any_start() -> impl Strategy<Value = Start> {
        prop_oneof![Just(Start::Up), Just(Start::Down)]
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        prop_oneof![Just(Standing::Up), Just(Standing::Down), Just(Standing::Starting)]
    }

    proptest! {
        /// A flip has exactly the results behind it that it needs, and everyone who has them flips.
        #[test]
        fn the_standing_is_what_the_last_results_in_a_row_say(
            rise in 1..5_u32,
            fall in 1..5_u32,
            start in any_start(),
            first in any_standing(),
            probes in prop::collection::vec(any::<bool>(), 0..60),
        ) {
            let thresholds = Thresholds { rise, fall, start };
            let mut verdict = Verdict::new(thresholds, first);
            for count in 1..=probes.len() {
                let before = verdict.standing();
                let flipped = verdict.observe(probes[count - 1]);
                let last = probes[count - 1];
                let row = probes[..count].iter().rev().take_while(|probe| **probe == last).count();
                let row = u32::try_from(row).unwrap();
                prop_assert_eq!(verdict.in_a_row(), row);
                let eager = before == Standing::Starting && start == Start::Up;
                let expected = match last {
                    true if row >= if eager { 1 } else { rise } => Standing::Up,
                    false if row >= fall => Standing::Down,
                    _ => before,
                };
                prop_assert_eq!(verdict.standing(), expected);
                prop_assert_eq!(flipped, (expected != before).then_some(expected));
            }
        }
    }
}
