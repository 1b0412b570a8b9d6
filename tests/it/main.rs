//! The integration tests: one binary, one module per feature.

mod balancer;
mod check_command;
mod config;
mod connect;
mod health;
mod hold;
mod listener;
mod oracle;
mod passive;
mod relay;
mod server;
