//! What sessions saw of one backend, and the ejection that followed. `ejection` applies it to the backend.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shared::Shared;
use crate::config::Passive;

/// The most failures that are remembered; a larger `passive.failures` counts as this.
const MOST_FAILURES: usize = 1_000;

pub(super) const IDLE: u8 = 0;
pub(super) const COUNTING: u8 = 1;
pub(super) const EJECTED: u8 = 2;

/// What sessions saw of one backend.
#[derive(Debug, Default)]
pub struct Outlier {
    /// From `book`, to be read without the lock.
    pub(super) phase: AtomicU8,
    /// A std lock: held for a few plain steps, by threads of both planes.
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
pub struct Book {
    pub(super) run: Run,
    pub(super) ejection: Option<Ejection>,
    /// Removed from the pool: its last sessions no longer eject it, because it would take an ejection place from the
    /// others.
    pub(super) is_retired: bool,
}

/// Failures in a row, none older than the window.
#[derive(Debug, Default)]
pub(super) struct Run(pub(super) VecDeque<Instant>);

#[derive(Debug)]
pub struct Ejection {
    pub since: Instant,
    pub until: Instant,
    pub length: Duration,
    pub failures: usize,
    /// Whether the monitor has reported it; a worker cannot.
    pub is_announced: bool,
    pub(super) _place: Place,
}

/// One of the pool's places for ejected backends; given back on drop.
pub(super) struct Place(Arc<Shared>);

impl Run {
    /// Counts a failure; returns whether the run is now `failures` long.
    pub(super) fn add(&mut self, passive: &Passive, now: Instant) -> bool {
        let wanted = usize::try_from(passive.failures).unwrap_or(MOST_FAILURES);
        let wanted = wanted.clamp(1, MOST_FAILURES);
        while self.0.len() >= wanted
            || self
                .0
                .front()
                .is_some_and(|first| now.saturating_duration_since(*first) > passive.window)
        {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() >= wanted
    }
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, most: u32) -> Option<Place> {
        shared
            .ejected
            .fetch_update(Relaxed, Relaxed, |ejected| (ejected < most).then(|| ejected + 1))
            .ok()?;
        Some(Place(Arc::clone(shared)))
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.ejected.fetch_sub(1, Relaxed);
    }
}

impl Outlier {
    /// Whether there is an ejection to report or to end.
    pub fn is_ejected(&self) -> bool {
        self.phase.load(Relaxed) == EJECTED
    }

    /// If another holder panicked, the book is still whole: every write is a plain store.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self) {
        let mut book = self.book();
        book.run.0.clear();
        if book.ejection.is_none() {
            self.phase.store(IDLE, Relaxed);
        }
    }

    /// Takes the ejection out of `book`, which is this one's; dropping it gives its place back.
    pub fn end(&self, book: &mut Book) -> Option<Ejection> {
        let ended = book.ejection.take()?;
        self.phase.store(IDLE, Relaxed);
        Some(ended)
    }

    /// The backend is no longer in the pool: the place that it held there is free.
    pub fn retire(&self) {
        let mut book = self.book();
        book.is_retired = true;
        book.run.0.clear();
        book.ejection = None;
        self.phase.store(IDLE, Relaxed);
    }
}

impl Book {
    pub fn ejection(&mut self) -> Option<&mut Ejection> {
        self.ejection.as_mut()
    }
}
