//! maitred: a layer-4 load balancer. Modules stand in reading order.

pub mod cli;
pub mod config;

pub mod addr;
pub mod snapshot;
pub mod tcp;
pub mod udp;

pub mod admit;
pub mod route;
pub mod pool;
pub mod health;
pub mod discovery;

pub mod tls;
pub mod stream;
pub mod wire;

pub mod plane;
pub mod daemon;
pub mod supervisor;
pub mod life;
pub mod reload;
pub mod file_watch;
pub mod drain;
pub mod aside;

pub mod telemetry;
pub mod admin;
pub mod demo;
pub mod sys;
