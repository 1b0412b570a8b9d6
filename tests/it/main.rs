//! The integration tests: one binary, one module per feature.

mod check_command;
mod config;
