//! What maitred reports about itself: events, history, metrics, logs.

pub mod events;
pub mod history;
pub mod log;
mod sink;
mod metric_table;
pub mod metrics;
pub mod reloads;
pub mod session_line;
