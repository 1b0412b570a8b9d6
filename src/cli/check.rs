//! `maitred check`: says whether a configuration could be used, and if not, everything that is wrong with it.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::explain;
use super::files::ConfigFiles;
use super::output::{color_on_stderr, print};
use crate::config::{Config, Loaded, Report};

/// Check a configuration without using it
#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    files: ConfigFiles,
    /// The same as `--config FILE`
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Vec<std::path::PathBuf>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Lines with carets, on standard error
    Text,
    /// An array of faults, on standard output
    Json,
}

impl Check {
    pub fn run(&self) -> ExitCode {
        let files = match self.file.is_empty() {
            true => &self.files,
            false => &ConfigFiles { config: self.file.clone() },
        };
        match files.load() {
            Ok(loaded) => {
                self.accept(&loaded);
                ExitCode::SUCCESS
            }
            Err(report) => {
                self.show(&report);
                if let Format::Text = self.format {
                    explain::offer(&report);
                }
                ExitCode::FAILURE
            }
        }
    }

    fn accept(&self, loaded: &Loaded) {
        self.show(&loaded.warnings_report());
        if let Format::Text = self.format {
            print(&format!("configuration is valid: {}\n", counts(&loaded.config)));
        }
    }

    fn show(&self, report: &Report) {
        match self.format {
            Format::Text => eprint!("{}", report.render(color_on_stderr())),
            Format::Json => print(&format!("{:#}\n", report.to_json())),
        }
    }
}

fn counts(config: &Config) -> String {
    let backends = config.pools.iter().map(|pool| pool.backends.len()).sum();
    let parts = [
        plural(config.listeners.len(), "listener"),
        plural(config.pools.len(), "pool"),
        plural(backends, "backend"),
    ];
    parts.join(", ")
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
