//! The backends of one tier as a pick sees them: positions 0…n in listing order, each with its row of the dense
//! table. Neighbouring rows are scanned as one run, so that a scan of a thousand walks through sixteen kilobytes
//! instead of following three thousand pointers.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::backend::Backend;
use super::latency::Latency;
use super::load::Load;
use super::pick::{PickError, PickKey, Tried, narrow, widen};
use super::slots::{Chunk, Hot, WEIGHT_UNIT, Weights};

/// Everything a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    pub key: &'a PickKey<'a>,
    pub tried: &'a Tried,
    pub weights: Weights,
    pub now: Instant,
}

pub struct Members {
    /// From the pool; by position.
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

/// The least loaded member, and its load as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lightest {
    pub position: usize,
    pub seen: Load,
}

/// Sessions by weight, as a fraction; fractions are compared by cross-multiplication.
#[derive(Clone, Copy)]
struct Burden {
    sessions: u64,
    weight: u64,
}

impl Burden {
    /// Counts are below 2^32, so no product comes near 2^64.
    const MORE_THAN_ANY: Burden = Burden { sessions: 1 << 40, weight: 1 };

    /// Also false if the weight is 0.
    fn is_below(self, other: Burden) -> bool {
        self.sessions * other.weight < other.sessions * self.weight
    }
}

/// How often a scan is repeated if the load of the member that it found changes before it can be taken; then the
/// member found last is taken at any count. Each repetition means that another session was placed meanwhile.
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

    #[inline]
    pub fn hot(&self, position: usize) -> &Hot {
        let (chunk, row) = self.place(position);
        &chunk.rows()[row]
    }

    #[inline]
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

    pub fn latency(&self, position: usize) -> &Latency {
        let (chunk, row) = self.place(position);
        chunk.latency(row)
    }

    /// Configured weights, by position.
    pub fn configured_weights(&self) -> Vec<u32> {
        self.backends.iter().map(|backend| backend.weight).collect()
    }

    /// The part of its configured weight that a member has now; more than 0, unless it takes nothing.
    pub fn share(&self, position: usize, ask: &Ask) -> (u32, u32) {
        let whole = self.backends[position].weight.saturating_mul(WEIGHT_UNIT);
        (self.hot(position).weight(ask.weights), whole)
    }

    fn was_tried(&self, position: usize, ask: &Ask) -> bool {
        !ask.tried.is_empty() && ask.tried.contains(self.indices[position])
    }

    /// Up, not tried, not full.
    #[inline]
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

    /// Takes a slot below the member's limit; for callers that know that it is usable.
    #[inline]
    pub fn take_slot(&self, position: usize) -> bool {
        let (chunk, row) = self.place(position);
        chunk.take(row)
    }

    /// Takes a slot if the member's load is still `seen`, and below its limit.
    #[inline]
    pub fn take_at(&self, position: usize, seen: Load) -> bool {
        let (chunk, row) = self.place(position);
        chunk.take_at(row, seen)
    }

    /// The rows of all members, beginning at `start` and wrapping around: run by run, each with its first position.
    fn rows_from(&self, start: usize) -> impl Iterator<Item = (usize, &[Hot])> {
        self.rows_of(start..self.len()).chain(self.rows_of(0..start))
    }

    fn rows_of(&self, positions: Range<usize>) -> impl Iterator<Item = (usize, &[Hot])> {
        let first = self.runs.partition_point(|run| run.position + run.length <= positions.start);
        let runs = self.runs[first..].iter().take_while(move |run| run.position < positions.end);
        runs.map(move |run| {
            let skipped = positions.start.saturating_sub(run.position);
            let length = run.length.min(positions.end - run.position);
            let rows = &self.chunks[run.chunk].rows()[run.row + skipped..run.row + length];
            (run.position + skipped, rows)
        })
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

    /// The usable member with the fewest sessions per weight, counting the one to be placed; among equals the first
    /// from `start` on.
    pub fn lightest(&self, start: usize, ask: &Ask) -> Option<Lightest> {
        match ask.weights {
            Weights::Effective => self.lightest_by(start, ask, |_, load| load.weight()),
            Weights::Forced => self.lightest_by(start, ask, |hot, _| hot.weight(Weights::Forced)),
        }
    }

    /// The loop over all rows, once for each kind of weight so that it does not check the kind at each row.
    fn lightest_by(
        &self,
        start: usize,
        ask: &Ask,
        weight: impl Fn(&Hot, Load) -> u32,
    ) -> Option<Lightest> {
        let burden = |hot: &Hot, load: Load| Burden {
            sessions: u64::from(load.sessions()) + 1,
            weight: weight(hot, load).into(),
        };
        let (mut least, mut lightest) = (Burden::MORE_THAN_ANY, None);
        for (mut position, rows) in self.rows_from(start) {
            let (fours, rest) = rows.as_chunks::<4>();
            for some in fours.iter().map(|four| four.as_slice()).chain([rest]) {
                // One branch for four rows: after the first few, hardly any row is lighter than all before it.
                let is_lighter = |hot: &Hot| burden(hot, hot.load()).is_below(least);
                let any = match some {
                    [a, b, c, d] => is_lighter(a) | is_lighter(b) | is_lighter(c) | is_lighter(d),
                    few => few.iter().any(is_lighter),
                };
                if any {
                    for (position, hot) in (position..).zip(some) {
                        let seen = hot.load();
                        let burden = burden(hot, seen);
                        if burden.is_below(least)
                            && seen.sessions() < hot.limit.load(Relaxed)
                            && !self.was_tried(position, ask)
                        {
                            least = burden;
                            lightest = Some(Lightest { position, seen });
                        }
                    }
                }
                position += some.len();
            }
        }
        lightest
    }

    /// Takes a slot on the lightest member. Its count is still the one that was compared, unless others were quicker
    /// `SCANS` times.
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

#[cfg(test)]
mod tests {
    use super::super::tests::{client, pool_of, set_state};
    use super::*;
    use crate::config::Balance::LeastConnections;
    use crate::data::pool::backend::BackendState;
    use proptest::prelude::*;

    proptest! {
        /// Rows are compared four at a time; the outcome is the same as comparing each.
        #[test]
        fn the_lightest_is_the_first_that_no_other_is_lighter_than(
            rows in prop::collection::vec((0..4_u32, 0..5_u32, 1..6_u32), 1..150),
            start in any::<prop::sample::Index>(),
            tried in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
            is_forced in any::<bool>(),
        ) {
            let pool = pool_of(LeastConnections, &rows.iter().map(|row| row.0).collect::<Vec<_>>());
            let count = pool.backends.len();
            for (index, (backend, (_, sessions, limit))) in pool.backends.iter().zip(&rows).enumerate() {
                let slot = &backend.live.slot;
                slot.hot().limit.store(*limit, Relaxed);
                (0..*sessions).for_each(|_| { slot.chunk().take(slot.index()); });
                if index % 5 == 1 {
                    set_state(&pool, index, [BackendState::Down, BackendState::Drain][index % 2]);
                }
            }
            let mut known = Tried::default();
            tried.iter().for_each(|index| known.push(narrow(index.index(count))));
            let weights = if is_forced { Weights::Forced } else { Weights::Effective };
            let ask = Ask { key: &client(1), tried: &known, weights, now: Instant::now() };
            let members = Members::new(&pool.backends, (0..narrow(count)).collect());
            let start = start.index(count);
            let usable = (start..count).chain(0..start).filter(|position| members.is_usable(*position, &ask));
            let expected = usable.min_by(|this, that| {
                let burden = |position: usize| {
                    let hot = members.hot(position);
                    (u64::from(hot.in_flight()) + 1, u64::from(hot.weight(weights)))
                };
                let (this, that) = (burden(*this), burden(*that));
                (this.0 * that.1).cmp(&(that.0 * this.1))
            });
            prop_assert_eq!(members.lightest(start, &ask).map(|it| it.position), expected);
        }
    }
}
