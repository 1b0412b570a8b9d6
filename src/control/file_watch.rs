//! Looks at the files that the configuration names (networks, certificates, keys, backends), and with `process.watch` at
//! its own, once a second, and reads those that changed. What is made of it is the supervisor's. Looking works in every
//! file system, also in those that tell nobody of a change, and through links that are set anew, as Kubernetes does it.
//! Runs on a thread of its own, for a look into a network's file system may last for ever.

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

use crate::border::plane::Plane;
use crate::config::{self, Answer, Config, Renewed};
use crate::data::pool::finding::Failure;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Until somebody is to look once more, if there was no thread for it.
const RETRY: Duration = Duration::from_secs(10);

/// A file that is another one than before.
pub struct Change {
    pub path: PathBuf,
    /// What it holds; `Err` says what is wrong with it, and where.
    pub content: Result<Content, String>,
}

pub enum Content {
    Backends(Result<Answer, Failure>),
    Nets(Vec<IpNet>),
    Tls(Renewed),
}

/// What a look found.
pub struct Found {
    /// Where the files are named. Once another one is in force they are read again, and this is void.
    pub config: Arc<Config>,
    pub changes: Vec<Change>,
    /// The configuration's own files hold another text: it is to be read anew.
    pub configuration: bool,
}

/// What is known of each file.
#[derive(Default)]
pub struct Watch {
    /// The configuration's own, in their order.
    own: Vec<PathBuf>,
    own_seen: OwnSeen,
    seen: HashMap<PathBuf, Seen>,
    config: Option<Arc<Config>>,
}

/// Of the configuration's own files.
#[derive(Default)]
struct OwnSeen {
    stamps: Vec<Option<Stamp>>,
    is_read: bool,
    /// What was in force when they were read last, and what they held.
    known: Option<(String, String)>,
}

struct Seen {
    stamp: Option<Stamp>,
    is_read: bool,
}

/// Whatever is done to a file, or put in its place, changes one of these. `None`: it cannot be looked at.
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

    /// Whether they hold another text than what is in force, for two looks, one after the other. What was refused once
    /// is not tried again until it is yet another.
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

    /// What became another one since the last looks. A file is read when it was the same in two looks, one after the
    /// other: whoever writes it anew in its place may be in the middle, and half a `deny_file` opens the door. What was
    /// never seen before is read, too: it may have changed since the configuration was.
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
            // Else it changed meanwhile, which the next look shows.
            if stamp(path) == now {
                seen.is_read = true;
                changes.push(Change { path: path.to_owned(), content });
            }
        }
        let configuration = config.process.watch && self.look_at_own(config);
        Found { config: Arc::clone(config), changes, configuration }
    }
}

/// Of their texts, as the configuration has it; of a file that cannot be read, that it cannot.
fn digest(files: &[PathBuf]) -> String {
    let mut hash = Sha256::new();
    for path in files {
        // Within the same bounds as it is read in: it may have become a pipe, or be without end.
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

/// Changes, as they are found. Looked for from the first configuration on that names a file.
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

    /// Sees to it that somebody looks, if there is anything to look at.
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

    /// The next one; `None`: it is time to `attend` again. May be dropped while it waits.
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
