//! What maitred says about itself: records, metrics, logs.

pub mod counters;
pub mod datagrams;
pub mod events;
pub mod history;
pub mod log;
mod sink;
mod metric_table;
pub mod metrics;
pub mod record;
pub mod session_line;
pub mod session_log;
