//! What a pool remembers of who serves, over reloads, and what it has to tell. `order` decides with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::state::BackendState;
use crate::border::addr::BackendAddr;
use crate::config::DownReason;

/// Survives reloads.
#[derive(Default)]
pub struct Order {
    /// With `single`: the backend that serves, or served last.
    pub(super) chosen: Option<Who>,
    /// With `failback`: the tier that serves, or served last.
    pub(super) serving: Option<u32>,
    /// Tiers that are up, and since when without a pause.
    pub(super) up_since: BTreeMap<u32, Instant>,
    /// `single` is or was on.
    pub(super) has_seats: bool,
    /// `flap` is or was on.
    pub(super) has_holds: bool,
    pub(super) news: Vec<News>,
}

/// What makes a backend the same one within its pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: Arc<str>,
    pub address: BackendAddr,
}

/// For the health checks, which tell them and treat the sessions.
pub enum News {
    /// Several backends say that they are right.
    Alarm(String),
    Changed {
        backend: Who,
        to: BackendState,
        lost: Option<DownReason>,
        why: String,
    },
    /// It was down, and is held down now.
    Held {
        backend: Arc<str>,
        why: String,
    },
    Note(String),
}

/// The most news that wait to be told; they are fetched ten times a second.
const MOST_NEWS: usize = 10_000;

impl Order {
    pub(super) fn keep(&mut self, news: News) {
        if self.news.len() < MOST_NEWS {
            self.news.push(news);
        }
    }
}
