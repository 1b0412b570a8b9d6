//! Looks at the files of networks, certificates and keys that the configuration names, once a second, and reads those
//! that changed. What is made
//! of it is the supervisor's. Runs on a thread of its own, for a look into a network's file system may last for ever.

use std::collections::{BTreeSet, HashMap};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::config::{self, Config, Renewed};
use crate::plane::Plane;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A file that is another one than before.
pub struct Change {
    pub path: PathBuf,
    /// What it holds; `Err` says what is wrong with it, and where.
    pub content: Result<Content, String>,
}

pub enum Content {
    Nets(Vec<IpNet>),
    Tls(Renewed),
}

/// What a look found.
pub struct Found {
    /// Where the files are named. Once another one is in force they are read again, and this is void.
    pub config: Arc<Config>,
    pub changes: Vec<Change>,
}

/// What is known of each file.
#[derive(Default)]
pub struct Watch {
    seen: HashMap<PathBuf, Seen>,
    config: Option<Arc<Config>>,
}

struct Seen {
    stamp: Option<Stamp>,
    is_read: bool,
}

/// Whatever is done to a file, or put in its place, changes one of these. `None`: it cannot be looked at.
#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Watch {
    /// What became another one since the last looks. A file is read when it was the same in two looks, one after the
    /// other: whoever writes it anew in its place may be in the middle, and half a `deny_file` opens the door. What was
    /// never seen before is read, too: it may have changed since the configuration was.
    pub fn look(&mut self, config: &Arc<Config>) -> Found {
        let is_other = self.config.as_ref().is_none_or(|known| !Arc::ptr_eq(known, config));
        self.config = Some(Arc::clone(config));
        let nets = config.net_files();
        let files: BTreeSet<&Path> = nets.union(&config.tls_files()).copied().collect();
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
            let content = match nets.contains(path) {
                true => config::read_nets(path).map(Content::Nets),
                false => config.read_tls(path).map(Content::Tls),
            };
            // Else it changed meanwhile, which the next look shows.
            if stamp(path) == now {
                seen.is_read = true;
                changes.push(Change { path: path.to_owned(), content });
            }
        }
        Found { config: Arc::clone(config), changes }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata: Metadata = std::fs::metadata(path).ok()?;
    Some(Stamp {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// Changes, as they are found. Looked for from the first configuration on that names a file.
#[derive(Default)]
pub struct Changes(Option<mpsc::Receiver<Found>>);

impl Changes {
    /// Sees to it that somebody looks, if there is anything to look at.
    pub fn attend(&mut self, plane: &Arc<Plane>) {
        let config = Arc::clone(&plane.snapshot.load().config);
        let is_any = !config.net_files().is_empty() || !config.tls_files().is_empty();
        if self.0.is_none() && is_any {
            match start(Arc::clone(plane)) {
                Ok(changes) => self.0 = Some(changes),
                Err(error) => tracing::error!(%error, "no thread to look at files"),
            }
        }
    }

    /// The next one. May be dropped while it waits.
    pub async fn next(&mut self) -> Found {
        match &mut self.0 {
            Some(changes) => match changes.recv().await {
                Some(found) => found,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

fn start(plane: Arc<Plane>) -> io::Result<mpsc::Receiver<Found>> {
    let (sender, receiver) = mpsc::channel(1);
    let run = move || {
        let mut watch = Watch::default();
        loop {
            let config = Arc::clone(&plane.snapshot.load().config);
            let found = watch.look(&config);
            drop(config);
            if !found.changes.is_empty() && sender.blocking_send(found).is_err() {
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
