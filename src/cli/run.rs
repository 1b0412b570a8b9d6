//! `maitred run`: balances until a signal ends it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;

use super::explain;
use super::files::ConfigFiles;
use super::one_line::{OneLine, one_line, override_admin};
use super::output::color_on_stderr;
use crate::config::{Loaded, Report};
use crate::control::daemon;

/// Start the load balancer, from a configuration file or from flags alone
///
/// `maitred run --listen :5432 --backend 10.0.0.11:5432 --backend 10.0.0.12:5432` needs no file.
#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    files: ConfigFiles,
    /// Address to listen on, without a file: `:5432`, `127.0.0.1:5432`, `unix:/path`; repeatable
    #[arg(long, value_name = "ADDRESS", requires = "backend", conflicts_with = "config")]
    listen: Vec<String>,
    /// Backend to balance to, without a file: `10.0.0.11:5432`, `unix:/path`; repeatable
    #[arg(long, value_name = "ADDRESS", requires = "listen")]
    backend: Vec<String>,
    /// Protocol, without a file: `tcp` (default) or `udp`
    #[arg(long, value_name = "PROTOCOL", requires = "listen")]
    protocol: Option<String>,
    /// Balancing, without a file: `least_connections` (default), `round_robin`, …
    #[arg(long, value_name = "ALGORITHM", requires = "listen")]
    balance: Option<String>,
    /// Address of metrics, health, status page and API, instead of `admin.listen`; `none` switches them off
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

impl Run {
    pub fn run(self) -> ExitCode {
        let loaded = match self.load() {
            Ok(loaded) => loaded,
            Err(report) => {
                eprint!("{}", report.render(color_on_stderr()));
                explain::offer(&report);
                return ExitCode::FAILURE;
            }
        };
        eprint!("{}", loaded.warnings_report().render(color_on_stderr()));
        let run = Arc::new(self);
        let again = Arc::clone(&run);
        let source = move || match again.load() {
            Ok(loaded) => Ok(loaded.config),
            // Into the log, where colours would only be noise.
            Err(report) => Err(report.render(false)),
        };
        let own = run.files_on_disk();
        match daemon::run(loaded.config, own, &loaded.files, Arc::new(source)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error[{}]: {error}", error.code());
                ExitCode::FAILURE
            }
        }
    }

    /// The configuration's own files, which a reload reads again.
    fn files_on_disk(&self) -> Vec<PathBuf> {
        if !self.listen.is_empty() {
            return Vec::new();
        }
        let paths = self.files.paths();
        // Standard input can be read only once, and so can a configuration that includes it.
        if paths.iter().any(|path| path.as_os_str() == "-") { Vec::new() } else { paths }
    }

    fn load(&self) -> Result<Loaded, Report> {
        if !self.listen.is_empty() {
            return one_line(OneLine {
                listen: &self.listen,
                backends: &self.backend,
                protocol: self.protocol.as_deref(),
                balance: self.balance.as_deref(),
                admin: self.admin.as_deref(),
            });
        }
        let mut loaded = self.files.load()?;
        if let Some(admin) = &self.admin {
            override_admin(&mut loaded.config, admin)?;
        }
        Ok(loaded)
    }
}
