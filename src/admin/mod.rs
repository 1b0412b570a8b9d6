//! The admin server: metrics, health, status page and API. It reads the plane's figures and the snapshot's settings,
//! and never talks to a worker.

pub mod listen;
mod guard;
mod patient;
mod places;
mod visitor;
mod caller;
mod shared;
pub mod http;
mod answers;
pub mod api;
mod changes;
pub mod page;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use crate::border::plane::{SessionFilter, SessionRow};
use crate::config::Token;
use crate::data::pool::backend::Backend;
use crate::data::pool::hand::{NotSet, Wish};
use crate::telemetry::events::Events;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Sources;

pub type Rows = Pin<Box<dyn Future<Output = Vec<SessionRow>> + Send>>;

/// Asks the workers for their open sessions.
pub type Lister = Box<dyn Fn(SessionFilter) -> Rows + Send + Sync>;

/// A request to `life`.
pub enum Ask {
    Drain,
    /// What changed, or the report of what is wrong.
    Reload(oneshot::Sender<Result<Vec<String>, String>>),
    SetByHand {
        /// Pool and backend.
        place: (String, String),
        wish: Wish,
        who: String,
        /// None: lifted from a backend that does not exist.
        answer: oneshot::Sender<Result<Option<Arc<Backend>>, NotSet>>,
    },
    /// How many were cut.
    Kill {
        filter: SessionFilter,
        who: String,
        answer: oneshot::Sender<usize>,
    },
}

/// Everything from which an answer may be made.
pub struct State {
    pub sources: Sources,
    pub events: Arc<Events>,
    pub history: Arc<History>,
    pub started: SystemTime,
    pub version: &'static str,
    pub sessions: Lister,
    pub flows: Lister,
    /// A reload may change it.
    pub token: ArcSwapOption<Token>,
    pub asks: mpsc::Sender<Ask>,
    /// Whether the admin socket is served.
    pub has_socket: AtomicBool,
}
