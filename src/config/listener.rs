//! What is asked of a listener or a route as a whole.

use super::keys::{Listener, Route};
use super::net::NetFile;
use super::protocol::Protocol;

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
