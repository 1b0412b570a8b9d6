//! What maitred says about itself: records, metrics, logs.

pub mod counters;
pub mod record;
