//! What both planes know: the configuration in force (`snapshot`, downwards), what is shown of the data plane (`plane`, upwards),
//! and the addresses that both speak of.

pub mod snapshot;
pub mod plane;
pub mod addr;
pub mod text;

pub mod record;
pub mod counters;
pub mod datagrams;
pub mod session_log;
