//! The password of a probe: as given, or from a file that may change under a running maitred.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::fault::Fault;
use crate::config::Secret;
use crate::data::pool::fitness::ProbeResult;
use crate::sys::blocking;
use crate::sys::text_file::read_plain;

/// How often the file is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Password {
    given: Option<Secret>,
    file: Option<PathBuf>,
    read: Mutex<Read>,
}

/// What the file held.
#[derive(Default)]
struct Read {
    secret: Option<Secret>,
    looked: Option<Instant>,
}

impl Password {
    pub fn new(given: Option<&Secret>, file: Option<&PathBuf>) -> Password {
        Password { given: given.cloned(), file: file.cloned(), read: Mutex::default() }
    }

    /// Text that no answer may repeat.
    pub fn hidden(&self) -> Option<Secret> {
        let read = self.read.try_lock().ok().and_then(|read| read.secret.clone());
        self.given.clone().or(read)
    }

    /// `None`: there is none. While the file cannot be read, the last one that it held goes on.
    pub async fn now(&self) -> Result<Option<Secret>, Fault> {
        let Some(file) = &self.file else { return Ok(self.given.clone()) };
        let mut read = self.read.lock().await;
        if read.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            match look(file).await {
                Ok(secret) => {
                    *read = Read { secret: Some(secret), looked: Some(Instant::now()) };
                }
                Err(_) if read.secret.is_some() => read.looked = Some(Instant::now()),
                Err(why) => {
                    let detail = format!("there is no password in {}: {why}", file.display());
                    let detail = Some(detail.into());
                    return Err(Fault { detail, ..Fault::of(ProbeResult::LocalError) });
                }
            }
        }
        Ok(read.secret.clone())
    }
}

/// Not on this thread: a file may be on a disk that does not answer.
async fn look(file: &Path) -> Result<Secret, String> {
    let path = file.to_owned();
    let read = blocking::run("password", move || read_plain(&path).ok());
    let text = read.map_err(|error| error.to_string())?.await.ok().flatten();
    Secret::read(&text.ok_or("it cannot be read")?).map_err(str::to_owned)
}
