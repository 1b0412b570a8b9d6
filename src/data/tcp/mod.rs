//! The TCP data plane. Read `life` first: a session is one straight line (admit → preread → route → connect → relay →
//! record).

// A worker: its thread, what it has, how it is reached.
pub mod thread;
mod worker;
pub mod mailbox;
pub mod resources;
mod roster;
mod spin;
mod closing;

// A session: accepted, lived, recorded.
mod listener;
mod life;
mod session;
mod first_bytes;
mod replay;
mod place;
mod ending;

// Before it is routed, and if it is turned away.
mod preread;
mod refusal;

// To a backend.
mod cancel;
mod connect;
mod search;
mod hold;
mod watch;
mod greeting;
mod failure;
pub mod options;
pub mod source_ports;
mod port_book;

// Its bytes.
mod relay;
mod trial;
mod again;
mod timeouts;
mod quiet;
mod half;
mod pace;
