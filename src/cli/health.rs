//! `maitred health`: asks a running maitred whether it is alive; for a container's HEALTHCHECK, where there is no
//! shell and no curl.

use std::process::ExitCode;

use clap::Args;

use super::ask::Where;

/// Check whether a running maitred is alive (exit 0) or not (exit 1)
#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    at: Where,
}

impl Health {
    pub fn run(&self) -> ExitCode {
        match self.at.ask("GET", "/livez", None) {
            Ok(answer) if answer.status == 200 => ExitCode::SUCCESS,
            Ok(answer) => {
                eprintln!("error[E0131]: the answer to /livez is {}", answer.status);
                ExitCode::FAILURE
            }
            Err(error) => error.report(),
        }
    }
}
