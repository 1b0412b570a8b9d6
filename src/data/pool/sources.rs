//! Source addresses (`source`) that this machine does not have: connections from them fail, and nothing else would
//! say why.

use std::sync::atomic::Ordering::Relaxed;

use super::Pool;
use crate::sys::{clock, datagram};

/// Between two checks, in milliseconds: clients cause them.
const REPEAT: u64 = 60_000;

impl Pool {
    /// Logs which addresses these are, once a minute at most.
    pub fn warn_of_absent_sources(&self) {
        if self.config.source.is_empty() {
            return;
        }
        let (now, looked) = (clock::coarse_ms(), &self.shared.sources_looked_at);
        let is_time =
            |last: u64| (last == 0 || now.saturating_sub(last) >= REPEAT).then_some(now.max(1));
        if looked.fetch_update(Relaxed, Relaxed, is_time).is_err() {
            return;
        }
        for source in self.config.source.iter().filter(|source| datagram::is_absent(**source)) {
            tracing::warn!(
                pool = &*self.name,
                "`source` {source} is not an address of this machine: connections from it fail (no_source_port)"
            );
        }
    }
}
