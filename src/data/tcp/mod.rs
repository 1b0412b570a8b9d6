//! The TCP data plane. Read in this order: a worker's listener accepts, a session is one straight line (admit →
//! preread → route → connect → relay → record), the relay moves its bytes.

pub mod thread;
pub mod mailbox;
pub mod resources;
mod roster;
mod worker;
mod listener;
mod life;
mod session;
mod told;
mod ending;
pub mod options;
mod pace;
mod place;
mod preread;
mod refusal;
mod connect;
mod failure;
mod watch;
mod hold;
mod search;
mod greeting;
mod port_book;
pub mod source_ports;
mod spin;
mod relay;
mod half;
