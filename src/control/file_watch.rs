//! Checks, once a second, the files that the configuration names (networks, certificates, keys, backends), and with
//! `process.watch` the configuration files themselves, and reads those that changed. The supervisor decides what to
//! do with the content. Polling works on every file system, also on those that report no changes, and through links
//! that are switched, as Kubernetes does. It has a thread of its own, because a check on a network file system may
//! block for ever.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::border::in_force::Renewed;
use crate::border::plane::Plane;
use crate::config::{self, Answer, Config};
use crate::data::pool::finding::Failure;

/// Between two checks.
const PAUSE: Duration = Duration::from_secs(1);

/// If there was no thread for it: until it is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// A file that has changed.
pub struct Change {
    pub path: PathBuf,
    /// Its content; `Err` says what is wrong with it, and where.
    pub content: Result<Content, String>,
}

pub enum Content {
    Backends(Result<Answer, Failure>),
    Nets(Vec<IpNet>),
    Tls(Renewed),
}

/// What a check found.
pub struct Found {
    /// The configuration that names the files. When another one is in force, the files are read again, and this is
    /// void.
    pub config: Arc<Config>,
    pub changes: Vec<Change>,
    /// The text of the configuration's own files has changed: reload it.
    pub configuration: bool,
}

/// What is known of each file.
#[derive(Default)]
pub struct Watch {
    /// The configuration's own files, in their order.
    own: Vec<PathBuf>,
    own_seen: OwnSeen,
    seen: HashMap<PathBuf, Seen>,
    config: Option<Arc<Config>>,
}

/// The state of the configuration's own files.
#[derive(Default)]
struct OwnSeen {
    stamps: Vec<Option<Stamp>>,
    is_read: bool,
    /// The configuration that was in force when they were last read, and their content then.
    known: Option<(String, String)>,
}

struct Seen {
    stamp: Option<Stamp>,
    is_read: bool,
}

/// Any change of a file, or another file in its place, changes one of these. `None`: it cannot be checked.
#[derive(Clone, Copy, PartialEq)]
pub struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// `own` are the files of the configuration itself.
    pub fn new(own: Vec<PathBuf>) -> Watch {
        Watch { own, ..Watch::default() }
    }

    /// Whether they had another text than the one in force in two checks, one after the other. A text that was
    /// refused once is not tried again until it changes.
    fn look_at_own(&mut self, config: &Config) -> bool {
        if self.own.is_empty() {
            return false;
        }
        let stamps: Vec<Option<Stamp>> = self.own.iter().map(|path| stamp(path)).collect();
        if self.own_seen.stamps != stamps {
            self.own_seen.stamps = stamps;
            self.own_seen.is_read = false;
            return false;
        }
        let in_force = &config.own_sha256;
        let tried = self.own_seen.known.as_ref().filter(|(of, _)| of == in_force);
        if self.own_seen.is_read && tried.is_some() {
            return false;
        }
        let now = digest(&self.own);
        let is_other = tried.map_or(in_force, |(_, tried)| tried) != &now;
        self.own_seen.known = Some((in_force.clone(), now));
        self.own_seen.is_read = true;
        is_other
    }

    /// The files that changed since the last checks. A file is read when two checks, one after the other, found it
    /// the same: a program that overwrites it in place may be in the middle, and half a `deny_file` would let clients
    /// in. A file that was never seen before is read, too: it may have changed since the configuration was read.
    pub fn look(&mut self, config: &Arc<Config>) -> Found {
        let is_other = self.config.as_ref().is_none_or(|known| !Arc::ptr_eq(known, config));
        self.config = Some(Arc::clone(config));
        let (nets, backends) = (config.net_files(), config.backend_files());
        let mut files: BTreeSet<&Path> = config.tls_files();
        files.extend(nets.iter().chain(&backends));
        self.seen.retain(|path, _| files.contains(path.as_path()));
        let mut changes = Vec::new();
        for path in files {
            let now = stamp(path);
            let Some(seen) = self.seen.get_mut(path).filter(|seen| seen.stamp == now) else {
                self.seen.insert(path.to_owned(), Seen { stamp: now, is_read: false });
                continue;
            };
            if seen.is_read && !is_other {
                continue;
            }
            let content = if nets.contains(path) {
                config::read_nets(path).map(Content::Nets)
            } else if backends.contains(path) {
                Ok(Content::Backends(config::read_backends(path).map_err(Failure::from)))
            } else {
                config.read_tls(path).map(Content::Tls)
            };
            // Otherwise it changed meanwhile, which the next check shows.
            if stamp(path) == now {
                seen.is_read = true;
                changes.push(Change { path: path.to_owned(), content });
            }
        }
        let configuration = config.process.watch && self.look_at_own(config);
        Found { config: Arc::clone(config), changes, configuration }
    }
}

/// The hash of their texts, as the configuration has it; for a file that cannot be read, that it cannot.
fn digest(files: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    for path in files {
        // Within the same bounds as a reload reads it: it may have become a pipe, or be endless.
        match config::read_text_file(path) {
            Ok(text) => hash.update(text),
            Err(why) => hash.update(why),
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn stamp(path: &Path) -> Option<Stamp> {
    let metadata: Metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Changes, as they are found. Checks begin with the first configuration that names a file.
pub struct Changes {
    own: Vec<PathBuf>,
    /// There was no thread for it.
    is_refused: bool,
    found: Option<mpsc::Receiver<Found>>,
}

impl Changes {
    /// `own` are the files of the configuration itself.
    pub fn new(own: Vec<PathBuf>) -> Changes {
        Changes { own, is_refused: false, found: None }
    }

    /// Starts the thread, if there is anything to check.
    pub fn attend(&mut self, plane: &Arc<Plane>) {
        let config = Arc::clone(&plane.snapshot.load().config);
        let named = [config.net_files(), config.tls_files(), config.backend_files()];
        let is_any = config.process.watch || named.iter().any(|files| !files.is_empty());
        if self.found.is_none() && is_any {
            match start(Arc::clone(plane), self.own.clone()) {
                Ok(changes) => self.found = Some(changes),
                Err(error) => {
                    tracing::error!(%error, "no thread to check files with; maitred tries again");
                    self.is_refused = true;
                }
            }
        }
    }

    /// The next change; `None`: it is time to `attend` again. May be dropped while it waits.
    pub async fn next(&mut self) -> Option<Found> {
        match &mut self.found {
            Some(changes) => match changes.recv().await {
                None => std::future::pending().await,
                found => found,
            },
            None if self.is_refused => {
                tokio::time::sleep(RETRY).await;
                None
            }
            None => std::future::pending().await,
        }
    }
}

fn start(plane: Arc<Plane>, own: Vec<PathBuf>) -> io::Result<mpsc::Receiver<Found>> {
    let (sender, receiver) = mpsc::channel(1);
    let run = move || {
        let mut watch = Watch::new(own);
        loop {
            let config = Arc::clone(&plane.snapshot.load().config);
            let found = watch.look(&config);
            drop(config);
            let is_any = !found.changes.is_empty() || found.configuration;
            if is_any && sender.blocking_send(found).is_err() {
                return;
            }
            if sender.is_closed() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    };
    std::thread::Builder::new().name("files".into()).spawn(run)?;
    Ok(receiver)
}
