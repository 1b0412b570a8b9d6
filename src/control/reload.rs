//! What only a restart may change; and how reloads went. What a reload does change is found by `config::compare`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::telemetry::counters::SharedCounter;

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
    /// Files of networks that could not be read when they changed, and why.
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

/// Keys that differ but only take effect at a start.
pub fn fixed_keys_changed(before: &Config, after: &Config) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if before.process.workers != after.process.workers {
        keys.push("process.workers");
    }
    if before.admin.socket != after.admin.socket {
        keys.push("admin.socket");
    }
    // Who it is, not how it is written; and the groups of a name are the machine's.
    let ids = |config: &Config| config.process.user.as_ref().map(|user| (user.uid, user.gid));
    match (ids(before), ids(after)) {
        (Some((before_uid, before_gid)), Some((uid, gid))) => {
            keys.extend((before_uid != uid).then_some("process.user"));
            keys.extend((before_gid != gid).then_some("process.group"));
        }
        (before, after) => keys.extend((before != after).then_some("process.user")),
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminSocket, User};

    #[test]
    fn the_number_of_workers_is_fixed() {
        let mut after = Config::default();
        after.process.workers = Some(3);
        assert_eq!(fixed_keys_changed(&Config::default(), &after), ["process.workers"]);
        after.admin.socket = AdminSocket::None;
        let keys = fixed_keys_changed(&Config::default(), &after);
        assert_eq!(keys, ["process.workers", "admin.socket"]);
    }

    #[test]
    fn who_the_process_is_is_fixed_but_not_how_that_is_written() {
        let with = |user: Option<(&str, u32, u32)>| {
            let mut config = Config::default();
            config.process.user = user.map(|(name, uid, gid)| User {
                name: name.to_owned(),
                uid,
                gid,
                groups: vec![uid],
            });
            config
        };
        let before = with(Some(("lb", 7, 8)));
        for (after, keys) in [
            (Some(("lb", 7, 8)), &[][..]),
            (Some(("7", 7, 8)), &[]),
            (Some(("other", 9, 8)), &["process.user"]),
            (Some(("lb", 7, 9)), &["process.group"]),
            (Some(("other", 9, 9)), &["process.user", "process.group"]),
            (None, &["process.user"]),
        ] {
            assert_eq!(fixed_keys_changed(&before, &with(after)), keys, "{after:?}");
        }
        assert_eq!(fixed_keys_changed(&with(None), &before), ["process.user"]);
    }
}
