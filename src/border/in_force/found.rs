//! What becomes of a pool once something was found: its backends are those listed and those that names and files hold.
//! Pure; `control::discovery` looks.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::stand_in::{self, StandIns};
use crate::border::addr::{BackendAddr, ListenAddr};
use crate::border::written::ListenRange;
use crate::config::{Answers, Config, Finder, Origin, Question};

impl Config {
    fn finders(&self) -> impl Iterator<Item = &Finder> {
        self.pools.iter().flat_map(|pool| pool.finders())
    }

    /// Every file of backends, once.
    pub fn backend_files(&self) -> BTreeSet<&Path> {
        self.finders()
            .filter_map(|finder| match &finder.origin {
                Origin::File(path) => Some(path.as_path()),
                Origin::Dns(_) => None,
            })
            .collect()
    }

    /// Every question.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        self.finders().filter_map(|finder| match &finder.origin {
            Origin::Dns(question) => Some(question),
            Origin::File(_) => None,
        })
    }

    /// What clients of that pool dial, by port; under `None`, whatever the port.
    fn bound(&self, pool: &str) -> HashMap<Option<u16>, BTreeSet<ListenAddr>> {
        let mut bound: HashMap<Option<u16>, BTreeSet<ListenAddr>> = HashMap::new();
        let of_pool = self.listeners.iter().filter(|listener| listener.uses(pool));
        for address in of_pool.flat_map(|listener| &listener.bind) {
            let (port, any) = match address {
                ListenAddr::DualStack(port) => (Some(*port), ListenAddr::DualStack(0)),
                ListenAddr::Inet(it) => {
                    let mut any = *it;
                    any.set_port(0);
                    (Some(it.port()), ListenAddr::Inet(any))
                }
                ListenAddr::Unix(_) => (None, address.clone()),
            };
            bound.entry(port).or_default().insert(address.clone());
            bound.entry(None).or_default().insert(any);
        }
        bound
    }

    /// Takes out what files of backends held when the configuration was read.
    pub fn take_read(&mut self) -> Answers {
        let mut answers = Answers::new();
        for pool in &mut self.pools {
            if pool.finders().iter().all(|finder| finder.read.is_none()) {
                continue;
            }
            let Some(discovery) = &mut Arc::make_mut(pool).discovery else { continue };
            for finder in &mut Arc::make_mut(discovery).finders {
                if let Some(read) = finder.read.take() {
                    answers.insert(finder.origin.clone(), read);
                }
            }
        }
        answers
    }

    /// The configuration with what was found; which pools of it are others than before, and in which something found is
    /// of no use.
    pub fn with_found(
        &self,
        answers: &Answers,
        stand_ins: &StandIns,
    ) -> (Config, Vec<Arc<str>>, Vec<LeftOut>) {
        let mut config = self.clone();
        let (mut changed, mut left_out) = (Vec::new(), Vec::new());
        for pool in &mut config.pools {
            let Some(discovery) = &pool.discovery else { continue };
            let bound = self.bound(&pool.name);
            // Most are on a port that nobody binds.
            let is_own = |address: &BackendAddr| {
                let mut binds = bound.get(&port(address)).into_iter().flatten();
                binds.any(|bind| ListenRange::of(bind.clone()).covers(address))
            };
            let stand_ins = stand_ins.get(&pool.name).map_or(&[][..], Vec::as_slice);
            let composed = discovery.compose(
                pool.balance,
                answers,
                |origin| stand_in::of(stand_ins, origin),
                is_own,
            );
            if let Some((address, why, count)) = composed.left_out {
                left_out.push(LeftOut { pool: Arc::clone(&pool.name), address, why, count });
            }
            if composed.backends != pool.backends {
                changed.push(Arc::clone(&pool.name));
                Arc::make_mut(pool).backends = composed.backends;
            }
        }
        (config, changed, left_out)
    }
}

/// `None`: of a unix socket, and of one that is dialled where its client dialled.
fn port(address: &BackendAddr) -> Option<u16> {
    match address {
        BackendAddr::Inet(address) => Some(address.port()),
        BackendAddr::InetClientPort(_) | BackendAddr::Unix(_) => None,
    }
}

/// Backends found for a pool that are of no use to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub pool: Arc<str>,
    /// The first of them.
    pub address: String,
    pub why: &'static str,
    pub count: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::in_force::composed::Composed;
    use crate::config::{Answer, Asked, Backend, Balance, Discovery, Listener, Pool};
    use proptest::prelude::*;

    fn listed(address: &str) -> Backend {
        let address = BackendAddr::Inet(address.parse().unwrap());
        Backend { name: address.to_string().into(), address, ..Backend::default() }
    }

    fn question(name: &str) -> Origin {
        let (name, record) = (name.to_owned(), Asked::Address);
        Origin::Dns(Question { name, record, servers: Vec::new() })
    }

    fn finder(name: &str, after: usize, port: u16) -> Finder {
        Finder { origin: question(name), after, port: Some(port), ..Finder::default() }
    }

    fn addresses(name: &str, ips: &[&str]) -> (Origin, Arc<Answer>) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        (question(name), Arc::new(Answer::Addresses(ips)))
    }

    fn shown(composed: &Composed) -> Vec<String> {
        composed.backends.iter().map(|backend| backend.address.to_string()).collect()
    }

    #[test]
    fn what_is_found_stands_where_it_was_asked_for() {
        let discovery = Discovery {
            listed: vec![listed("10.0.0.1:1"), listed("10.0.0.2:1")],
            finders: vec![finder("a", 1, 7), Finder { port: None, ..finder("b", 2, 0) }],
        };
        let answers = Answers::from([
            addresses("a", &["192.0.2.1", "2001:db8::1"]),
            addresses("b", &["::ffff:192.0.2.9"]),
        ]);
        let composed =
            discovery.compose(Balance::FirstAvailable, &answers, |_| Vec::new(), |_| false);
        let expected = ["10.0.0.1:1", "192.0.2.1:7", "[2001:db8::1]:7", "10.0.0.2:1", "192.0.2.9"];
        assert_eq!(shown(&composed), expected);
        assert_eq!(&*composed.backends[2].name, "[2001:db8::1]:7", "called by its address");
        let composed =
            discovery.compose(Balance::FirstAvailable, &Answers::new(), |_| Vec::new(), |_| false);
        assert_eq!(shown(&composed), ["10.0.0.1:1", "10.0.0.2:1"], "nothing is found yet");
    }

    #[test]
    fn of_what_is_there_twice_the_listed_one_stays_then_the_first() {
        let discovery = Discovery {
            listed: vec![Backend { weight: 9, ..listed("192.0.2.1:7") }],
            finders: vec![Finder { weight: 2, ..finder("a", 0, 7) }, finder("b", 1, 7)],
        };
        let answers = Answers::from([
            addresses("a", &["192.0.2.1", "192.0.2.2"]),
            addresses("b", &["192.0.2.2", "192.0.2.3"]),
        ]);
        let composed =
            discovery.compose(Balance::LeastConnections, &answers, |_| Vec::new(), |_| false);
        let mut weights: Vec<(String, u32)> =
            composed.backends.iter().map(|it| (it.address.to_string(), it.weight)).collect();
        weights.sort();
        let expected = [("192.0.2.1:7", 9), ("192.0.2.2:7", 2), ("192.0.2.3:7", 1)];
        assert_eq!(weights, expected.map(|(address, weight)| (address.to_owned(), weight)));
        assert_eq!(composed.left_out, Some(("192.0.2.1:7".to_owned(), "is there already", 2)));
    }

    #[test]
    fn a_listener_is_no_backend_of_its_own_pool() {
        let of = |bind| {
            let listener =
                Listener { bind: vec![bind], pool: Some("main".into()), ..Listener::default() };
            let finders = vec![finder("a", 0, 7), Finder { port: None, ..finder("b", 0, 0) }];
            let discovery = Some(Arc::new(Discovery { listed: Vec::new(), finders }));
            let pools = vec![Arc::new(Pool { discovery, ..Pool::default() })];
            let listeners = vec![Arc::new(listener)];
            let config = Config { listeners, pools, ..Config::default() };
            let ips = ["127.0.0.1", "192.0.2.1", "192.0.2.2"];
            let answers = Answers::from([addresses("a", &ips), addresses("b", &ips[1..])]);
            let (config, _, left_out) = config.with_found(&answers, &StandIns::new());
            let address = |it: &Backend| it.address.to_string();
            let found: Vec<String> = config.pools[0].backends.iter().map(address).collect();
            (found, left_out)
        };
        let own = ListenAddr::Inet("192.0.2.1:7".parse().unwrap());
        let (found, left_out) = of(own);
        assert_eq!(found, ["127.0.0.1:7", "192.0.2.2:7", "192.0.2.2"]);
        let expected = LeftOut {
            pool: "main".into(),
            address: "192.0.2.1:7".to_owned(),
            why: "is the listener that it is to serve",
            count: 2,
        };
        assert_eq!(left_out, [expected]);
        let (found, _) = of(ListenAddr::DualStack(7));
        assert_eq!(found.len(), 4, "all but the one of loopback: {found:?}");
        assert_eq!(of(ListenAddr::DualStack(8)).0.len(), 5, "another port");
    }

    #[test]
    fn the_order_of_a_file_counts_only_for_the_first_available() {
        let (a, b) = (listed("192.0.2.1:1"), listed("192.0.2.2:1"));
        let path = Origin::File("f".into());
        let finder = Finder { origin: path.clone(), ..Finder::default() };
        let discovery = Discovery { listed: Vec::new(), finders: vec![finder] };
        let composed = |balance, backends: [&Backend; 2]| {
            let backends = backends.map(Clone::clone).to_vec();
            let answer = Arc::new(Answer::Backends(backends));
            discovery.compose(
                balance,
                &Answers::from([(path.clone(), answer)]),
                |_| Vec::new(),
                |_| false,
            )
        };
        let [one, other] = [[&a, &b], [&b, &a]];
        let sorted = Balance::ConsistentHash;
        assert_eq!(composed(sorted, one), composed(sorted, other));
        let first = Balance::FirstAvailable;
        assert_ne!(composed(first, one), composed(first, other));
    }

    proptest! {
        #[test]
        fn every_listed_and_every_found_address_is_there_exactly_once(
            own in prop::collection::btree_set(0_u8..20, 0..6),
            found in prop::collection::vec((0_usize..6, prop::collection::btree_set(0_u8..20, 0..9)), 0..4),
        ) {
            let ip = |last: &u8| format!("192.0.2.{last}");
            let own_count = own.len();
            let mut finders: Vec<Finder> = (0..).zip(&found)
                .map(|(number, (after, _))| finder(&format!("n{number}"), (*after).min(own_count), 7))
                .collect();
            finders.sort_by_key(|finder| finder.after);
            let discovery = Discovery {
                listed: own.iter().map(|last| listed(&format!("{}:7", ip(last)))).collect(),
                finders,
            };
            let answers: Answers = (0..).zip(&found)
                .map(|(number, (_, ips))| {
                    let ips: Vec<String> = ips.iter().map(ip).collect();
                    let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
                    addresses(&format!("n{number}"), &ips)
                })
                .collect();
            let composed = discovery.compose(Balance::LeastConnections, &answers, |_| Vec::new(), |_| false);
            let mut shown = shown(&composed);
            let in_order: Vec<&String> =
                shown.iter().filter(|it| own.iter().any(|own| format!("{}:7", ip(own)) == **it)).collect();
            prop_assert_eq!(in_order.len(), own_count);
            shown.sort();
            let all: BTreeSet<u8> =
                own.iter().chain(found.iter().flat_map(|(_, ips)| ips)).copied().collect();
            let mut expected: Vec<String> = all.iter().map(|last| format!("{}:7", ip(last))).collect();
            expected.sort();
            prop_assert_eq!(shown, expected);
        }
    }
}
