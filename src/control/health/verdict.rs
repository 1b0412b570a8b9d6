//! Rise and fall: the verdict that follows from a sequence of probes. Pure.
//!
//! ```text
//!              1 pass (start: up), `rise` passes (start: down)
//!   starting ────────────────────────────────────────────────▶ up
//!      │ │ `fall` failures in a row                            │ ▲
//!      │ └────────────────────▶ down ◀── `fall` failures ──────┤ │
//!      │                        │  ▲ └── `rise` passes ────────│─┤
//!      │             `rise` that it is   `fall` failures       │ │
//!      │                        ▼  │                           │ │
//!      └── 1 that it is ─────▶ standby ◀─ `fall` that it is ───┘ │
//!                                └─────── `rise` passes ─────────┘
//! ```
//!
//! A probe passes, fails, or gets the answer of a standby. Results in a row count: a single result of another kind
//! begins a new row, so that a backend which answers now and then neither comes up nor stays up by luck. For a
//! backend that is up, failures and standby answers count together; the last of them decides the new state, and the
//! reason of a failure. One that is down is so for another reason after `fall` failures for that one.
//!
//! After maintenance a backend is `starting` once more, and one failure is enough: it is unknown what was done to it,
//! so the first probe decides.

use crate::config::{Health, Start};
use crate::data::pool::fitness::{Standing, Vote};

/// How many results in a row are needed.
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
    /// For a backend that returns from maintenance.
    is_of_a_return: bool,
    /// Results of the last kind, in a row.
    last: Option<Vote>,
    in_a_row: u32,
    /// Failures in a row, for whatever reasons.
    failures: u32,
    /// Results that are not a pass, in a row.
    lapses: u32,
}

impl Verdict {
    /// Begins with `standing`, with nothing counted yet.
    pub fn new(thresholds: Thresholds, standing: Standing) -> Verdict {
        Verdict {
            thresholds,
            standing,
            is_of_a_return: false,
            last: None,
            in_a_row: 0,
            failures: 0,
            lapses: 0,
        }
    }

    /// Begins again from `starting`.
    pub fn of_a_return(thresholds: Thresholds) -> Verdict {
        Verdict { is_of_a_return: true, ..Verdict::new(thresholds, Standing::Starting) }
    }

    /// Whether it returns from maintenance, and is not decided yet.
    pub fn is_of_a_return(&self) -> bool {
        self.is_of_a_return && self.standing == Standing::Starting
    }

    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Counts one probe; returns the new standing if it changes.
    pub fn observe(&mut self, vote: Vote) -> Option<Standing> {
        let is_same = self.last.replace(vote) == Some(vote);
        self.in_a_row = if is_same { self.in_a_row.saturating_add(1) } else { 1 };
        let failed = matches!(vote, Vote::Failed(_));
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.lapses = if vote == Vote::Passed { 0 } else { self.lapses.saturating_add(1) };
        if !self.is_enough(vote) {
            return None;
        }
        let next = match vote {
            Vote::Failed(reason) => Standing::Down(reason),
            Vote::Passed => Standing::Up,
            Vote::Standby => Standing::Standby,
        };
        let changes = next != self.standing;
        self.standing = next;
        changes.then_some(next)
    }

    /// Results in a row that count, including the last one.
    pub fn in_a_row(&self) -> u32 {
        self.in_a_row.max(self.failures)
    }

    fn is_enough(&self, vote: Vote) -> bool {
        let Thresholds { rise, fall, start } = self.thresholds;
        match (vote, self.standing) {
            (Vote::Passed, Standing::Starting) if start == Start::Up => true,
            (Vote::Passed, _) => self.in_a_row >= rise,
            (Vote::Failed(_), Standing::Starting) if self.is_of_a_return => true,
            (_, Standing::Up) => self.lapses >= fall,
            // It stays down: the reason may change what becomes of its sessions.
            (Vote::Failed(_), Standing::Down(_)) => self.in_a_row >= fall,
            (Vote::Failed(_), _) => self.failures >= fall,
            // A standby gets no sessions, so there is no need to wait.
            (Vote::Standby, Standing::Starting) => true,
            (Vote::Standby, _) => self.in_a_row >= rise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DownReason;
    use proptest::prelude::*;

    const DEAD: Standing = Standing::Down(DownReason::Dead);
    const USUAL: Thresholds = Thresholds { rise: 2, fall: 3, start: Start::Up };

    fn vote(letter: char) -> Vote {
        match letter {
            '+' => Vote::Passed,
            '=' => Vote::Standby,
            '~' => Vote::Failed(DownReason::Lagging),
            _ => Vote::Failed(DownReason::Dead),
        }
    }

    /// `+` is a pass, `-` a failure, `~` that it is behind, `=` the answer of a standby; returns the standing after each.
    fn play(thresholds: Thresholds, standing: Standing, probes: &str) -> String {
        let mut verdict = Verdict::new(thresholds, standing);
        let letter = |probe| {
            verdict.observe(vote(probe));
            match verdict.standing() {
                Standing::Down(DownReason::Lagging) => 'l',
                Standing::Down(_) => 'd',
                Standing::Standby => 'b',
                Standing::Starting => 's',
                Standing::Up => 'u',
            }
        };
        probes.chars().map(letter).collect()
    }

    #[test]
    fn one_success_starts_the_fall_count_anew_and_one_failure_the_rise_count() {
        assert_eq!(play(USUAL, Standing::Up, "--+--+---"), "uuuuuuuud");
        assert_eq!(play(USUAL, DEAD, "+-+-++"), "dddddu");
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
                verdict.observe(vote(probe));
            }
            verdict.standing()
        };
        assert_eq!(of(Start::Up, "+"), Standing::Up);
        assert_eq!([of(Start::Up, "-"), of(Start::Down, "-")], [DEAD; 2]);
        assert_eq!(of(Start::Down, "+"), Standing::Starting);
        assert_eq!(of(Start::Down, "++"), Standing::Up);
        assert_eq!(of(Start::Down, "+-+"), DEAD, "from then on as usual");
    }

    #[test]
    fn a_standby_is_one_at_once_at_the_start_and_else_after_as_many_as_it_takes() {
        assert_eq!(play(USUAL, Standing::Starting, "=++"), "bbu");
        let down = Thresholds { start: Start::Down, ..USUAL };
        assert_eq!(play(down, Standing::Starting, "+=+-++"), "sbbbbu");
        assert_eq!(play(USUAL, Standing::Up, "==+==="), "uuuuub");
        assert_eq!(play(USUAL, Standing::Up, "--="), "uub", "alive again, in another role");
        assert_eq!(play(USUAL, Standing::Up, "==-"), "uud");
        assert_eq!(play(USUAL, Standing::Standby, "--=---+="), "bbbbbddd");
        assert_eq!(play(USUAL, DEAD, "=+=="), "dddb");
    }

    #[test]
    fn failures_for_several_reasons_count_together_and_who_is_down_learns_another_reason() {
        assert_eq!(play(USUAL, Standing::Up, "~-~"), "uul");
        assert_eq!(play(USUAL, Standing::Starting, "--~"), "ssl");
        assert_eq!(play(USUAL, Standing::Down(DownReason::Lagging), "--~---~~"), "lllllddd");
        assert_eq!(play(USUAL, DEAD, "~~~"), "ddl");
    }

    fn any_start() -> impl Strategy<Value = Start> {
        prop_oneof![Just(Start::Up), Just(Start::Down)]
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::Up),
            Just(DEAD),
            Just(Standing::Down(DownReason::Lagging)),
            Just(Standing::Standby),
            Just(Standing::Starting)
        ]
    }

    proptest! {
        /// A change has exactly the results behind it that it needs, and every backend that has them changes.
        #[test]
        fn the_standing_is_what_the_last_results_in_a_row_say(
            rise in 1..5_u32,
            fall in 1..5_u32,
            start in any_start(),
            first in any_standing(),
            probes in "[-+=~]{0,60}",
        ) {
            let thresholds = Thresholds { rise, fall, start };
            let mut verdict = Verdict::new(thresholds, first);
            let probes: Vec<Vote> = probes.chars().map(vote).collect();
            for count in 1..=probes.len() {
                let before = verdict.standing();
                let last = probes[count - 1];
                let flipped = verdict.observe(last);
                let run = |is: &dyn Fn(&Vote) -> bool| {
                    let row = probes[..count].iter().rev().take_while(|it| is(it)).count();
                    u32::try_from(row).unwrap()
                };
                let row = run(&|probe| *probe == last);
                let is_first = before == Standing::Starting;
                let lapses = run(&|probe| *probe != Vote::Passed);
                let failures = run(&|probe| matches!(probe, Vote::Failed(_)));
                prop_assert_eq!(verdict.in_a_row(), row.max(failures));
                let expected = match last {
                    Vote::Passed if row >= rise || is_first && start == Start::Up => Standing::Up,
                    Vote::Passed => before,
                    Vote::Failed(reason) if row >= fall => Standing::Down(reason),
                    Vote::Failed(_) if matches!(before, Standing::Down(_)) => before,
                    Vote::Failed(reason) if failures >= fall => Standing::Down(reason),
                    Vote::Failed(reason) if before == Standing::Up && lapses >= fall => {
                        Standing::Down(reason)
                    }
                    Vote::Failed(_) => before,
                    Vote::Standby if before == Standing::Up && lapses < fall => before,
                    Vote::Standby if !is_first && before != Standing::Up && row < rise => before,
                    Vote::Standby => Standing::Standby,
                };
                prop_assert_eq!(verdict.standing(), expected);
                prop_assert_eq!(flipped, (expected != before).then_some(expected));
            }
        }
    }
}
