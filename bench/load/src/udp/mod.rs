//! UDP: a client that keeps so many datagrams out at once, of so many flows, and an echo server.

pub mod client;
mod flow;
pub mod payload;
pub mod server;
