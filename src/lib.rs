//! maitred: a layer-4 load balancer. Modules are in reading order.

pub mod cli;
pub mod config;

pub mod data;
pub mod border;
pub mod control;

pub mod telemetry;
pub mod admin;
pub mod demo;
pub mod sys;
