//! One process from a checked configuration to its exit: log, signals, supervisor, admin, and the life in
//! between. `demo` shares the start and plays its own life.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};

use crate::admin;
use crate::admin::http::{self, Serving};
use crate::config::{Config, LogLevel, User};
use crate::life::{self, Signals, Source};
use crate::supervisor::{BindError, Sockets, Supervisor};
use crate::sys::privileges::{self, Refused};
use crate::telemetry::events::EventKind;
use crate::telemetry::log::{self, Log};
use crate::telemetry::metrics::Sources;
use crate::telemetry::record::Record;
use crate::telemetry::session_line;
use crate::telemetry::session_log::SessionLog;

/// Why the process could not start.
#[derive(Debug)]
pub enum StartError {
    Admin(SocketAddr, io::Error),
    Bind(BindError),
    User(Refused),
    Io(&'static str, io::Error),
}

/// Everything started, and nothing done with it yet.
pub struct Started {
    pub runtime: Runtime,
    pub supervisor: Supervisor,
    pub admin: Admin,
    pub signals: Signals,
    pub log: &'static Log,
}

/// The admin server, which a reload may move.
pub struct Admin {
    state: Arc<admin::State>,
    wanted: Option<SocketAddr>,
    serving: Option<Serving>,
    log: &'static Log,
}

/// Starts, serves, drains. `files` are those that a reload reads again.
pub fn run(config: Config, files: &[PathBuf], source: Source) -> Result<(), StartError> {
    let user = config.process.user.clone();
    let started = start(config)?;
    if let Some(user) = user {
        warn_of_unreadable(&user, files);
    }
    let Started { runtime, supervisor, admin, signals, log } = started;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    runtime.block_on(life::live(supervisor, admin, signals, source));
    log.output.flush();
    Ok(())
}

/// Binds, becomes the user, starts workers and the control plane's tasks.
pub fn start(config: Config) -> Result<Started, StartError> {
    // Before the first thread, as is all down to the log's. Huge pages would round a small process up by megabytes,
    // and there is nothing large here that they could make faster; a kernel that refuses costs memory, nothing else.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    privileges::never_gain().map_err(|error| StartError::Io("no-new-privileges", error))?;
    let (wanted, bound, sockets) = bind(&config)?;
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
    let supervisor = Supervisor::start_on(sockets, config, sessions).map_err(StartError::Bind)?;
    let mut admin = Admin::new(&supervisor, log);
    admin.serve(wanted, bound).map_err(|error| admin_error(wanted, error))?;
    let version = env!("CARGO_PKG_VERSION");
    let workers = supervisor.workers();
    supervisor.events.note(EventKind::Start, format!("maitred {version}, {workers} workers"));
    drop(_context);
    Ok(Started { runtime, supervisor, admin, signals, log })
}

/// Everything that may take privileges, which are then given up.
fn bind(config: &Config) -> Result<(Option<SocketAddr>, Option<http::Bound>, Sockets), StartError> {
    let user = config.process.user.as_ref();
    user.map_or(Ok(()), privileges::may_become).map_err(StartError::User)?;
    let wanted = config.admin.listen;
    let bound = wanted.map(http::bind).transpose().map_err(|error| admin_error(wanted, error))?;
    let sockets = Sockets::bind(config).map_err(StartError::Bind)?;
    let Some(user) = user else { return Ok((wanted, bound, sockets)) };
    let given = sockets.give_to(user).map_err(StartError::Bind);
    match given.and_then(|()| privileges::become_user(user).map_err(StartError::User)) {
        Ok(()) => Ok((wanted, bound, sockets)),
        Err(error) => {
            sockets.discard();
            Err(error)
        }
    }
}

/// They were read by who started the program; a reload reads them as who it is now.
fn warn_of_unreadable(user: &User, files: &[PathBuf]) {
    for file in files {
        if let Some(error) = privileges::unreadable(file) {
            let file = file.display();
            tracing::warn!(
                "user {} cannot read {file} ({error}): a reload would be refused; let it: `chgrp {} {file} && chmod g+r \
                 {file}`, and `chmod a+x` on the folders above",
                user.name,
                user.gid
            );
        }
    }
}

impl Admin {
    fn new(supervisor: &Supervisor, log: &'static Log) -> Admin {
        let sources = Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::clone(&log.output.dropped),
        };
        let state = admin::State {
            sources,
            events: Arc::clone(&supervisor.events),
            started: supervisor.started,
            version: env!("CARGO_PKG_VERSION"),
            sessions: Box::new(supervisor.lister()),
            flows: Box::new(supervisor.flow_lister()),
        };
        Admin { state: Arc::new(state), wanted: None, serving: None, log }
    }

    /// Binds another address, if another one is wanted; nothing is changed yet.
    pub fn rebind(&self, wanted: Option<SocketAddr>) -> Result<Option<http::Bound>, StartError> {
        match wanted {
            Some(address) if self.wanted != wanted => {
                http::bind(address).map(Some).map_err(|error| admin_error(wanted, error))
            }
            _ => Ok(None),
        }
    }

    /// Serves on `bound`; without one, goes on where it is, or stops if nothing is wanted.
    pub fn serve(
        &mut self,
        wanted: Option<SocketAddr>,
        bound: Option<http::Bound>,
    ) -> io::Result<()> {
        self.wanted = wanted;
        if let Some(bound) = bound {
            let serving = http::serve(bound, Arc::clone(&self.state))?;
            tracing::info!(address = %serving.address, "admin listening");
            self.serving = Some(serving);
        } else if wanted.is_none() {
            self.serving = None;
        }
        Ok(())
    }

    pub fn set_log_level(&self, level: LogLevel) {
        self.log.set_level(level);
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|serving| serving.address)
    }
}

fn admin_error(wanted: Option<SocketAddr>, error: io::Error) -> StartError {
    StartError::Admin(wanted.unwrap_or(SocketAddr::from(([0; 4], 0))), error)
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Admin(address, error) => {
                write!(
                    f,
                    "cannot bind the admin address {address}: {error}\n  hint: another maitred may have it; \
                     choose another with `--admin ADDRESS` or `admin: {{listen: …}}`, or `none`"
                )
            }
            StartError::Bind(error) => error.fmt(f),
            StartError::User(refused) => refused.fmt(f),
            StartError::Io(what, error) => write!(f, "cannot set up {what}: {error}"),
        }
    }
}

impl std::error::Error for StartError {}
