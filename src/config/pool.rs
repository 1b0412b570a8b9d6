//! What is asked of a pool as a whole.

use super::discovery::Finder;
use super::keys::{OnDown, Pool};

/// Why a backend is lost to those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// In maintenance.
    ByHand,
    /// Down or ejected.
    Dead,
    /// A standby now.
    WrongRole,
}

impl Pool {
    pub fn finders(&self) -> &[Finder] {
        self.discovery.as_ref().map_or(&[], |discovery| &discovery.finders)
    }

    pub fn on_down_for(&self, reason: DownReason) -> OnDown {
        let own = match reason {
            DownReason::ByHand => self.on_down_reasons.by_hand,
            DownReason::Dead => self.on_down_reasons.dead,
            DownReason::WrongRole => self.on_down_reasons.wrong_role,
        };
        own.unwrap_or(self.on_down)
    }
}
