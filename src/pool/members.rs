//! The backends of one tier as a pick sees them: positions 0…n in listing order, each with its row of the dense
//! table. Rows that lie next to each other are scanned as one run, so that a scan of a thousand is a walk through
//! sixteen kilobytes and not a chase after three thousand pointers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::backend::Backend;
use super::load::Load;
use super::slots::{Chunk, Hot, WEIGHT_UNIT, Weights};
use super::{PickError, PickKey, Tried, narrow, widen};

/// Everything a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub key: &'a PickKey,
    pub tried: &'a Tried,
    pub weights: Weights,
    pub now: Instant,
}

pub struct Members {
    /// Of the pool; by position.
    indices: Vec<u32>,
    backends: Vec<Arc<Backend>>,
    chunks: Vec<Arc<Chunk>>,
    /// By position.
    places: Vec<Place>,
    /// By first position.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    chunk: u32,
    row: u32,
}

/// Neighbouring positions in neighbouring rows of one chunk.
#[derive(Clone, Copy, Debug)]
struct Run {
    position: usize,
    chunk: usize,
    row: usize,
    length: usize,
}

/// The least loaded member and what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lightest {
    pub position: usize,
    pub seen: Load,
}

/// Scans that find a load changed before it could be taken are repeated this often; then the last one found is
/// taken at whatever count it has. Each repetition means that another session was placed meanwhile.
const SCANS: usize = 16;

impl Members {
    pub fn new(all: &[Arc<Backend>], indices: Vec<u32>) -> Self {
        let backends: Vec<Arc<Backend>> =
            indices.iter().map(|index| Arc::clone(&all[widen(*index)])).collect();
        let mut members =
            Members { indices, backends, chunks: Vec::new(), places: Vec::new(), runs: Vec::new() };
        members.lay_out();
        members
    }

    fn lay_out(&mut self) {
        let mut known = std::collections::HashMap::new();
        for (position, backend) in self.backends.iter().enumerate() {
            let slot = &backend.live.slot;
            let chunk = *known.entry(Arc::as_ptr(slot.chunk())).or_insert_with(|| {
                self.chunks.push(Arc::clone(slot.chunk()));
                self.chunks.len() - 1
            });
            let row = slot.index();
            self.places.push(Place { chunk: narrow(chunk), row: narrow(row) });
            match self.runs.last_mut() {
                Some(run) if run.chunk == chunk && run.row + run.length == row => run.length += 1,
                _ => self.runs.push(Run { position, chunk, row, length: 1 }),
            }
        }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The index in the pool.
    pub fn index(&self, position: usize) -> u32 {
        self.indices[position]
    }

    pub fn backend(&self, position: usize) -> &Backend {
        &self.backends[position]
    }

    pub fn hot(&self, position: usize) -> &Hot {
        let (chunk, row) = self.place(position);
        &chunk.rows()[row]
    }

    fn place(&self, position: usize) -> (&Chunk, usize) {
        let place = self.places[position];
        (&self.chunks[widen(place.chunk)], widen(place.row))
    }

    /// The chunks of all members, each once, and the members' rows in it, a bit each.
    pub fn chunks(&self) -> Vec<(Arc<Chunk>, u64)> {
        let mut chunks: Vec<(Arc<Chunk>, u64)> =
            self.chunks.iter().map(|chunk| (Arc::clone(chunk), 0)).collect();
        self.places.iter().for_each(|place| chunks[widen(place.chunk)].1 |= 1 << place.row);
        chunks
    }

    /// The moving average of a member's latency in microseconds.
    pub fn latency(&self, position: usize, now: Instant) -> Option<f64> {
        let (chunk, row) = self.place(position);
        chunk.latency(row, now)
    }

    /// Configured weights, by position.
    pub fn configured_weights(&self) -> Vec<u32> {
        self.backends.iter().map(|backend| backend.weight).collect()
    }

    /// Which part of its configured weight a member has now; more than nought, unless it takes nothing.
    pub fn share(&self, position: usize, ask: &Ask) -> (u32, u32) {
        let whole = self.backends[position].weight.saturating_mul(WEIGHT_UNIT);
        (self.hot(position).weight(ask.weights), whole)
    }

    fn was_tried(&self, position: usize, ask: &Ask) -> bool {
        !ask.tried.is_empty() && ask.tried.contains(self.indices[position])
    }

    /// Up, not tried, not full.
    pub fn is_usable(&self, position: usize, ask: &Ask) -> bool {
        self.hot(position).is_open(ask.weights) && !self.was_tried(position, ask)
    }

    pub fn has_usable(&self, ask: &Ask) -> bool {
        (0..self.len()).any(|position| self.is_usable(position, ask))
    }

    /// Takes a slot if the member is usable.
    pub fn take(&self, position: usize, ask: &Ask) -> bool {
        self.is_usable(position, ask) && self.take_slot(position)
    }

    fn take_slot(&self, position: usize) -> bool {
        let (chunk, row) = self.place(position);
        chunk.take(row)
    }

    /// Takes a slot if the member's load still is `seen`, and below its limit.
    pub fn take_at(&self, position: usize, seen: Load) -> bool {
        let (chunk, row) = self.place(position);
        chunk.take_at(row, seen)
    }

    /// The rows of `positions` in order.
    fn visit(&self, positions: Range<usize>, mut visit: impl FnMut(usize, &Hot)) {
        let first = self.runs.partition_point(|run| run.position + run.length <= positions.start);
        for run in &self.runs[first..] {
            if run.position >= positions.end {
                return;
            }
            let skipped = positions.start.saturating_sub(run.position);
            let length = run.length.min(positions.end - run.position);
            let rows = &self.chunks[run.chunk].rows()[run.row + skipped..run.row + length];
            for (offset, hot) in rows.iter().enumerate() {
                visit(run.position + skipped + offset, hot);
            }
        }
    }

    /// The rows of all members, beginning at `start` and going round.
    pub fn visit_from(&self, start: usize, mut visit: impl FnMut(usize, &Hot)) {
        self.visit(start..self.len(), &mut visit);
        self.visit(0..start, &mut visit);
    }

    /// Takes a slot on the first usable member from `start` on, or says why there is none.
    pub fn take_first(&self, start: usize, ask: &Ask) -> Result<usize, PickError> {
        let mut verdict = PickError::NoneUp;
        for position in (start..self.len()).chain(0..start) {
            if self.hot(position).weight(ask.weights) == 0 {
                continue;
            }
            if self.was_tried(position, ask) {
                if verdict == PickError::NoneUp {
                    verdict = PickError::AllTried;
                }
            } else if self.take_slot(position) {
                return Ok(position);
            } else {
                verdict = PickError::AllFull;
            }
        }
        Err(verdict)
    }

    /// The usable member with the least sessions per weight, counting the one to be placed; of equals the first from
    /// `start` on.
    pub fn lightest(&self, start: usize, ask: &Ask) -> Option<Lightest> {
        let mut best = None;
        // sessions / weight as a fraction, compared crosswise. More than any member can have: counts are below
        // 2^32, so no product comes near 2^64.
        let (mut best_sessions, mut best_weight) = (1_u64 << 40, 1_u64);
        self.visit_from(start, |position, hot| {
            let seen = hot.load();
            let weight = u64::from(hot.weight_of(seen, ask.weights));
            let sessions = u64::from(seen.sessions()) + 1;
            // False also for weight 0.
            if sessions * best_weight < best_sessions * weight
                && seen.sessions() < hot.limit.load(Relaxed)
                && !self.was_tried(position, ask)
            {
                (best_sessions, best_weight) = (sessions, weight);
                best = Some(Lightest { position, seen });
            }
        });
        best
    }

    /// Takes a slot on the lightest member. Its count is still the one that was compared, unless the others were
    /// quicker `SCANS` times.
    pub fn take_lightest(&self, start: usize, ask: &Ask) -> Option<usize> {
        let mut last = None;
        for _ in 0..SCANS {
            let lightest = self.lightest(start, ask)?;
            if self.take_at(lightest.position, lightest.seen) {
                return Some(lightest.position);
            }
            last = Some(lightest.position);
        }
        last.filter(|position| self.take(*position, ask))
    }
}
