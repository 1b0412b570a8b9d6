//! `maitred version`.

use std::process::ExitCode;

use clap::Args;

use super::output::print;

/// Print the version
#[derive(Args, Debug)]
pub struct Version {}

impl Version {
    pub fn run(&self) -> ExitCode {
        print(&format!("maitred {}\n", env!("CARGO_PKG_VERSION")));
        ExitCode::SUCCESS
    }
}
