//! First available: the first in listing order that is up and below `max_sessions`. Weights only say whether a member
//! takes sessions at all.

use super::super::members::{Ask, Members};

pub struct FirstAvailable;

impl FirstAvailable {
    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        members.take_first(0, ask).ok()
    }
}
