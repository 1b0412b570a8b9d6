//! `maitred schema`: prints the JSON Schema of a configuration file.

use std::process::ExitCode;

use clap::Args;

use super::output::print;
use crate::config::schema::schema;

/// Print the JSON Schema of configuration files, for editors
#[derive(Args, Debug)]
pub struct Schema {}

impl Schema {
    pub fn run(&self) -> ExitCode {
        print(&format!("{:#}\n", schema()));
        ExitCode::SUCCESS
    }
}
