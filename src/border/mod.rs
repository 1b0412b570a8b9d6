//! What both planes know. Down: the configuration in force (`snapshot`). Up: what is shown of the data plane (`plane`), its
//! statistics (`counters`, `datagrams`) and how sessions ended (`record`, `session_log`). And the words both speak in:
//! addresses, texts made safe to show.

pub mod snapshot;
pub mod plane;

pub mod record;
pub mod session_log;
pub mod counters;
pub mod datagrams;

pub mod addr;
pub mod text;
