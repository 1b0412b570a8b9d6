//! Whether a login that fails is the server's fault or the probe's: a changed password must not end a service. It is the
//! server's if another server of the pool has let the probe in since; where none does, the probes are blind, and the
//! verdicts stay as they were.

use std::cell::Cell;
use std::time::Instant;

use crate::data::pool::fitness::ProbeResult;

/// Over the backends of one pool.
#[derive(Debug, Default)]
pub struct Entries {
    /// Backends whose last probe was let in.
    entered: Cell<u32>,
    /// Backends whose last probe was turned away.
    refused: Cell<u32>,
    /// When one was let in last.
    last: Cell<Option<Instant>>,
}

/// Of one backend.
#[derive(Debug, Default)]
pub struct Entry {
    last: Cell<Last>,
    /// Since when its probes are turned away, without one in between that was not.
    refused_since: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    Entered,
    Refused,
    /// It did not get as far as the login.
    #[default]
    Neither,
}

impl Entries {
    /// Counts a result; returns whether it says something about the backend.
    pub fn note(&self, entry: &Entry, result: ProbeResult, begun: Instant, now: Instant) -> bool {
        use ProbeResult::{Lagging, LoginFailed, Passed, QueryFailed, WrongRole};
        let last = match result {
            LoginFailed => Last::Refused,
            Lagging | Passed | QueryFailed | WrongRole => Last::Entered,
            _ => Last::Neither,
        };
        self.replace(entry, last);
        match last {
            Last::Entered => {
                self.last.set(Some(now));
                entry.refused_since.set(None);
                true
            }
            Last::Neither => {
                entry.refused_since.set(None);
                true
            }
            Last::Refused => {
                let since = entry.refused_since.get().unwrap_or(begun);
                entry.refused_since.set(Some(since));
                self.entered.get() > 0 && self.last.get().is_some_and(|last| last > since)
            }
        }
    }

    /// Every backend that answers turns the probes away.
    pub fn is_blind(&self) -> bool {
        self.refused.get() > 0 && self.entered.get() == 0
    }

    /// Its backend is no longer watched.
    pub fn forget(&self, entry: &Entry) {
        self.replace(entry, Last::Neither);
    }

    fn replace(&self, entry: &Entry, last: Last) {
        let count = |last| match last {
            Last::Entered => Some(&self.entered),
            Last::Refused => Some(&self.refused),
            Last::Neither => None,
        };
        if let Some(count) = count(entry.last.replace(last)) {
            count.set(count.get().saturating_sub(1));
        }
        if let Some(count) = count(last) {
            count.set(count.get() + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_password_that_no_server_takes_says_nothing_about_them() {
        let (entries, [a, b, c]) = (Entries::default(), [const { None }; 3].map(entry));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let note = |entry, result, second| entries.note(entry, result, at(second), at(second));
        for entry in [&a, &b] {
            assert!(note(entry, ProbeResult::Passed, 0));
        }
        assert!(note(&c, ProbeResult::Refused, 0), "dead is dead");
        // The password changes.
        assert!(!note(&a, ProbeResult::LoginFailed, 2) && !entries.is_blind());
        assert!(!note(&b, ProbeResult::LoginFailed, 3) && entries.is_blind());
        assert!(!note(&a, ProbeResult::LoginFailed, 4));
        assert!(note(&c, ProbeResult::Refused, 4) && entries.is_blind());
        // It is put right in the file.
        assert!(note(&b, ProbeResult::WrongRole, 5) && !entries.is_blind());
        // Only `a` still turns probes away, although `b` has let one in since it began to.
        assert!(note(&a, ProbeResult::LoginFailed, 6) && !entries.is_blind());
    }

    #[test]
    fn one_server_that_turns_probes_away_is_known_once_another_has_let_one_in_since() {
        let (entries, [a, b]) = (Entries::default(), [None; 2].map(entry));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let note = |entry, result, second| entries.note(entry, result, at(second), at(second));
        note(&a, ProbeResult::Passed, 0);
        note(&b, ProbeResult::Passed, 1);
        assert!(!note(&a, ProbeResult::LoginFailed, 2), "b may do the same in a moment");
        assert!(note(&b, ProbeResult::Passed, 3));
        assert!(note(&a, ProbeResult::LoginFailed, 4));
        // It leaves the pool.
        entries.forget(&b);
        assert!(!note(&a, ProbeResult::LoginFailed, 5) && entries.is_blind());
        entries.forget(&a);
        assert!(!entries.is_blind());
    }

    fn entry(_: Option<()>) -> Entry {
        Entry::default()
    }
}
