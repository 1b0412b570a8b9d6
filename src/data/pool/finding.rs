//! How discovery of a pool's backends goes: by origin, when it last succeeded and failed, and counts of failures by
//! reason. Written by discovery, shown by metrics and API; no pick reads it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::border::counters::SharedCounter;
use crate::config::{BadList, Origin};

/// The words of `discovery_failures_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The name exists, and has no such records.
    Empty,
    /// The answer does not fit the question, or the file is not a list of backends.
    Malformed,
    Nxdomain,
    /// A server could not answer or refused to: SERVFAIL, REFUSED and the like.
    Servfail,
    Timeout,
    /// No server can be reached, or sent a query at all.
    Unreachable,
    /// For a file.
    Unreadable,
}

impl Reason {
    pub const ALL: [Reason; 7] = [
        Reason::Empty,
        Reason::Malformed,
        Reason::Nxdomain,
        Reason::Servfail,
        Reason::Timeout,
        Reason::Unreachable,
        Reason::Unreadable,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Empty => "empty",
            Reason::Malformed => "malformed",
            Reason::Nxdomain => "nxdomain",
            Reason::Servfail => "servfail",
            Reason::Timeout => "timeout",
            Reason::Unreachable => "unreachable",
            Reason::Unreadable => "unreadable",
        }
    }
}

/// Why discovery failed; what was found before stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: Reason,
    pub why: String,
}

impl From<BadList> for Failure {
    fn from(bad: BadList) -> Failure {
        let (reason, why) = match bad {
            BadList::Unreadable(why) => (Reason::Unreadable, why),
            BadList::Malformed(why) => (Reason::Malformed, why),
        };
        Failure { reason, why }
    }
}

/// For one pool, over all its versions.
#[derive(Debug, Default)]
pub struct Finding {
    /// Held for a look or a store, never across an await.
    origins: Mutex<BTreeMap<Origin, Last>>,
    failures: [SharedCounter; Reason::ALL.len()],
}

/// For one origin.
#[derive(Clone, Debug, Default)]
pub struct Last {
    pub success: Option<SystemTime>,
    pub failure: Option<(SystemTime, String)>,
    /// Why it fails now. `None`: it does not, or was not asked yet.
    failing: Option<Failure>,
}

impl Finding {
    fn origins(&self) -> MutexGuard<'_, BTreeMap<Origin, Last>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these origins are used, and no others.
    pub fn attend(&self, origins: impl Iterator<Item = Origin>) {
        let mut known = self.origins();
        let mut before = std::mem::take(&mut *known);
        known.extend(origins.map(|origin| {
            let last = before.remove(&origin).unwrap_or_default();
            (origin, last)
        }));
    }

    /// Returns why it failed until now, if it did.
    pub fn succeeded(&self, origin: &Origin, now: SystemTime) -> Option<Failure> {
        let mut origins = self.origins();
        let last = origins.get_mut(origin)?;
        last.success = Some(now);
        last.failing.take()
    }

    /// Other pools had an answer then, and this pool gets it from them.
    pub fn joins(&self, origin: &Origin, then: SystemTime) {
        if let Some(last) = self.origins().get_mut(origin) {
            last.success.get_or_insert(then);
        }
    }

    /// Returns whether this is news.
    pub fn failed(&self, origin: &Origin, failure: &Failure, now: SystemTime) -> bool {
        self.count(failure);
        let mut origins = self.origins();
        let Some(last) = origins.get_mut(origin) else { return false };
        // An error about a file names the file.
        let why = match origin {
            Origin::Dns(question) => format!("{}: {}", question.name, failure.why),
            Origin::File(_) => failure.why.clone(),
        };
        last.failure = Some((now, why));
        let before = last.failing.replace(failure.clone());
        before.is_none_or(|before| before != *failure)
    }

    /// A part of an answer failed, and the rest of it was good.
    pub fn count(&self, failure: &Failure) {
        self.failures[failure.reason as usize].add(1);
    }

    pub fn failures(&self, reason: Reason) -> u64 {
        self.failures[reason as usize].value()
    }

    /// Over all origins: the earliest of their last successes, and the last failure. `None`: there is none.
    pub fn last(&self) -> Option<Last> {
        let origins = self.origins();
        let success = origins
            .values()
            .map(|last| last.success)
            .reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b)))?;
        let failure = origins.values().filter_map(|last| last.failure.clone());
        let failure = failure.max_by_key(|(time, _)| *time);
        Some(Last { success, failure, failing: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Asked, Question};
    use std::time::Duration;

    #[test]
    fn of_several_origins_the_oldest_success_and_the_newest_failure_are_shown() {
        let finding = Finding::default();
        assert!(finding.last().is_none());
        let [a, b] = ["a", "b"].map(|name| {
            let (name, record) = (name.to_owned(), Asked::Address);
            Origin::Dns(Question { name, record, servers: Vec::new() })
        });
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let failure = Failure { reason: Reason::Timeout, why: "nobody answers".to_owned() };
        finding.attend([a.clone(), b.clone()].into_iter());
        assert_eq!(finding.succeeded(&a, at(1)), None);
        assert_eq!(finding.last().unwrap().success, None, "b never had one");
        finding.succeeded(&b, at(2));
        finding.succeeded(&b, at(3));
        assert_eq!(finding.last().unwrap().success, Some(at(1)));
        assert!(finding.failed(&a, &failure, at(4)) && !finding.failed(&a, &failure, at(5)));
        assert_eq!(finding.last().unwrap().failure, Some((at(5), "a: nobody answers".to_owned())));
        assert_eq!(finding.failures(Reason::Timeout), 2);
        assert_eq!(finding.succeeded(&a, at(6)), Some(failure));
        finding.attend([b].into_iter());
        assert_eq!(finding.last().unwrap().failure, None, "nobody looks at a any more");
        assert_eq!(finding.failures(Reason::Timeout), 2);
    }
}
