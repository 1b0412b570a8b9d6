//! The states of a backend, as API, metrics, log and page name them.

use super::fitness::Standing;
use super::hand::HandState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendState {
    Starting,
    Up,
    /// It answers, but does not serve this pool now.
    Standby,
    Down,
    Ejected,
    Drain,
    Maintenance,
}

impl BackendState {
    pub const ALL: [BackendState; 7] = [
        BackendState::Starting,
        BackendState::Up,
        BackendState::Standby,
        BackendState::Down,
        BackendState::Ejected,
        BackendState::Drain,
        BackendState::Maintenance,
    ];

    /// Its index in `ALL`.
    pub(super) fn position(self) -> usize {
        match self {
            BackendState::Starting => 0,
            BackendState::Up => 1,
            BackendState::Standby => 2,
            BackendState::Down => 3,
            BackendState::Ejected => 4,
            BackendState::Drain => 5,
            BackendState::Maintenance => 6,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            BackendState::Starting => "starting",
            BackendState::Up => "up",
            BackendState::Standby => "standby",
            BackendState::Down => "down",
            BackendState::Ejected => "ejected",
            BackendState::Drain => "drain",
            BackendState::Maintenance => "maintenance",
        }
    }
}

impl From<HandState> for BackendState {
    fn from(state: HandState) -> BackendState {
        match state {
            HandState::Drain => BackendState::Drain,
            HandState::Maintenance => BackendState::Maintenance,
        }
    }
}

impl From<Standing> for BackendState {
    fn from(standing: Standing) -> BackendState {
        match standing {
            Standing::Down(_) => BackendState::Down,
            Standing::Standby => BackendState::Standby,
            Standing::Starting => BackendState::Starting,
            Standing::Up => BackendState::Up,
        }
    }
}
