//! The descriptor limit: raised to the hard one at start, and what `auto` limits make of it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More sessions than this are never allowed by `auto`, whatever the descriptor limit.
const AUTO_MAX: u64 = 1_000_000;

/// Raises the soft descriptor limit to the hard one; returns the limit in force.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A refusal leaves the soft limit, which is then the one in force.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(AUTO_MAX * 3)
}

/// Descriptors kept back from sessions: for listeners, probes, pipes, admin, logs.
pub fn kept_back(descriptors: u64) -> u64 {
    (descriptors / 16).max(64)
}

/// What `max_sessions: auto` is: two descriptors a session, after the reserve.
pub fn auto_max_sessions(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(kept_back(descriptors)) / 2).clamp(1, AUTO_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_keeps_back_a_sixteenth_but_at_least_64() {
        assert_eq!(auto_max_sessions(20_000), (20_000 - 1250) / 2);
        assert_eq!(auto_max_sessions(256), (256 - 64) / 2);
        assert_eq!(auto_max_sessions(10), 1);
        assert_eq!(auto_max_sessions(u64::MAX), 1_000_000);
    }
}
