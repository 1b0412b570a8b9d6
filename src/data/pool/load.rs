//! A backend's load in one word: sessions, weight, and whether they are tallied. One word, so that every change knows
//! exactly what was before and what is after. The tallies of its chunk get the difference, and whatever happens at
//! the same time, the differences add up to what the rows say.
//!
//! ```text
//! word:  63 ── weight ── 33 │ 32: tallied │ 31 ── sessions ── 0
//! ```

/// A row's word as it was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load(u64);

const SESSIONS: u64 = u32::MAX as u64;
const TALLIED: u64 = 1 << 32;
const WEIGHT_SHIFT: u32 = 33;

/// The largest weight that fits, a hundred times what can be configured.
const MOST_WEIGHT: u32 = u32::MAX >> 1;

/// What one row adds to the tallies of its chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub sessions: u32,
    pub weight: u32,
}

impl Load {
    pub fn of(word: u64) -> Load {
        Load(word)
    }

    pub fn word(self) -> u64 {
        self.0
    }

    /// Sessions that connect or relay.
    pub fn sessions(self) -> u32 {
        u32::try_from(self.0 & SESSIONS).unwrap_or(u32::MAX)
    }

    /// In `WEIGHT_UNIT`s; 0 = takes no new sessions now (down, ejected, by hand, weight 0).
    pub fn weight(self) -> u32 {
        u32::try_from(self.0 >> WEIGHT_SHIFT).unwrap_or(u32::MAX)
    }

    pub fn with_weight(self, weight: u32) -> Load {
        Load(self.0 & (SESSIONS | TALLIED) | u64::from(weight.min(MOST_WEIGHT)) << WEIGHT_SHIFT)
    }

    /// One session more; the caller knows that there are fewer than 2^32 - 1.
    pub fn with_another(self) -> Load {
        Load(self.0 + 1)
    }

    pub fn tallied(self) -> Load {
        Load(self.0 | TALLIED)
    }

    /// Whether its sessions are in the tally: only for a backend that is up.
    pub fn counts(self) -> bool {
        self.0 & TALLIED != 0 && self.0 >> WEIGHT_SHIFT != 0
    }

    pub fn share(self) -> Share {
        if self.counts() {
            Share { sessions: self.sessions(), weight: self.weight() }
        } else {
            Share::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_part_of_the_word_touches_another(sessions in 0..u32::MAX, weight in 0..=MOST_WEIGHT) {
            let load = Load::of(sessions.into()).with_weight(weight);
            prop_assert_eq!((load.sessions(), load.weight()), (sessions, weight));
            prop_assert_eq!(load.share(), Share::default());
            let load = load.tallied().with_another();
            prop_assert_eq!((load.sessions(), load.weight()), (sessions + 1, weight));
            prop_assert_eq!(load.counts(), weight > 0);
            let (up, down) = (Share { sessions: sessions + 1, weight }, Share::default());
            prop_assert_eq!(load.share(), if weight > 0 { up } else { down });
            prop_assert_eq!(load.with_weight(7).with_weight(weight), load);
        }
    }

    #[test]
    fn a_weight_that_does_not_fit_is_the_largest_that_does() {
        let load = Load::of(3).tallied().with_weight(u32::MAX);
        assert_eq!((load.sessions(), load.weight()), (3, MOST_WEIGHT));
    }
}
