//! The integration tests: one binary, one module per feature.

mod balancer;
mod check_command;
mod config;
mod connect;
mod listener;
mod oracle;
mod relay;
