//! `maitred reload`: makes a running maitred read its configuration again, and says what changed or what is wrong.

use std::process::ExitCode;

use clap::Args;

use super::ask::Where;
use crate::border::text::visible;

/// Make a running maitred read its configuration again; it applies all of it, or nothing
#[derive(Args, Debug)]
pub struct Reload {
    #[command(flatten)]
    at: Where,
}

impl Reload {
    pub fn run(&self) -> ExitCode {
        match self.at.json("POST", "/api/v1/reload", None) {
            Ok(answer) => {
                let changes = answer["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
                let changes: Vec<String> =
                    changes.iter().filter_map(|it| it.as_str()).map(visible).collect();
                super::output::print(&super::diff::text(changes.iter().map(String::as_str)));
                ExitCode::SUCCESS
            }
            Err(error) => error.report(),
        }
    }
}
