//! maitred: a layer-4 load balancer. Modules stand in reading order.

pub mod addr;
pub mod config;
pub mod pool;
pub mod sys;
pub mod telemetry;
