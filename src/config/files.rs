//! The files that a configuration names, read for one load; and why a file cannot be read, in our words.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnet::IpNet;

use super::backend_list;
use super::discovery::Answer;
use super::error::Source;
use super::fault::{Code, Fault, Faults, quote};
use super::net;
use super::tree::Span;
use crate::data::tls::File;
use crate::sys::text_file::{Unread, read_plain};

/// Names the file.
pub fn describe(unread: &Unread, name: &str) -> String {
    let name = quote(name);
    match unread {
        Unread::Failed(error) => format!("{name} cannot be read: {error}"),
        Unread::NotText(line) => {
            format!("{name} is not UTF-8 text: line {line} holds other bytes")
        }
        Unread::TooLarge => format!("{name} is larger than 16 MiB"),
    }
}

pub fn code(unread: &Unread) -> Code {
    match unread {
        Unread::Failed(_) | Unread::NotText(_) => Code::Unreadable,
        Unread::TooLarge => Code::TooLarge,
    }
}

/// The files that the configuration names. Each is read once in a load, and anew in the next.
pub struct NetFiles<'a> {
    given: &'a [Source],
    /// Faults point into them as into the configuration.
    read: Vec<Source>,
    /// By resolved path; `None`: reported as unreadable.
    nets: HashMap<PathBuf, Option<Vec<IpNet>>>,
    secrets: Vec<PathBuf>,
}

impl<'a> NetFiles<'a> {
    pub fn new(given: &'a [Source]) -> NetFiles<'a> {
        NetFiles { given, read: Vec::new(), nets: HashMap::new(), secrets: Vec::new() }
    }

    /// Where they are, each once; a reload reads them again.
    pub fn paths(self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = self.nets.into_keys().chain(self.secrets).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// The configuration's own files, then those read for it.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        self.given.iter().chain(&self.read)
    }

    /// The configuration's own files.
    pub fn given(&self) -> &[Source] {
        self.given
    }

    /// Where a path leads that is named at `at`.
    pub fn resolve(&self, path: &Path, at: Span) -> PathBuf {
        net::resolve(path, &self.given[at.source()])
    }

    /// The networks of one file, which is named at `at`; `None`: it cannot be read, and that is reported.
    pub fn nets(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<Vec<IpNet>> {
        let path = self.resolve(path, at);
        if let Some(known) = self.nets.get(&path) {
            return known.clone();
        }
        let nets = read(&path, at, NET_FILE, faults).map(|source| {
            let nets = net::list(&source, self.sources().count(), faults);
            self.read.push(source);
            nets
        });
        self.nets.insert(path, nets.clone());
        nets
    }

    /// What a file of backends holds, which is named at `at`. `None`: nothing that could be used, which is a warning: it
    /// may be there in a moment, and it changes without a reload.
    pub fn backends(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<Answer> {
        let path = self.resolve(path, at);
        let before = faults.count();
        let answer = read(&path, at, BACKEND_FILE, faults).and_then(|source| {
            let answer = backend_list::read(&source, self.sources().count(), faults);
            // Only for the sake of faults: what it holds is not the configuration.
            if faults.count() > before {
                self.read.push(source);
            }
            answer
        });
        faults.soften(before);
        self.secrets.push(path);
        answer
    }

    /// The text of the file with the token. `None`: it cannot be read, and that is reported.
    pub fn token(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<String> {
        const HINT: &str =
            "write the path of a file with the token; a relative one is beside this file";
        self.secret(path, at, HINT, faults).map(|file| file.text)
    }

    /// The text of a file with the password of a probe. `None`: it cannot be read, and that is reported.
    pub fn password(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<String> {
        const HINT: &str =
            "write the path of a file with the password; a relative one is beside this file";
        self.secret(path, at, HINT, faults).map(|file| file.text)
    }

    /// In seconds since 1970, for what expires.
    pub fn now() -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// A PEM file. `None`: it cannot be read, and that is reported.
    pub fn pem(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<File> {
        const HINT: &str = "write the path of a PEM file; a relative one is beside this file";
        self.secret(path, at, HINT, faults)
    }

    /// A file that is no source, so that neither a report nor the digest holds it: faults point to where it is named.
    fn secret(&mut self, path: &Path, at: Span, hint: &str, faults: &mut Faults) -> Option<File> {
        let path = self.resolve(path, at);
        let Source { name, text } = read(&path, at, hint, faults)?;
        self.secrets.push(path);
        Some(File { name, text })
    }
}

/// `None`: it cannot be read, and that is reported.
fn read(path: &Path, at: Span, hint: &str, faults: &mut Faults) -> Option<Source> {
    let name = path.display().to_string();
    match read_plain(path) {
        Ok(text) => Some(Source { name, text }),
        Err(unread) => {
            let message = describe(&unread, &name);
            faults.refuse(Fault::error(code(&unread), at, message, hint))
        }
    }
}

const NET_FILE: &str =
    "write the path of a text file with one network a line; a relative one is beside this file";

const BACKEND_FILE: &str = "write the path of a file with a list of backends; until it is there the pool goes without them";
