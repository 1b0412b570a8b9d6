//! `maitred doctor`: what on this machine will hurt, each with the figure, why, and the command that mends it.

use std::process::ExitCode;

use clap::Args;

use crate::sys::datagram::{FLOW_BUFFER, LISTENER_BUFFER, granted_receive_buffer};
use crate::sys::limits;

/// Fewer descriptors than this are used up by a few thousand sessions.
const DESCRIPTORS: u64 = 65_536;

/// Say what on this machine will hurt, why, and what mends it (exit 1 if there is anything)
#[derive(Args, Debug)]
pub struct Doctor {}

/// What was found on this machine.
#[derive(Clone, Copy, Debug)]
struct Facts {
    descriptors: u64,
    /// Bytes of a receive buffer that the kernel gave us when asked for `LISTENER_BUFFER`.
    receive_buffer: usize,
}

impl Doctor {
    pub fn run(&self) -> ExitCode {
        let facts = Facts {
            descriptors: limits::raise_descriptor_limit(),
            receive_buffer: granted_receive_buffer().unwrap_or(0),
        };
        let findings = findings(&facts);
        for finding in &findings {
            super::print(finding);
        }
        super::print(&well(&facts));
        if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// What was looked at and will not hurt, a line each.
fn well(facts: &Facts) -> String {
    let Facts { descriptors, receive_buffer } = *facts;
    let mut lines = String::new();
    if descriptors >= DESCRIPTORS {
        lines.push_str(&format!("well: descriptors: {descriptors}\n"));
    }
    if receive_buffer >= LISTENER_BUFFER {
        lines.push_str(&format!("well: UDP receive buffers: {receive_buffer} bytes\n"));
    }
    lines
}

fn findings(facts: &Facts) -> Vec<String> {
    let mut findings = Vec::new();
    let Facts { descriptors, receive_buffer } = *facts;
    if descriptors < DESCRIPTORS {
        let sessions = limits::auto_max_sessions(descriptors, 0);
        let flows = limits::max_flows(descriptors, false);
        findings.push(format!(
            "descriptors: at most {descriptors}\n  why: a session takes two, a UDP flow one; that is {sessions} \
             sessions or {flows} flows\n  mend: `ulimit -Hn 1048576` before the start, `LimitNOFILE=1048576` in a \
             systemd unit, `--ulimit nofile=1048576` for a container\n"
        ));
    }
    if receive_buffer < LISTENER_BUFFER {
        findings.push(format!(
            "net.core.rmem_max: a UDP receive buffer may have {receive_buffer} bytes\n  why: a listener asks for \
             {LISTENER_BUFFER} and each flow for {FLOW_BUFFER}; bursts that do not fit are lost, counted as \
             maitred_udp_dropped_total{{reason=\"receive_buffer\"}}\n  mend: `sysctl -w \
             net.core.rmem_max={LISTENER_BUFFER} net.core.wmem_max={LISTENER_BUFFER}`, or give maitred \
             CAP_NET_ADMIN\n"
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_room_has_no_findings() {
        let facts = Facts { descriptors: 1 << 20, receive_buffer: LISTENER_BUFFER };
        assert_eq!(findings(&facts), [""; 0]);
        assert_eq!(well(&facts).lines().count(), 2);
    }

    #[test]
    fn each_finding_has_its_figure_and_what_mends_it() {
        let facts = Facts { descriptors: 1024, receive_buffer: 212_992 };
        let found = findings(&facts);
        assert_eq!((found.len(), well(&facts)), (2, String::new()));
        assert!(found[0].contains("at most 1024") && found[0].contains("mend: `ulimit"));
        assert!(found[1].contains("212992 bytes") && found[1].contains("rmem_max=8388608"));
    }
}
