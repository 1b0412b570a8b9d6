//! From texts to a `Config`: the order of the stages.
//!
//! ```text
//! text ─▶ tree (parse) ─▶ variables put in (substitute) ─▶ raw (decode) ─▶ united and checked (check) ─▶ Config
//! ```
//!
//! Every stage adds to the same faults, so that one look at the report shows all of them. Only a file that
//! is no YAML, or gives a key twice, ends the report there: what follows would be guesswork.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ipnet::IpNet;

use super::account::Accounts;
use super::backend_list;
use super::check;
use super::error::{Report, Source};
use super::fault::{Code, Fault, Faults, Severity, quote};
use super::net;
use super::parse::{Ids, parse};
use super::raw::File;
use super::substitute::{Environment, substitute};
use super::tree::{Node, Span};
use super::{Answer, Config};
use crate::data::tls;

/// A configuration that may be used, and what is odd about it all the same.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Fault>,
    /// What the warnings point into.
    pub sources: Vec<Source>,
    /// What was read besides, and is again at a reload, by path.
    pub files: Vec<PathBuf>,
    /// Warnings beyond those kept.
    omitted: usize,
}

impl Loaded {
    /// The warnings, ready to be shown like faults.
    pub fn warnings_report(&self) -> Report {
        Report {
            sources: self.sources.clone(),
            faults: self.warnings.clone(),
            omitted: self.omitted,
        }
    }
}

const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads files; `-` is standard input.
pub fn read_sources(paths: &[PathBuf]) -> Result<Vec<Source>, Report> {
    let mut sources = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        match read_source(path) {
            Ok(source) => sources.push(source),
            Err(fault) => faults.push(*fault),
        }
    }
    if faults.is_empty() { Ok(sources) } else { Err(Report { sources, faults, omitted: 0 }) }
}

/// All files of one configuration, together.
pub fn load(sources: &[Source], env: Environment) -> Result<Loaded, Report> {
    let mut faults = Faults::default();
    let mut trees = Vec::new();
    let mut ids = Ids::default();
    for (index, source) in sources.iter().enumerate() {
        match parse(source, index, &mut ids) {
            Ok(tree) => trees.push(tree),
            Err(fault) => faults.push(*fault),
        }
    }
    if faults.has_errors() {
        return Err(finish(sources.to_vec(), &trees, faults));
    }
    for tree in &mut trees {
        substitute(tree, env, &mut faults);
    }
    finish_load(sources, trees, faults)
}

/// The stages after the trees are complete.
pub(super) fn finish_load(
    sources: &[Source],
    trees: Vec<Node>,
    mut faults: Faults,
) -> Result<Loaded, Report> {
    let mut files = Vec::new();
    for tree in &trees {
        files.extend(File::read(tree, &mut faults));
    }
    let mut nets = NetFiles::new(sources);
    let config = check::check(files, &mut nets, read_accounts, &mut faults);
    let failed = faults.has_errors();
    let all: Vec<Source> = nets.sources().cloned().collect();
    let mut files: Vec<PathBuf> = nets.nets.into_keys().chain(nets.secrets).collect();
    files.sort();
    files.dedup();
    let mut report = finish(all, &trees, faults);
    if failed {
        // Many a warning only follows from an error: a pool nobody uses, because its name was mistyped.
        report.faults.retain(|fault| fault.severity == Severity::Error);
    }
    match config {
        Some(config) if !failed => Ok(Loaded {
            config,
            warnings: report.faults,
            sources: report.sources,
            files,
            omitted: report.omitted,
        }),
        _ => Err(report),
    }
}

fn read_source(path: &Path) -> Result<Source, Box<Fault>> {
    let name = if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let read =
        if path == Path::new("-") { read_text(std::io::stdin().lock()) } else { read_named(path) };
    read.map(|text| Source { name: name.clone(), text }).map_err(|unread| {
        let fault = Fault::whole(unread.code(), unread.describe(&name));
        Box::new(match unread {
            Unread::Failed(error) if error.kind() == ErrorKind::NotFound => {
                fault.hint("name the file with `--config FILE`")
            }
            Unread::Failed(error) if error.kind() == ErrorKind::IsADirectory => {
                fault.hint("name each file with its own `--config`")
            }
            Unread::Failed(_) => fault,
            Unread::TooLarge => fault.hint("split it: `--config` may be given several times"),
            Unread::NotText(_) => fault.hint("save the file as UTF-8"),
        })
    })
}

/// The accounts of this machine.
fn read_accounts() -> Accounts {
    let read = |path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    Accounts { passwd: read("/etc/passwd"), group: read("/etc/group") }
}

/// Why a file has no text for us.
enum Unread {
    Failed(std::io::Error),
    /// The first line that holds other bytes than UTF-8.
    NotText(usize),
    TooLarge,
}

impl Unread {
    fn code(&self) -> Code {
        match self {
            Unread::Failed(_) | Unread::NotText(_) => Code::Unreadable,
            Unread::TooLarge => Code::TooLarge,
        }
    }

    fn describe(&self, name: &str) -> String {
        let name = quote(name);
        match self {
            Unread::Failed(error) => format!("{name} cannot be read: {error}"),
            Unread::NotText(line) => {
                format!("{name} is not UTF-8 text: line {line} holds other bytes")
            }
            Unread::TooLarge => format!("{name} is larger than 16 MiB"),
        }
    }
}

fn read_text(file: impl Read) -> Result<String, Unread> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Unread::Failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Unread::TooLarge);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        Unread::NotText(before.iter().filter(|byte| **byte == b'\n').count() + 1)
    })
}

/// The files that the configuration names. Each is read once in a load, and anew in the next.
pub(super) struct NetFiles<'a> {
    given: &'a [Source],
    /// Faults point into them as into the configuration.
    read: Vec<Source>,
    /// By resolved path; `None`: reported as unreadable.
    nets: HashMap<PathBuf, Option<Vec<IpNet>>>,
    secrets: Vec<PathBuf>,
}

impl<'a> NetFiles<'a> {
    fn new(given: &'a [Source]) -> NetFiles<'a> {
        NetFiles { given, read: Vec::new(), nets: HashMap::new(), secrets: Vec::new() }
    }

    /// The configuration's own files, then those read for it.
    pub(super) fn sources(&self) -> impl Iterator<Item = &Source> {
        self.given.iter().chain(&self.read)
    }

    /// The configuration's own files.
    pub(super) fn given(&self) -> &[Source] {
        self.given
    }

    /// Where a path leads that is named at `at`.
    pub(super) fn resolve(&self, path: &Path, at: Span) -> PathBuf {
        net::resolve(path, &self.given[at.source()])
    }

    /// The networks of one file, which is named at `at`; `None`: it cannot be read, and that is reported.
    pub(super) fn nets(
        &mut self,
        path: &Path,
        at: Span,
        faults: &mut Faults,
    ) -> Option<Vec<IpNet>> {
        let path = self.resolve(path, at);
        if let Some(known) = self.nets.get(&path) {
            return known.clone();
        }
        let nets = match read_plain(&path) {
            Ok(text) => {
                let source = Source { name: path.display().to_string(), text };
                let nets = net::list(&source, self.given.len() + self.read.len(), faults);
                self.read.push(source);
                Some(nets)
            }
            Err(unread) => {
                let message = unread.describe(&path.display().to_string());
                let fault = Fault::error(unread.code(), at, message);
                faults.push(fault.hint(NET_FILE));
                None
            }
        };
        self.nets.insert(path, nets.clone());
        nets
    }

    /// What a file of backends holds, which is named at `at`. `None`: nothing that could be used, which is a warning: it
    /// may be there in a moment, and it changes without a reload.
    pub(super) fn backends(
        &mut self,
        path: &Path,
        at: Span,
        faults: &mut Faults,
    ) -> Option<Answer> {
        let path = self.resolve(path, at);
        let before = faults.count();
        let answer = match read_plain(&path) {
            Ok(text) => {
                let source = Source { name: path.display().to_string(), text };
                let answer =
                    backend_list::read(&source, self.given.len() + self.read.len(), faults);
                // Only for the sake of faults: what it holds is not the configuration.
                if faults.count() > before {
                    self.read.push(source);
                }
                answer
            }
            Err(unread) => {
                let message = unread.describe(&path.display().to_string());
                faults.push(Fault::error(unread.code(), at, message).hint(BACKEND_FILE));
                None
            }
        };
        faults.soften(before);
        self.secrets.push(path);
        answer
    }

    /// The text of the file with the token. `None`: it cannot be read, and that is reported.
    pub(super) fn token(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<String> {
        const HINT: &str =
            "write the path of a file with the token; a relative one is beside this file";
        self.secret(path, at, HINT, faults).map(|file| file.text)
    }

    /// In seconds since 1970, for what expires.
    pub(super) fn now() -> i64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }

    /// A PEM file. `None`: it cannot be read, and that is reported.
    pub(super) fn pem(&mut self, path: &Path, at: Span, faults: &mut Faults) -> Option<tls::File> {
        const HINT: &str = "write the path of a PEM file; a relative one is beside this file";
        self.secret(path, at, HINT, faults)
    }

    /// A file that is no source, so that neither a report nor the digest holds it: faults point to where it is named.
    fn secret(
        &mut self,
        path: &Path,
        at: Span,
        hint: &str,
        faults: &mut Faults,
    ) -> Option<tls::File> {
        let path = self.resolve(path, at);
        let name = path.display().to_string();
        match read_plain(&path) {
            Ok(text) => {
                self.secrets.push(path);
                Some(tls::File { name, text })
            }
            Err(unread) => {
                faults.push(Fault::error(unread.code(), at, unread.describe(&name)).hint(hint));
                None
            }
        }
    }
}

const NET_FILE: &str =
    "write the path of a text file with one network a line; a relative one is beside this file";

const BACKEND_FILE: &str = "write the path of a file with a list of backends; until it is there the pool goes without them";

/// The text of a file, outside of a load. `Err` names it.
pub fn read_text_file(path: &Path) -> Result<String, String> {
    read_plain(path).map_err(|unread| unread.describe(&path.display().to_string()))
}

/// The networks of a file, outside of a load. `Err` names the file and the first line that is wrong.
pub fn read_nets(path: &Path) -> Result<Vec<IpNet>, String> {
    let name = path.display().to_string();
    let text = read_text_file(path)?;
    let source = Source { name, text };
    let mut faults = Faults::default();
    let nets = net::list(&source, 0, &mut faults);
    summary(&source, faults).map(|()| nets)
}

/// Why a file gives no backends.
#[derive(Clone, Debug)]
pub enum BadList {
    Unreadable(String),
    Malformed(String),
}

/// The backends of a file, outside of a load. The failure names the file and the first line that is wrong.
pub fn read_backends(path: &Path) -> Result<Answer, BadList> {
    let text = read_text_file(path).map_err(BadList::Unreadable)?;
    let source = Source { name: path.display().to_string(), text };
    let mut faults = Faults::default();
    let answer = backend_list::read(&source, 0, &mut faults);
    summary(&source, faults).map_err(BadList::Malformed)?;
    // Without a fault there is an answer.
    answer.ok_or_else(|| BadList::Malformed(format!("{} is no list of backends", source.name)))
}

/// Where the first fault is, and how many more there are.
fn summary(source: &Source, faults: Faults) -> Result<(), String> {
    let (faults, omitted) = faults.into_sorted();
    let Some(first) = faults.first() else { return Ok(()) };
    let line = first.at.map_or(0, |at| at.line);
    let more = match faults.len() - 1 + omitted {
        0 => String::new(),
        more => format!(", and {more} more lines are wrong"),
    };
    Err(format!("{}:{line}: {}{more}", source.name, first.message))
}

/// A shell's `<(…)` is a pipe that somebody writes to; any other could be waited for for ever.
fn read_named(path: &Path) -> Result<String, Unread> {
    let is_given = ["/dev/fd", "/dev/stdin", "/proc/self/fd"].iter().any(|it| path.starts_with(it));
    if is_given {
        return read_text(std::fs::File::open(path).map_err(Unread::Failed)?);
    }
    read_plain(path)
}

/// Only a plain file, and none that is a pipe by the time it is opened.
fn read_plain(path: &Path) -> Result<String, Unread> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(Unread::Failed)?;
    let metadata = file.metadata().map_err(Unread::Failed)?;
    if metadata.is_dir() {
        return Err(Unread::Failed(std::io::Error::from_raw_os_error(libc::EISDIR)));
    }
    if !metadata.is_file() {
        return Err(Unread::Failed(std::io::Error::other("it is not a plain file")));
    }
    read_text(file)
}

/// Sorts the faults and gives each its key path.
fn finish(sources: Vec<Source>, trees: &[Node], faults: Faults) -> Report {
    let (mut faults, omitted) = faults.into_sorted();
    let wanted: HashSet<u32> =
        faults.iter().filter_map(|fault| fault.at).map(|span| span.id).collect();
    for tree in trees {
        let paths = tree.paths(&wanted);
        for fault in &mut faults {
            if let Some(path) = fault.at.and_then(|span| paths.get(&span.id)) {
                fault.path.clone_from(path);
            }
        }
    }
    Report { sources, faults, omitted }
}
