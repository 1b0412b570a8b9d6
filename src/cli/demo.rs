//! `maitred demo`: shows maitred at work with nothing but this binary.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::config::{AdminSocket, LogLevel};
use crate::control::daemon;
use crate::demo;

/// Show maitred at work with built-in clients and backends (one of them flaky) and a live table
#[derive(Args, Debug)]
pub struct Demo {
    /// End after this time, with a summary: `30s`, `2m`
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    limit: Option<Duration>,
    /// Address of metrics, health, status page and API; a free port if this one is in use
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
    admin: std::net::SocketAddr,
}

impl Demo {
    pub fn run(&self) -> ExitCode {
        match self.play() {
            Ok(summary) => {
                super::output::print(&format!("{}\n", summary.text()));
                if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                eprintln!("error[E0133]: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn play(&self) -> Result<demo::Summary, Box<dyn std::error::Error>> {
        let mut stage = demo::set()?;
        stage.config.admin.listen = Some(free_or_any(self.admin));
        // A demonstration needs no changes, and must not take the real maitred's socket.
        stage.config.admin.socket = AdminSocket::None;
        // The table is the output and shows what the log would say.
        stage.config.log.level = LogLevel::Error;
        let mut started = daemon::start(stage.config.clone())?;
        let summary = started.runtime.block_on(demo::play(
            &started.supervisor,
            stage,
            started.admin.address(),
            self.limit,
            &mut started.signals,
        ))?;
        started.supervisor.stop();
        started.log.output.flush();
        Ok(summary)
    }
}

/// The given address, or one with a port that the kernel chooses if it is in use.
fn free_or_any(mut wanted: std::net::SocketAddr) -> std::net::SocketAddr {
    if std::net::TcpListener::bind(wanted).is_err() {
        wanted.set_port(0);
    }
    wanted
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::border::quantities::time(text)
        .map_err(|_| "write a number and a unit, like 30s or 2m".to_owned())
}
