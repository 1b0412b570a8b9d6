//! What both planes know. Down: the configuration in force (`snapshot`), with what names and files hold now (`in_force`). Up:
//! what is shown of the data plane (`plane`), its statistics (`counters`, `datagrams`) and how sessions ended (`record`,
//! `session_log`). And the words both speak in: addresses and quantities, also as people write them, names, texts made safe to
//! show, the token of the admin server, the word nearest to a mistyped one.

pub mod snapshot;
pub mod in_force;
pub mod plane;

pub mod record;
pub mod session_log;
pub mod counters;
pub mod datagrams;

pub mod addr;
pub(crate) mod written;
pub(crate) mod dns_name;
pub mod quantities;
pub mod nearest;
pub mod text;
pub(crate) mod token;
