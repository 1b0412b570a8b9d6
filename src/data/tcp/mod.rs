//! The TCP data plane. Read in this order: a worker's listener accepts, a session lives one straight line
//! (admit → preread → route → connect → relay → record), the relay moves its bytes.

pub mod worker;
pub mod listener;
pub mod session;
pub mod ending;
pub mod options;
mod pace;
mod place;
mod preread;
mod refusal;
pub mod connect;
mod watch;
mod hold;
mod greeting;
mod port_book;
pub mod source_ports;
mod spin;
pub mod relay;
mod half;
