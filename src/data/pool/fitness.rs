//! What probes found out about a backend: the standing, and counts of results. The health checks write it; sessions
//! never read it, only the weight that follows from it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::border::counters::SharedCounter;
use crate::config::DownReason;

/// The verdict of the probes about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Down(DownReason),
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
    /// It answers, and is further behind than it may be.
    Lagging,
    /// It turned the login away.
    LoginFailed,
    Mismatch,
    Passed,
    /// It refused the question.
    QueryFailed,
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
    Failed(DownReason),
    Passed,
    Standby,
}

/// `probes_total{result}` of one backend.
#[derive(Debug, Default)]
pub struct ProbeCounters {
    pub local_error: SharedCounter,
    pub lagging: SharedCounter,
    pub login_failed: SharedCounter,
    pub mismatch: SharedCounter,
    pub passed: SharedCounter,
    pub query_failed: SharedCounter,
    pub refused: SharedCounter,
    pub timeout: SharedCounter,
    pub tls_failed: SharedCounter,
    pub unreachable: SharedCounter,
    pub wrong_role: SharedCounter,
}

impl ProbeResult {
    pub const ALL: [ProbeResult; 11] = [
        ProbeResult::LocalError,
        ProbeResult::Lagging,
        ProbeResult::LoginFailed,
        ProbeResult::Mismatch,
        ProbeResult::Passed,
        ProbeResult::QueryFailed,
        ProbeResult::Refused,
        ProbeResult::Timeout,
        ProbeResult::TlsFailed,
        ProbeResult::Unreachable,
        ProbeResult::WrongRole,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ProbeResult::LocalError => "local_error",
            ProbeResult::Lagging => "lagging",
            ProbeResult::LoginFailed => "login_failed",
            ProbeResult::Mismatch => "mismatch",
            ProbeResult::Passed => "passed",
            ProbeResult::QueryFailed => "query_failed",
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
            ProbeResult::Lagging => Some(Vote::Failed(DownReason::Lagging)),
            ProbeResult::LoginFailed => Some(Vote::Failed(DownReason::LoginFailed)),
            ProbeResult::QueryFailed => Some(Vote::Failed(DownReason::QueryFailed)),
            _ => Some(Vote::Failed(DownReason::Dead)),
        }
    }
}

impl ProbeCounters {
    pub fn of(&self, result: ProbeResult) -> &SharedCounter {
        match result {
            ProbeResult::LocalError => &self.local_error,
            ProbeResult::Lagging => &self.lagging,
            ProbeResult::LoginFailed => &self.login_failed,
            ProbeResult::Mismatch => &self.mismatch,
            ProbeResult::Passed => &self.passed,
            ProbeResult::QueryFailed => &self.query_failed,
            ProbeResult::Refused => &self.refused,
            ProbeResult::Timeout => &self.timeout,
            ProbeResult::TlsFailed => &self.tls_failed,
            ProbeResult::Unreachable => &self.unreachable,
            ProbeResult::WrongRole => &self.wrong_role,
        }
    }
}
