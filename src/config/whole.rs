//! A whole configuration, as the program believes it, and what is asked of its listeners, routes and pools.

use std::sync::Arc;

use super::discovery::Finder;
use super::keys::{Admin, Listener, Log, OnDown, Pool, Process, Route};
use super::net::NetFile;
use super::protocol::Protocol;

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

impl Listener {
    /// Whether any of its sessions may go to that pool.
    pub fn uses(&self, pool: &str) -> bool {
        let own = std::iter::once(&self.pool);
        own.chain(self.routes.iter().map(|route| &route.pool)).any(|it| it.as_deref() == Some(pool))
    }

    /// Sessions or flows at once: `limits.sessions`, and `flow.max_flows` for UDP.
    pub fn session_limit(&self) -> Option<u64> {
        let flows = self.flow.max_flows.filter(|_| self.protocol == Protocol::Udp);
        self.limits.sessions.into_iter().chain(flows).min()
    }

    /// `allow_file` and `deny_file`, with the word that a metric has for each.
    pub fn net_files(&self) -> impl Iterator<Item = (&'static str, &NetFile)> {
        let named = [("allow", &self.allow_file), ("deny", &self.deny_file)];
        named.into_iter().filter_map(|(word, file)| Some((word, file.as_ref()?)))
    }
}

impl Route {
    /// Whether only the client's first bytes tell if it matches.
    pub fn asks_for_bytes(&self) -> bool {
        !self.server_name.is_empty() || !self.alpn.is_empty()
    }
}

/// Why a backend is lost to those it has; the keys of `on_down_reasons`, as API, metrics and page name them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// In maintenance.
    ByHand,
    /// It does not answer as it should, or is ejected.
    Dead,
    /// It answers, and is behind.
    Lagging,
    /// It turned the probe's login away.
    LoginFailed,
    /// It refused the probe's question.
    QueryFailed,
    /// A standby now.
    WrongRole,
}

impl DownReason {
    pub const ALL: [DownReason; 6] = [
        DownReason::ByHand,
        DownReason::Dead,
        DownReason::Lagging,
        DownReason::LoginFailed,
        DownReason::QueryFailed,
        DownReason::WrongRole,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            DownReason::ByHand => "by_hand",
            DownReason::Dead => "dead",
            DownReason::Lagging => "lagging",
            DownReason::LoginFailed => "login_failed",
            DownReason::QueryFailed => "query_failed",
            DownReason::WrongRole => "wrong_role",
        }
    }
}

impl Pool {
    pub fn finders(&self) -> &[Finder] {
        self.discovery.as_ref().map_or(&[], |discovery| &discovery.finders)
    }

    pub fn on_down_for(&self, reason: DownReason) -> OnDown {
        let own = &self.on_down_reasons;
        match reason {
            DownReason::ByHand => own.by_hand.unwrap_or(self.on_down),
            DownReason::Dead => own.dead.unwrap_or(self.on_down),
            DownReason::WrongRole => own.wrong_role.unwrap_or(self.on_down),
            // It serves those that it has as before.
            DownReason::Lagging => own.lagging.unwrap_or(OnDown::Keep),
            DownReason::LoginFailed => own.login_failed.unwrap_or(OnDown::Keep),
            DownReason::QueryFailed => own.query_failed.unwrap_or(OnDown::Keep),
        }
    }
}
