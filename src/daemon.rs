//! One process from a checked configuration to its exit: log, signals, supervisor, admin, and the life in
//! between. `demo` shares the start and plays its own life.

use std::fmt;
use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::life::{self, Signals, Source};
use crate::supervisor::{BindError, Supervisor};
use crate::telemetry::events::EventKind;
use crate::telemetry::log::{self, Log};
use crate::telemetry::record::Record;
use crate::telemetry::session_line;
use crate::telemetry::session_log::SessionLog;

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    Bind(BindError),
    Io(&'static str, io::Error),
}

/// Everything started, and nothing done with it yet.
pub struct Started {
    pub runtime: Runtime,
    pub supervisor: Supervisor,
    pub signals: Signals,
    pub log: &'static Log,
}

/// Starts, serves, drains.
pub fn run(config: Config, source: Source) -> Result<(), StartError> {
    let started = start(config)?;
    let Started { runtime, supervisor, signals, log } = started;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    runtime.block_on(life::live(supervisor, signals, source));
    log.output.flush();
    Ok(())
}

/// Binds, starts workers and the control plane's tasks.
pub fn start(config: Config) -> Result<Started, StartError> {
    let log = log::start(config.log.format, config.log.level)
        .map_err(|error| StartError::Io("the log's thread", error))?;
    log.set_level(config.log.level);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Io("the control plane's event loop", error))?;
    let _context = runtime.enter();
    let signals = Signals::catch().map_err(|error| StartError::Io("signal handlers", error))?;
    let output = log.output.clone();
    let is_json = log.is_json;
    let write = move |record: Record| {
        output.line(session_line::line(&record, jiff::Timestamp::now(), is_json));
    };
    let sessions = SessionLog::start(config.log.sessions, write)
        .map_err(|error| StartError::Io("the session log's thread", error))?;
    let supervisor = Supervisor::start(config, sessions).map_err(StartError::Bind)?;
    let version = env!("CARGO_PKG_VERSION");
    let workers = supervisor.workers();
    supervisor.events.note(EventKind::Start, format!("maitred {version}, {workers} workers"));
    drop(_context);
    Ok(Started { runtime, supervisor, signals, log })
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Bind(error) => error.fmt(f),
            StartError::Io(what, error) => write!(f, "cannot set up {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
