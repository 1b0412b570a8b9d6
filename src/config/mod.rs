//! What the program believes: the configuration after every default, merge and check. Nothing here knows
//! YAML. Built only by `load`, by the command line's one-line start, and by tests through `Default`.
//!
//! The modules stand in the order a file passes through them; those after `schema` are what they share. What is
//! believed of a listener and of a pool is in `listener` and `pool`.

mod load;
mod parse;
mod substitute;
mod raw;
mod check;
mod one_line;
pub mod schema;

mod tree;
mod decode;
mod choice;
mod scalar;
mod value;
mod address;
mod net;
mod backend_list;
mod dns_name;
mod account;
mod admin;
mod grammar;
mod elsewhere;
pub mod nearest;
pub mod describe;
pub mod compare;
pub mod fault;
pub mod error;

mod access;
mod listener;
mod route;
mod pool;
mod discovery;
mod stand_in;
mod tls;

pub use crate::sys::privileges::User;
pub use access::{Access, AccessFiles, NetFile};
pub use admin::{AdminSocket, Token};
pub use discovery::{
    Answer, Answers, Asked, Composed, Discovery, Finder, LeftOut, Origin, Question, Service,
};
pub use error::{Report, Source};
pub use grammar::time as parse_time;
pub use listener::*;
pub use load::{BadList, Loaded, load, read_backends, read_nets, read_sources, read_text_file};
pub use one_line::{OneLine, one_line, override_admin};
pub use pool::*;
pub use route::{NamePattern, Route};
pub use stand_in::{StandIn, StandIns};
pub use tls::Renewed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// `None` = auto: the CPUs this process may use.
    pub workers: Option<usize>,
    /// `None` = auto: what the descriptor limit allows.
    pub max_sessions: Option<u64>,
    /// How long a worker looks for more to do before it sleeps; `None` = it sleeps at once.
    pub busy_poll: Option<Duration>,
    pub shutdown: Shutdown,
    /// Whether the configuration is read anew when its files change.
    pub watch: bool,
    /// `None`: who started it.
    pub user: Option<User>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shutdown {
    pub delay: Duration,
    pub timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { delay: Duration::ZERO, timeout: Duration::from_secs(25) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None` = off.
    pub listen: Option<SocketAddr>,
    pub socket: AdminSocket,
    /// `None`: over TCP nothing can be changed.
    pub token: Option<Token>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 9900))),
            socket: AdminSocket::default(),
            token: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
    pub sessions: SessionLog,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionLog {
    All,
    Failures,
    #[default]
    None,
}
