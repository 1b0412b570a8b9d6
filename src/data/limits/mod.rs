//! What a session or a flow can be held against: lists of networks, places and rates. Who is asked when is said in
//! `admit` and `udp`.

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
