//! The oracle of `tests/it`, as it is.

// The integration tests use more of it.
#[allow(dead_code)]
#[path = "../it/balancer.rs"]
mod balancer;
#[path = "../it/oracle.rs"]
mod oracle;
