//! `maitred diff`: what a reload from one configuration to another would change.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::explain;
use super::output::color_on_stderr;
use crate::config::{self, Config, compare};
use crate::control::fixed_keys::fixed_keys_changed;

/// Show what a reload from one configuration to another would change, without reloading anything
#[derive(Args, Debug)]
pub struct Diff {
    /// The file in force; `-` is standard input
    old: PathBuf,
    /// The file to compare it with
    new: PathBuf,
}

impl Diff {
    pub fn run(&self) -> ExitCode {
        let (Some(old), Some(new)) = (load(&self.old), load(&self.new)) else {
            return ExitCode::FAILURE;
        };
        super::output::print(&text(compare::changes(&old, &new).iter().map(String::as_str)));
        let fixed = fixed_keys_changed(&old, &new);
        if fixed.is_empty() {
            return ExitCode::SUCCESS;
        }
        let keys = fixed.join(", ");
        eprintln!("error[E0110]: a reload would be refused: {keys} cannot change while running");
        ExitCode::FAILURE
    }
}

/// A line for each.
pub fn text<'a>(changes: impl Iterator<Item = &'a str>) -> String {
    let text: String = changes.map(|change| format!("{change}\n")).collect();
    if text.is_empty() { "nothing changed\n".to_owned() } else { text }
}

fn load(path: &PathBuf) -> Option<Config> {
    let loaded = config::read_sources(std::slice::from_ref(path))
        .and_then(|sources| config::load(&sources, &|name| std::env::var(name).ok()));
    match loaded {
        Ok(loaded) => Some(loaded.config),
        Err(report) => {
            eprint!("{}", report.render(color_on_stderr()));
            explain::offer(&report);
            None
        }
    }
}
