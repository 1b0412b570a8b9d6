//! The admin server: metrics, health, status page and read-only API. Knows the plane by its figures and the
//! snapshot by its words; never a worker.

pub mod api;
pub mod http;
pub mod page;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use crate::plane::{SessionFilter, SessionRow};
use crate::telemetry::events::Events;
use crate::telemetry::metrics::Sources;

pub type Rows = Pin<Box<dyn Future<Output = Vec<SessionRow>> + Send>>;

/// Asks the workers for what is open.
pub type Lister = Box<dyn Fn(SessionFilter) -> Rows + Send + Sync>;

/// Everything an answer may be made of.
pub struct State {
    pub sources: Sources,
    pub events: Arc<Events>,
    pub started: SystemTime,
    pub version: &'static str,
    pub sessions: Lister,
    pub flows: Lister,
}
