//! From texts to a `Config`: the order of the stages.
//!
//! ```text
//! text ─▶ tree (parse) ─▶ variables put in (substitute) ─▶ raw (decode) ─▶ united and checked (check) ─▶ Config
//! ```
//!
//! Every stage adds to the same faults, so that one look at the report shows all of them. Only a file that
//! is no YAML, or gives a key twice, ends the report there: what follows would be guesswork.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Config;
use super::check;
use super::error::{Report, Source};
use super::fault::{Code, Fault, Faults, Severity, quote};
use super::parse::{Ids, parse};
use super::raw::File;
use super::substitute::{Environment, substitute};
use super::tree::Node;

/// A configuration that may be used, and what is odd about it all the same.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<Fault>,
    /// What the warnings point into.
    pub sources: Vec<Source>,
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
        return Err(finish(sources, &trees, faults));
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
    let config = check::check(files, sources, &mut faults);
    let failed = faults.has_errors();
    let mut report = finish(sources, &trees, faults);
    if failed {
        // Many a warning only follows from an error: a pool nobody uses, because its name was mistyped.
        report.faults.retain(|fault| fault.severity == Severity::Error);
    }
    match config {
        Some(config) if !failed => Ok(Loaded {
            config,
            warnings: report.faults,
            sources: report.sources,
            omitted: report.omitted,
        }),
        _ => Err(report),
    }
}

fn read_source(path: &Path) -> Result<Source, Box<Fault>> {
    let standard_input = path == Path::new("-");
    let name =
        if standard_input { "standard input".to_owned() } else { path.display().to_string() };
    let unreadable = |error: std::io::Error| {
        let fault =
            Fault::whole(Code::Unreadable, format!("{} cannot be read: {error}", quote(&name)));
        Box::new(match error.kind() {
            std::io::ErrorKind::NotFound => fault.hint("name the file with `--config FILE`"),
            std::io::ErrorKind::IsADirectory => {
                fault.hint("name each file with its own `--config`")
            }
            _ => fault,
        })
    };
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES + 1;
    if standard_input {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("{} is larger than 16 MiB", quote(&name));
        return Err(Box::new(
            Fault::whole(Code::TooLarge, message)
                .hint("split it: `--config` may be given several times"),
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            let message =
                format!("{} is not UTF-8 text: line {line} holds other bytes", quote(&name));
            Err(Box::new(Fault::whole(Code::Unreadable, message).hint("save the file as UTF-8")))
        }
    }
}

/// Sorts the faults and gives each its key path.
fn finish(sources: &[Source], trees: &[Node], faults: Faults) -> Report {
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
    Report { sources: sources.to_vec(), faults, omitted }
}
