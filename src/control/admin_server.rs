//! The admin server of this process: where it serves, what it knows, and how a reload moves it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use crate::admin::http::{self, Bounds, Serving, ServingSocket};
use crate::admin::listen::{self, BoundSocket};
use crate::admin::{self, Ask};
use crate::config::{LogLevel, Token};
use crate::control::start_error::{StartError, admin_error};
use crate::control::supervisor::Supervisor;
use crate::telemetry::history::{self, History};
use crate::telemetry::log::Log;
use crate::telemetry::metrics::Sources;

/// The admin server. A reload may move it, except for its socket.
pub struct AdminServer {
    state: Arc<admin::State>,
    wanted: Option<SocketAddr>,
    serving: Option<Serving>,
    socket: Option<ServingSocket>,
    log: &'static Log,
}

impl AdminServer {
    pub fn new(supervisor: &Supervisor, log: &'static Log, asks: mpsc::Sender<Ask>) -> AdminServer {
        let sources = Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::clone(&log.output.dropped),
        };
        let history = History::new(Instant::now(), SystemTime::now());
        // For the life of the process: it ends with the runtime.
        tokio::spawn(history::keep(Arc::clone(&history), Arc::clone(&supervisor.plane)));
        let state = admin::State {
            sources,
            events: Arc::clone(&supervisor.events),
            history,
            started: supervisor.started,
            version: env!("CARGO_PKG_VERSION"),
            sessions: Box::new(supervisor.lister()),
            flows: Box::new(supervisor.flow_lister()),
            token: ArcSwapOption::empty(),
            asks,
            has_socket: AtomicBool::new(false),
        };
        AdminServer { state: Arc::new(state), wanted: None, serving: None, socket: None, log }
    }

    /// Binds another address, if another one is configured; nothing is changed yet.
    pub fn rebind(&self, wanted: Option<SocketAddr>) -> Result<Option<listen::Bound>, StartError> {
        match wanted {
            Some(address) if self.wanted != wanted => {
                let bound = listen::bind(address, self.address());
                bound.map(Some).map_err(|error| admin_error(wanted, error))
            }
            _ => Ok(None),
        }
    }

    /// Serves on `bound`. Without it, goes on where it is, or stops if no address is configured.
    pub fn serve(
        &mut self,
        wanted: Option<SocketAddr>,
        bound: Option<listen::Bound>,
    ) -> io::Result<()> {
        self.wanted = wanted;
        if let Some(bound) = bound {
            let serving = http::serve(bound, Arc::clone(&self.state), Bounds::default())?;
            tracing::info!(address = %serving.address, "admin listening");
            self.serving = Some(serving);
        } else if wanted.is_none() {
            self.serving = None;
        }
        Ok(())
    }

    /// `Err`: why there is no socket. That is unusual, but not an error.
    pub fn serve_socket(&mut self, bound: Result<Option<BoundSocket>, String>) {
        let bound = match bound {
            Ok(Some(bound)) => bound,
            Ok(None) => return,
            Err(why) => {
                tracing::warn!(
                    "no admin socket ({why}), so changes only by signals; set one with `admin: {{socket: /path}}`, or \
                     write `none`"
                );
                return;
            }
        };
        match http::serve_socket(bound, Arc::clone(&self.state), Bounds::default()) {
            Ok(serving) => {
                tracing::info!(socket = %serving.path().display(), "admin listening");
                self.state.has_socket.store(true, Relaxed);
                self.socket = Some(serving);
            }
            Err(error) => tracing::error!(%error, "the admin socket cannot be served"),
        }
    }

    /// The token for requests over TCP from now on.
    pub fn set_token(&self, token: Option<Token>) {
        self.state.token.store(token.map(Arc::new));
    }

    pub fn set_log_level(&self, level: LogLevel) {
        self.log.set_level(level);
    }

    pub fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|serving| serving.address)
    }
}
