//! The integration tests: one binary, one module per feature.

mod balancer;
mod connect;
mod listener;
mod oracle;
mod relay;
