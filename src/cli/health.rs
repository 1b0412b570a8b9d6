//! `maitred health`: asks a running maitred whether it lives; for a container's HEALTHCHECK, where there is no
//! shell and no curl.

use std::process::ExitCode;

use clap::Args;

use super::ask;

/// Ask a running maitred whether it lives (exit 0) or not (exit 1)
#[derive(Args, Debug)]
pub struct Health {
    /// Admin address of the one to ask; `:9900` is asked on loopback
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    admin: String,
}

impl Health {
    pub fn run(&self) -> ExitCode {
        let Some(address) = ask::address(&self.admin) else {
            eprintln!("error: `{}` is not an address; write one like 127.0.0.1:9900", self.admin);
            return ExitCode::from(2);
        };
        match ask::get(address, "/livez") {
            Ok((status, _)) if status.starts_with("HTTP/1.1 200") => ExitCode::SUCCESS,
            Ok((status, _)) => {
                eprintln!("error: {address} answered {status:?}");
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("error: {address} does not answer: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
