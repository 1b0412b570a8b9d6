//! maitred: a layer-4 load balancer. Modules stand in reading order.

pub mod cli;
pub mod addr;
pub mod config;
pub mod telemetry;
