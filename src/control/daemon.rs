//! One process, from a checked configuration to its exit: log, signals, supervisor, admin server, and the run between
//! them. `demo` shares the start and then runs in its own way.

use std::path::PathBuf;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::admin::Ask;
use crate::admin::http::{self};
use crate::admin::listen::{self, BoundSocket};
use crate::border::record::Record;
use crate::border::session_log::SessionLog;
use crate::config::{Config, User};
use crate::control::admin_server::AdminServer;
use crate::control::main_loop;
use crate::control::reload::Source;
use crate::control::signals::Signals;
use crate::control::start_error::{StartError, admin_error};
use crate::control::supervisor::{Lack, Sockets, Supervisor};
use crate::sys::limits;
use crate::sys::privileges::{self};
use crate::telemetry::events::EventKind;
use crate::telemetry::log::{self, Log};
use crate::telemetry::session_line;

/// Questions to the supervisor that may wait at once.
const ASKS: usize = 8;

/// Descriptors that the control plane's event loop takes at most.
const EVENT_LOOP: usize = 8;

const CONTROL: &str = "the control plane's event loop";

/// Everything is started, and nothing has been done with it yet.
pub struct Started {
    pub runtime: Runtime,
    pub supervisor: Supervisor,
    pub admin: AdminServer,
    pub signals: Signals,
    /// Requests of the admin server.
    pub asks: mpsc::Receiver<Ask>,
    pub log: &'static Log,
}

/// Everything that may need privileges.
struct Bound {
    admin: Option<listen::Bound>,
    /// `Err`: why there is no socket.
    admin_socket: Result<Option<BoundSocket>, String>,
    sockets: Sockets,
}

/// Starts, serves, drains. `own` are the configuration's files, `files` are those that it names; a reload reads both
/// again.
pub fn run(
    config: Config,
    own: Vec<PathBuf>,
    files: &[PathBuf],
    source: Source,
) -> Result<(), StartError> {
    let user = config.process.user.clone();
    let started = start(config)?;
    if let Some(user) = user {
        warn_of_unreadable(&user, own.iter().chain(files));
    }
    let Started { runtime, supervisor, admin, signals, asks, log } = started;
    // Without systemd there is no socket to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    runtime.block_on(main_loop::live(supervisor, admin, signals, asks, source, own));
    // A thread that still waits for a file system is not waited for.
    runtime.shutdown_background();
    log.output.flush();
    Ok(())
}

/// Binds, becomes the user, starts workers and the control plane's tasks.
pub fn start(config: Config) -> Result<Started, StartError> {
    // Before the first thread, like everything down to the log's thread. Huge pages would round a small process up by
    // megabytes, and nothing here is large enough to gain from them. A kernel that refuses this costs memory, nothing
    // else.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    privileges::never_gain().map_err(|error| StartError::Io("no-new-privileges", error))?;
    let bound = bind(&config)?;
    let wanted = config.admin.clone();
    let log = log::start(config.log.format, config.log.level)
        .map_err(|error| StartError::Io("the log's thread", error))?;
    log.set_level(config.log.level);
    // Signal handling is made with the runtime, and would panic without descriptors.
    limits::are_free(EVENT_LOOP).map_err(|error| StartError::Io(CONTROL, error))?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::Io(CONTROL, error))?;
    let _context = runtime.enter();
    let signals = Signals::catch().map_err(|error| StartError::Io("signal handlers", error))?;
    let output = log.output.clone();
    let is_json = log.is_json;
    let write = move |record: Record| {
        output.line(session_line::line(&record, jiff::Timestamp::now(), is_json));
    };
    let sessions = SessionLog::start(config.log.sessions, write)
        .map_err(|error| StartError::Io("the session log's thread", error))?;
    let supervisor =
        Supervisor::start_on(bound.sockets, config, sessions).map_err(|lack| match lack {
            Lack::Address(error) => StartError::Bind(error),
            Lack::Thread(what, error) => StartError::Io(what, error),
        })?;
    let (sender, asks) = mpsc::channel(ASKS);
    let mut admin = AdminServer::new(&supervisor, log, sender);
    admin.set_token(wanted.token);
    admin.serve(wanted.listen, bound.admin).map_err(|error| admin_error(wanted.listen, error))?;
    admin.serve_socket(bound.admin_socket);
    // Otherwise it would say that it is ready, and serve no client.
    limits::are_free(http::RESERVE * 2 + 2)
        .map_err(|error| StartError::Io("what a first session takes", error))?;
    let version = env!("CARGO_PKG_VERSION");
    let workers = supervisor.workers();
    supervisor.events.note(EventKind::Start, format!("maitred {version}, {workers} workers"));
    drop(_context);
    Ok(Started { runtime, supervisor, admin, signals, asks, log })
}

/// Binds and opens everything that may need privileges; then they are given up.
fn bind(config: &Config) -> Result<Bound, StartError> {
    let user = config.process.user.as_ref();
    user.map_or(Ok(()), privileges::may_become).map_err(StartError::User)?;
    let wanted = config.admin.listen;
    let admin = wanted
        .map(|address| listen::bind(address, None))
        .transpose()
        .map_err(|error| admin_error(wanted, error))?;
    let admin_socket = listen::bind_wanted(&config.admin.socket)
        .map_err(|(path, error)| StartError::AdminSocket(path, error))?;
    let sockets = Sockets::bind(config).map_err(StartError::Bind)?;
    let bound = Bound { admin, admin_socket, sockets };
    match user.map_or(Ok(()), |user| bound.become_user(user)) {
        Ok(()) => Ok(bound),
        Err(error) => {
            bound.sockets.discard();
            Err(error)
        }
    }
}

impl Bound {
    /// A socket that has a file belongs to this user, and so does the process.
    fn become_user(&self, user: &User) -> Result<(), StartError> {
        if let Ok(Some(BoundSocket { file, .. })) = &self.admin_socket {
            file.give_to(user)
                .map_err(|error| StartError::AdminSocket(file.path.clone(), error))?;
        }
        if let Some(admin) = &self.admin {
            admin.give_to(user);
        }
        self.sockets.give_to(user).map_err(StartError::Bind)?;
        privileges::become_user(user).map_err(StartError::User)
    }
}

/// The user who started the program has read these files; a reload reads them as the user that the process is now.
fn warn_of_unreadable<'a>(user: &User, files: impl Iterator<Item = &'a PathBuf>) {
    for file in files {
        if let Some(error) = privileges::unreadable(file) {
            let file = file.display();
            tracing::warn!(
                "user {} cannot read {file} ({error}): a reload would be refused; allow it: `chgrp {} {file} && chmod g+r \
                 {file}`, and `chmod a+x` on the folders above",
                user.name,
                user.gid
            );
        }
    }
}
