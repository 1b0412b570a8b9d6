//! `maitred completions` and `maitred man`: made from the definition of the command line itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;

use super::output::print;

/// Print the completion script for a shell
///
/// For example `maitred completions bash > /etc/bash_completion.d/maitred`.
#[derive(Args, Debug)]
pub struct Completions {
    shell: Shell,
}

/// Print the manual page, or write the manual pages of all subcommands
#[derive(Args, Debug)]
pub struct Man {
    /// Write `maitred.1`, `maitred-run.1` and so on into this folder instead
    #[arg(long, value_name = "FOLDER")]
    all: Option<PathBuf>,
}

impl Completions {
    /// `command`: the whole command line.
    pub fn run(&self, mut command: Command) -> ExitCode {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut command, "maitred", &mut text);
        print(&String::from_utf8_lossy(&text));
        ExitCode::SUCCESS
    }
}

impl Man {
    /// `command`: the whole command line.
    pub fn run(&self, command: Command) -> ExitCode {
        let written = match &self.all {
            Some(folder) => clap_mangen::generate_to(command, folder),
            None => {
                let mut text = Vec::new();
                let made = clap_mangen::Man::new(command).render(&mut text);
                print(&String::from_utf8_lossy(&text));
                made
            }
        };
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let folder = self
                    .all
                    .as_deref()
                    .map_or_else(String::new, |it| format!(" into {}", it.display()));
                eprintln!("error[E0130]: the manual cannot be written{folder}: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
