//! The control plane: everything that decides about the data plane and touches none of its bytes. `daemon` starts it,
//! `life` handles its requests and signals, `supervisor` changes what is in force.

pub mod daemon;
pub mod main_loop;
pub mod drain;
pub mod signals;
pub mod start_error;
pub mod admin_server;
pub mod supervisor;
pub mod reload;
pub mod fixed_keys;
pub mod file_watch;

pub mod health;
pub mod discovery;
