//! From texts to a `Config`: the order of the stages.
//!
//! ```text
//! text ─▶ tree (parse) ─▶ variables put in (substitute) ─▶ raw (decode) ─▶ united and checked (check) ─▶ Config
//! ```
//!
//! Every stage adds to the same faults, so that one look at the report shows all of them. Only a file that
//! is no YAML, or gives a key twice, ends the report there: what follows would be guesswork.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::backend_list;
use super::check;
use super::discovery::Answer;
use super::error::{Report, Source};
use super::fault::{Fault, Faults, Severity};
use super::files::{self, NetFiles};
use super::keys::File;
use super::net;
use super::parse::{Ids, parse};
use super::substitute::{Environment, substitute};
use super::tree::Node;
use super::whole::Config;
use crate::sys::accounts::Accounts;
use crate::sys::text_file::{Unread, read_named, read_plain, read_text};

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
        let (sources, faults) = (self.sources.clone(), self.warnings.clone());
        Report { sources, faults, omitted: self.omitted }
    }
}

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
pub fn finish_load(
    sources: &[Source],
    trees: Vec<Node>,
    mut faults: Faults,
) -> Result<Loaded, Report> {
    let mut files = Vec::new();
    for tree in &trees {
        files.extend(File::read(tree, &mut faults));
    }
    let mut nets = NetFiles::new(sources);
    let config = check::check(files, &mut nets, Accounts::read, &mut faults);
    let failed = faults.has_errors();
    let all: Vec<Source> = nets.sources().cloned().collect();
    let files = nets.paths();
    let mut report = finish(all, &trees, faults);
    if failed {
        // Many a warning only follows from an error: a pool nobody uses, because its name was mistyped.
        report.faults.retain(|fault| fault.severity == Severity::Error);
    }
    match config {
        Some(config) if !failed => {
            let Report { sources, faults: warnings, omitted } = report;
            Ok(Loaded { config, warnings, sources, files, omitted })
        }
        _ => Err(report),
    }
}

fn read_source(path: &Path) -> Result<Source, Box<Fault>> {
    let is_input = path == Path::new("-");
    let name = if is_input { "standard input".to_owned() } else { path.display().to_string() };
    let read = if is_input { read_text(std::io::stdin().lock()) } else { read_named(path) };
    read.map(|text| Source { name: name.clone(), text }).map_err(|unread| {
        let hint = match &unread {
            Unread::Failed(error) => match error.kind() {
                ErrorKind::NotFound => "name the file with `--config FILE`",
                ErrorKind::IsADirectory => "name each file with its own `--config`",
                _ => "",
            },
            Unread::TooLarge => "split it: `--config` may be given several times",
            Unread::NotText(_) => "save the file as UTF-8",
        };
        Box::new(Fault::whole(files::code(&unread), files::describe(&unread, &name), hint))
    })
}

/// The text of a file, outside of a load. `Err` names it.
pub fn read_text_file(path: &Path) -> Result<String, String> {
    read_plain(path).map_err(|unread| files::describe(&unread, &path.display().to_string()))
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
