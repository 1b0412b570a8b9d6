//! Round robin by weight: one cursor, shared by all workers, over a schedule of one whole round, so the shares are
//! exact over all workers together.
//!
//! Each step of the cursor is claimed by exactly one pick. A turn whose member is down or full is passed over by
//! claiming the next one, so the others keep their exact shares among themselves. In slow start a member accepts its
//! turn with the probability (weight now / weight configured).
//!
//! The schedule has four bytes a turn and at most 256 turns a member: at most 5 MiB for 5 000 members, 35 MiB for
//! 35 000, and one turn a member when all weights are equal.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::members::{Ask, Members};
use super::super::widen;
use super::{chance, turns};

pub struct RoundRobin {
    schedule: Arc<Schedule>,
    /// Turns claimed ever.
    cursor: AtomicU64,
}

struct Schedule {
    weights: Vec<u32>,
    turns: Vec<u32>,
}

/// Turns passed over before one look at all members tells whether going on makes sense.
const STEPS_BEFORE_LOOK: usize = 32;

/// Turns passed over at most, so that a pick is bounded: then the first free member from there on.
const STEPS: usize = 4_096;

impl RoundRobin {
    pub fn build(members: &Members, previous: Option<&RoundRobin>) -> RoundRobin {
        let weights = members.configured_weights();
        // After a reload the round goes on where it was, so that the first members are not favoured by it.
        let cursor = previous.map_or(0, |previous| previous.cursor.load(Relaxed));
        let schedule = match previous {
            Some(previous) if previous.schedule.weights == weights => {
                Arc::clone(&previous.schedule)
            }
            _ => Arc::new(Schedule { turns: turns::round(&weights), weights }),
        };
        RoundRobin { schedule, cursor: AtomicU64::new(cursor) }
    }

    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let turns = &self.schedule.turns;
        let mut position = 0;
        for step in 0..turns.len().min(STEPS) {
            if step == STEPS_BEFORE_LOOK && !members.has_usable(ask) {
                return None;
            }
            position = self.claim(turns)?;
            if members.is_usable(position, ask)
                && chance::accepts(members.share(position, ask))
                && members.take(position, ask)
            {
                return Some(position);
            }
        }
        members.take_first(position, ask).ok()
    }

    /// The next turn, nobody else's now.
    fn claim(&self, turns: &[u32]) -> Option<usize> {
        let length = u64::try_from(turns.len()).ok().filter(|length| *length > 0)?;
        let turn = self.cursor.fetch_add(1, Relaxed) % length;
        Some(widen(turns[usize::try_from(turn).ok()?]))
    }
}
