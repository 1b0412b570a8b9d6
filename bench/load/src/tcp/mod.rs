//! TCP: clients that make round trips, connections, or bulk; the servers they do it with; and the minimal relays that
//! say how cheap a relay on this machine can be.

pub mod client;
pub mod work;
pub mod churn;
mod pattern;
pub mod relay;
pub mod server;
mod stream;
