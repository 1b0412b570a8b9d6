//! What is in force: a configuration, and what the names and the files that it points to hold now. Pure: who looks there, and
//! when, is not known here.

mod composed;
mod found;
mod nets;
mod stand_in;
mod tls;

pub use found::LeftOut;
pub use stand_in::{StandIn, StandIns};
pub use tls::Renewed;
