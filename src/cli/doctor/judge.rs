//! From facts and needs to findings. Pure. What is looked at, and under which id, is the table below; ids are for
//! programs and do not change.

use super::facts::{Facts, Unread};
use super::needs::Needs;
use super::{network, room};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something breaks once a limit of the configuration is reached, or at the start.
    WillBreak,
    WillHurt,
    /// It could not be looked at.
    Unknown,
    Well,
}

impl Severity {
    /// For programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::WillBreak => "will_break",
            Severity::WillHurt => "will_hurt",
            Severity::Unknown => "unknown",
            Severity::Well => "well",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub id: &'static str,
    pub severity: Severity,
    /// What there is, with what is counted.
    pub figure: String,
    /// What there should be. Empty, like the rest, if it is well.
    pub needed: String,
    pub why: String,
    /// The command, or what else is to be done.
    pub mend: String,
}

/// A finding whose id is in the table.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The configuration has nothing to do with it.
    NotAsked,
    Well(String),
    Ill {
        severity: Severity,
        figure: String,
        needed: String,
        why: String,
        mend: String,
    },
}

pub type Rule = fn(&Facts, &Needs) -> Result<Verdict, Unread>;

pub const RULES: [(&str, Rule); 15] = [
    ("descriptors", room::descriptors),
    ("memory", room::memory),
    ("cpu_quota", room::cpu_quota),
    ("cpus", room::cpus),
    ("pipe_user_pages", room::pipe_user_pages),
    ("pipe_max_size", room::pipe_max_size),
    ("privileged_ports", network::privileged_ports),
    ("listener_ports", network::listener_ports),
    ("somaxconn", network::somaxconn),
    ("source_ports", network::source_ports),
    ("source_addresses", network::source_addresses),
    ("tcp_tw_reuse", network::tw_reuse),
    ("tcp_timestamps", network::timestamps),
    ("conntrack", network::conntrack),
    ("udp_buffers", network::udp_buffers),
];

/// The worst first; what is equally bad, in the order of the table.
pub fn judge(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        RULES.iter().filter_map(|(id, rule)| finding(id, rule(facts, needs))).collect();
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn finding(id: &'static str, verdict: Result<Verdict, Unread>) -> Option<Finding> {
    let quiet = |severity, figure| Finding {
        id,
        severity,
        figure,
        needed: String::new(),
        why: String::new(),
        mend: String::new(),
    };
    match verdict {
        Ok(Verdict::NotAsked) => None,
        Ok(Verdict::Well(figure)) => Some(quiet(Severity::Well, figure)),
        Ok(Verdict::Ill { severity, figure, needed, why, mend }) => {
            Some(Finding { id, severity, figure, needed, why, mend })
        }
        Err(unread) => Some(quiet(Severity::Unknown, unread.to_string())),
    }
}
