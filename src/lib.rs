//! maitred: a layer-4 load balancer. Modules stand in reading order.

pub mod addr;
pub mod admit;
pub mod config;
pub mod demo;
pub mod drain;
pub mod life;
pub mod plane;
pub mod pool;
pub mod reload;
pub mod snapshot;
pub mod supervisor;
pub mod sys;
pub mod tcp;
pub mod telemetry;
