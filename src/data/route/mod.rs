//! Which route a session takes: a pure function of what is known of the session so far. Waiting for the client's
//! first bytes is not done here.

use std::net::IpAddr;

use crate::config;
use crate::data::limits::Acl;
use crate::data::wire::client_hello::Hello;

/// The routes of a listener, in file order.
#[derive(Default)]
pub struct Routes(Vec<Entry>);

struct Entry {
    route: config::Route,
    clients: Acl,
}

/// What is known of a session.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `None`: a client of a unix socket, which is in no network.
    pub client: Option<IpAddr>,
    /// The port it dialled.
    pub port: Option<u16>,
    /// `None`: its first bytes are not known yet.
    pub hello: Option<&'a Hello>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No route matches: the listener's own pool.
    Own,
    Route(usize),
    /// A route that may match needs the client's first bytes.
    Undecided,
}

impl Routes {
    pub fn new(routes: &[config::Route]) -> Routes {
        let entry = |route: &config::Route| Entry {
            route: route.clone(),
            clients: Acl::new(&route.client, &[]),
        };
        Routes(routes.iter().map(entry).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them has a server name.
    pub fn name_servers(&self) -> bool {
        self.0.iter().any(|entry| !entry.route.server_name.is_empty())
    }

    /// The first matching route.
    pub fn decide(&self, facts: Facts<'_>) -> Decision {
        for (index, entry) in self.0.iter().enumerate() {
            let route = &entry.route;
            let may_hold =
                facts.client.map_or(route.client.is_empty(), |ip| entry.clients.allows(ip))
                    && (route.port.is_none() || route.port == facts.port);
            if !may_hold {
                continue;
            }
            if !route.asks_for_bytes() {
                return Decision::Route(index);
            }
            match facts.hello {
                None => return Decision::Undecided,
                Some(hello) if holds(route, hello) => return Decision::Route(index),
                Some(_) => {}
            }
        }
        Decision::Own
    }
}

fn holds(route: &config::Route, hello: &Hello) -> bool {
    let named = hello.server_name.as_deref();
    let name_holds = route.server_name.is_empty()
        || named.is_some_and(|name| route.server_name.iter().any(|own| own.matches(name)));
    let alpn_holds = route.alpn.is_empty() || route.alpn.iter().any(|own| hello.alpn.contains(own));
    name_holds && alpn_holds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{NamePattern, Route};

    fn hello(name: Option<&str>, alpn: &[&str]) -> Hello {
        let alpn = alpn.iter().map(|it| it.as_bytes()).collect();
        Hello { server_name: name.map(str::to_owned), alpn }
    }

    fn facts(client: &str, port: u16) -> Facts<'static> {
        Facts { client: client.parse().ok(), port: Some(port), hello: None }
    }

    fn routes() -> Routes {
        let named = |name: &str| Route {
            server_name: vec![NamePattern::Exact(name.to_owned())],
            ..Route::default()
        };
        Routes::new(&[
            Route { client: vec!["10.0.0.0/8".parse().unwrap()], ..Route::default() },
            Route { port: Some(7), alpn: vec![b"h2".to_vec()], ..named("a") },
            Route { port: Some(7), ..named("a") },
            Route { port: Some(9), ..Route::default() },
        ])
    }

    #[test]
    fn bytes_are_asked_for_only_where_they_matter() {
        let routes = routes();
        assert_eq!(routes.decide(facts("10.1.2.3", 7)), Decision::Route(0));
        assert_eq!(routes.decide(facts("192.0.2.7", 9)), Decision::Route(3));
        assert_eq!(routes.decide(facts("192.0.2.7", 8)), Decision::Own);
        assert_eq!(routes.decide(facts("192.0.2.7", 7)), Decision::Undecided);
        let unix = Facts { client: None, port: None, hello: None };
        assert_eq!(routes.decide(unix), Decision::Own);
    }

    #[test]
    fn the_first_of_which_everything_holds() {
        let routes = routes();
        let decide =
            |hello: &Hello| routes.decide(Facts { hello: Some(hello), ..facts("192.0.2.7", 7) });
        assert_eq!(decide(&hello(Some("a"), &["http/1.1", "h2"])), Decision::Route(1));
        assert_eq!(decide(&hello(Some("a"), &["http/1.1"])), Decision::Route(2));
        assert_eq!(decide(&hello(Some("b"), &["h2"])), Decision::Own);
        assert_eq!(decide(&hello(None, &["h2"])), Decision::Own);
    }
}
