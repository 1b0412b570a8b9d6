//! The integration tests: one binary, one module per feature.

mod balancer;
mod oracle;
mod relay;
