//! Least connections by weight: the member with the smallest (sessions + 1) / weight, where a session counts from the
//! moment it was placed, connecting ones too. Exact over all workers: the slot is taken by compare-exchange on the very
//! count that was compared. Of equals, the first after the member picked last.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::super::members::{Ask, Members};

#[derive(Default)]
pub struct LeastConnections {
    /// One past the position picked last.
    cursor: AtomicUsize,
}

impl LeastConnections {
    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let start = self.cursor.load(Relaxed);
        // The cursor may be one past the end.
        let start = if start < members.len() { start } else { 0 };
        let position = members.take_lightest(start, ask)?;
        self.cursor.store(position + 1, Relaxed);
        Some(position)
    }
}
