//! The limits of sessions and flows: lists of networks, places and rates. `admit` and `udp` decide which of them are
//! asked when.

mod gate;
mod acl;
mod rate;
mod client;
mod quotas;

pub use acl::Acl;
pub use client::{ClientNet, ClientPermit, ClientRates, Clients};
pub use gate::{Gate, GatePermit};
pub use quotas::Quotas;
pub use rate::Bucket;
