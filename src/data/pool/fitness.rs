//! What probes found out about a backend: the standing, and counts of results. The health checks write it; sessions
//! never read it, only the weight that follows from it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::border::counters::SharedCounter;

/// The verdict of the probes about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Down,
    /// It answers that it does not serve this pool now.
    Standby,
    /// Too few probes yet to decide.
    Starting,
    Up,
}

/// How one probe ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub result: ProbeResult,
    /// Details, such as the status received.
    pub detail: Option<Cow<'static, str>>,
    pub took: Duration,
}

/// Continues after "last:", for example "refused after 0.4 ms".
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.result.as_str())?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        write!(f, " after {:.1} ms", self.took.as_secs_f64() * 1e3)
    }
}

/// The words of `probes_total{result}` and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// What maitred itself lacked (descriptors, ports, memory): says nothing about the backend.
    LocalError,
    Mismatch,
    Passed,
    Refused,
    Timeout,
    /// It was reached, but not in TLS.
    TlsFailed,
    Unreachable,
    /// It answers that it does not serve this pool now.
    WrongRole,
}

/// How a probe counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    Failed,
    Passed,
    Standby,
}

/// `probes_total{result}` of one backend.
#[derive(Debug, Default)]
pub struct ProbeCounters {
    pub local_error: SharedCounter,
    pub mismatch: SharedCounter,
    pub passed: SharedCounter,
    pub refused: SharedCounter,
    pub timeout: SharedCounter,
    pub tls_failed: SharedCounter,
    pub unreachable: SharedCounter,
    pub wrong_role: SharedCounter,
}

impl ProbeResult {
    pub const ALL: [ProbeResult; 8] = [
        ProbeResult::LocalError,
        ProbeResult::Mismatch,
        ProbeResult::Passed,
        ProbeResult::Refused,
        ProbeResult::Timeout,
        ProbeResult::TlsFailed,
        ProbeResult::Unreachable,
        ProbeResult::WrongRole,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ProbeResult::LocalError => "local_error",
            ProbeResult::Mismatch => "mismatch",
            ProbeResult::Passed => "passed",
            ProbeResult::Refused => "refused",
            ProbeResult::Timeout => "timeout",
            ProbeResult::TlsFailed => "tls_failed",
            ProbeResult::Unreachable => "unreachable",
            ProbeResult::WrongRole => "wrong_role",
        }
    }

    /// `None` if it says nothing about the backend.
    pub fn vote(self) -> Option<Vote> {
        match self {
            ProbeResult::LocalError => None,
            ProbeResult::Passed => Some(Vote::Passed),
            ProbeResult::WrongRole => Some(Vote::Standby),
            _ => Some(Vote::Failed),
        }
    }
}

impl ProbeCounters {
    pub fn of(&self, result: ProbeResult) -> &SharedCounter {
        match result {
            ProbeResult::LocalError => &self.local_error,
            ProbeResult::Mismatch => &self.mismatch,
            ProbeResult::Passed => &self.passed,
            ProbeResult::Refused => &self.refused,
            ProbeResult::Timeout => &self.timeout,
            ProbeResult::TlsFailed => &self.tls_failed,
            ProbeResult::Unreachable => &self.unreachable,
            ProbeResult::WrongRole => &self.wrong_role,
        }
    }
}
