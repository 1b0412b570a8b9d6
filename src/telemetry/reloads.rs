//! Outcomes of reloads: counts, when the last one succeeded, why it was refused, and which files are out of date.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::border::counters::SharedCounter;

/// `reloads_total{result}` and `config_last_reload_*`. The start counts as the first success.
#[derive(Debug, Default)]
pub struct Reloads {
    pub applied: SharedCounter,
    pub unchanged: SharedCounter,
    pub refused: SharedCounter,
    pub last_succeeded: AtomicBool,
    /// Seconds since 1970 of the last success.
    pub last_success: AtomicU64,
    /// Why the last one was refused, if it was.
    refusal: Mutex<Option<String>>,
    /// Files of networks that changed and could not be read, and why.
    stale_files: Mutex<BTreeMap<PathBuf, String>>,
}

impl Reloads {
    pub fn succeeded(&self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_success.store(now.as_secs(), Relaxed);
        self.last_succeeded.store(true, Relaxed);
        *self.refusal() = None;
        // All of them have been read.
        self.stale_files().clear();
    }

    /// When the configuration in force was read.
    pub fn read(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.last_success.load(Relaxed))
    }

    pub fn was_refused(&self, why: &str) {
        self.refused.add(1);
        self.last_succeeded.store(false, Relaxed);
        *self.refusal() = Some(why.to_owned());
    }

    /// Never held for long.
    pub fn refusal(&self) -> MutexGuard<'_, Option<String>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Never held for long.
    pub fn stale_files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, String>> {
        self.stale_files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of networks was read; `wrong` says why it could not be. Returns what was wrong with it before.
    pub fn file_was_read(&self, path: &Path, wrong: Option<&String>) -> Option<String> {
        match wrong {
            Some(why) => self.stale_files().insert(path.to_owned(), why.clone()),
            None => self.stale_files().remove(path),
        }
    }
}
