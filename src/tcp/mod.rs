//! The TCP data plane. Read in this order: a worker's listener accepts, a session lives one straight line
//! (admit → route → connect → relay → record), the relay moves its bytes.

pub mod connect;
pub mod listener;
pub mod relay;
pub mod session;
pub mod source_ports;
pub mod stream;
pub mod worker;
