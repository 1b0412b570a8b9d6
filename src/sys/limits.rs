//! The descriptor limit: raised to the hard one at the start; the `auto` limits are computed from it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `auto` never allows more sessions than this, whatever the descriptor limit.
const AUTO_MAX: u64 = 1_000_000;

/// Raises the soft descriptor limit to the hard one; returns the limit in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If this is refused, the soft limit stays in force.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(AUTO_MAX * 3)
}

/// Whether this many descriptors are available now.
pub fn are_free(count: usize) -> io::Result<()> {
    let files = (0..count).map(|_| std::fs::File::open("/dev/null"));
    files.collect::<io::Result<Vec<_>>>().map(drop)
}

/// The hint for an error that says that a resource of the system has run out; empty for other errors.
pub fn hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            let limit = getrlimit(Resource::Nofile).current.unwrap_or(AUTO_MAX * 3);
            format!(
                "\n  hint: the limit of {limit} descriptors is too low; raise it: `ulimit -n`, or `LimitNOFILE=` of systemd"
            )
        }
        Some(libc::ENFILE) => {
            "\n  hint: the machine has no descriptors left: `sysctl fs.file-nr`".to_owned()
        }
        Some(libc::EAGAIN) => {
            "\n  hint: if a thread cannot be made, raise the limit: `ulimit -u`, `TasksMax=` of systemd, or the container's \
             pids limit"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// Descriptors kept back from sessions: for listeners, probes, pipes, admin, logs.
pub fn kept_back(descriptors: u64) -> u64 {
    (descriptors / 16).max(64)
}

/// The value of `max_sessions: auto`: two descriptors per session, after the reserve and what `flows` may take.
pub fn auto_max_sessions(descriptors: u64, flows: u64) -> u64 {
    (free(descriptors).saturating_sub(flows) / 2).clamp(1, AUTO_MAX)
}

/// Flows in all: one descriptor each, after the reserve. Beside TCP listeners they get half.
pub fn max_flows(descriptors: u64, is_beside_tcp: bool) -> u64 {
    let free = free(descriptors);
    if is_beside_tcp { free / 2 } else { free }.clamp(1, AUTO_MAX)
}

/// What sessions and flows may take.
pub fn free(descriptors: u64) -> u64 {
    descriptors.saturating_sub(kept_back(descriptors))
}

/// The lowest limit that leaves this many free.
pub fn limit_for(wanted: u64) -> u64 {
    // The reserve is rounded down, so that one less may be enough.
    let enough = wanted.saturating_add(wanted.div_ceil(15).max(64));
    if free(enough - 1) >= wanted { enough - 1 } else { enough }
}

/// Pipes of all workers together: two descriptors each, out of half of the reserve.
pub fn pipes(descriptors: u64) -> u64 {
    kept_back(descriptors) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_keeps_back_a_sixteenth_but_at_least_64() {
        assert_eq!(auto_max_sessions(20_000, 0), (20_000 - 1250) / 2);
        assert_eq!(auto_max_sessions(256, 0), (256 - 64) / 2);
        assert_eq!(auto_max_sessions(10, 0), 1);
        assert_eq!(auto_max_sessions(u64::MAX, 0), 1_000_000);
    }

    #[test]
    fn the_smallest_limit_that_leaves_enough() {
        for wanted in (0..5000).chain([18_750, 200_000, 1 << 40]) {
            let limit = limit_for(wanted);
            assert!(free(limit) >= wanted, "{limit} for {wanted}");
            assert!(wanted == 0 || free(limit - 1) < wanted, "{limit} for {wanted}");
        }
    }

    #[test]
    fn sessions_and_flows_share_the_descriptors() {
        let flows = max_flows(20_000, true);
        assert_eq!(flows, (20_000 - 1250) / 2);
        assert!(flows + 2 * auto_max_sessions(20_000, flows) <= 20_000 - 1250);
        assert_eq!(max_flows(20_000, false), 20_000 - 1250);
        assert_eq!(max_flows(10, false), 1);
    }
}
