//! A whole configuration, as the program believes it.

use std::sync::Arc;

use super::keys::{Admin, Listener, Log, Pool, Process};

/// A whole configuration. Listeners and pools stand in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub process: Process,
    pub admin: Admin,
    pub log: Log,
    pub listeners: Vec<Arc<Listener>>,
    pub pools: Vec<Arc<Pool>>,
    /// SHA-256 over the text of all files, hexadecimal; `config_info{sha256}`.
    pub sha256: String,
    /// The same over the configuration's own files alone.
    pub own_sha256: String,
}
