//! Files of certificates and keys: what becomes of a configuration when one of them changes. Who looks at them is not
//! known here.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, ProbeTls, read_text_file};
use crate::data::tls::client::Client;
use crate::data::tls::server::Server;

/// Settings that a file has a part in, before and after it changed.
#[derive(Debug, Default)]
pub struct Renewed {
    servers: Vec<Pair<Server>>,
    clients: Vec<Pair<Client>>,
}

/// Before and after.
type Pair<T> = (Arc<T>, Arc<T>);

/// What takes the place of `own`, if it became another.
fn replaced<T: PartialEq>(own: Option<&Arc<T>>, pairs: &[Pair<T>]) -> Option<Arc<T>> {
    let own = own?;
    let (before, now) = pairs.iter().find(|(before, _)| Arc::ptr_eq(own, before))?;
    (before != now).then(|| Arc::clone(now))
}

impl Renewed {
    /// What is wrong with certificates that expired before `now`, in seconds since 1970.
    pub fn expired(&self, now: i64) -> Vec<String> {
        self.servers.iter().flat_map(|(_, server)| server.expired(now)).collect()
    }
}

impl Config {
    /// Every file of TLS, once.
    pub fn tls_files(&self) -> BTreeSet<&Path> {
        let servers = self.listeners.iter().filter_map(|listener| listener.tls.as_deref());
        let clients = self.tls_clients().map(|client| &**client);
        servers.flat_map(Server::files).chain(clients.flat_map(Client::files)).collect()
    }

    /// Of sessions and of probes.
    fn tls_clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.pools.iter().flat_map(|pool| pool.tls.iter().chain(pool.health.tls.own()))
    }

    /// Reads the settings that the file at `path` has a part in; a certificate and its key change together. `Err` says
    /// what is wrong with them.
    pub fn read_tls(&self, path: &Path) -> Result<Renewed, String> {
        let mut renewed = Renewed::default();
        for server in self.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
            if server.files().any(|file| file == path) {
                let now = server.again(&read_text_file)?;
                renewed.servers.push((Arc::clone(server), Arc::new(now)));
            }
        }
        for client in self.tls_clients() {
            if client.files().any(|file| file == path) {
                let now = client.again(&read_text_file)?;
                renewed.clients.push((Arc::clone(client), Arc::new(now)));
            }
        }
        Ok(renewed)
    }

    /// The configuration with those settings. `None`: it is the same.
    pub fn with_tls(&self, renewed: &Renewed) -> Option<Config> {
        let mut config = self.clone();
        for listener in &mut config.listeners {
            if let Some(now) = replaced(listener.tls.as_ref(), &renewed.servers) {
                Arc::make_mut(listener).tls = Some(now);
            }
        }
        for pool in &mut config.pools {
            if let Some(now) = replaced(pool.tls.as_ref(), &renewed.clients) {
                Arc::make_mut(pool).tls = Some(now);
            }
            if let Some(now) = replaced(pool.health.tls.own(), &renewed.clients) {
                Arc::make_mut(pool).health.tls = ProbeTls::Own(now);
            }
        }
        (config != *self).then_some(config)
    }
}
