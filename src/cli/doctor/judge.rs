//! From facts and needs to findings. Pure. The table below has all checks and their ids; ids are for programs and do
//! not change.

use super::facts::Facts;
use super::finding::{Finding, Severity, Verdict};
use super::needs::Needs;
use super::reading::Unread;
use super::{network, room};

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

/// The worst first; equally bad ones in the order of the table.
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
