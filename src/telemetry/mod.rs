//! What maitred says about itself: records, metrics, logs.

pub mod record;
