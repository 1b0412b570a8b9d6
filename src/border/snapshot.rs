//! The border between the planes: everything of the configuration that the data plane may read, immutable and swapped
//! whole. The control plane builds it; a session keeps Arcs of the parts that it uses, never the whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::border::addr::ListenAddr;
use crate::border::counters::{Counter, PerWorker};
use crate::border::datagrams::DatagramCounters;
use crate::border::record::{CloseReason, Stage, can_occur};
use crate::config;
use crate::data::limits::{Acl, Quotas};
use crate::data::pool::Pool;
use crate::data::route::Routes;

#[derive(Default)]
pub struct Snapshot {
    pub config: Arc<config::Config>,
    pub listeners: HashMap<Arc<str>, Arc<Listener>>,
    pub pools: HashMap<Arc<str>, Arc<Pool>>,
}

/// A listener as the data plane sees it: which clients it admits, and on which terms.
pub struct Listener {
    pub acl: Acl,
    /// The senders that must send a PROXY header. `None`: there are none.
    trusted: Option<Acl>,
    /// Everything that the configuration says, including lists of networks.
    whole: Arc<config::Listener>,
    /// A number that no other listener has or had.
    pub version: u64,
    pub terms: Arc<Terms>,
}

/// What a session keeps of its listener for as long as it is open. Lists of networks are not here, nor in `config`:
/// they have been checked by then, may be large, and change often.
pub struct Terms {
    pub config: Arc<config::Listener>,
    pub routes: Routes,
    pub live: Arc<ListenerLive>,
}

/// Listeners and pools that are in no snapshot any more.
#[derive(Default)]
pub struct Departed {
    pub listeners: Vec<Arc<Terms>>,
    pub pools: Vec<Arc<Pool>>,
}

impl Deref for Listener {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// What survives a reload as long as the listener's name does.
pub struct ListenerLive {
    /// Open sessions over all workers; `limits.sessions` limits this.
    pub active: AtomicU64,
    /// Sessions in stage `preread`; `limits.prereads` limits this.
    pub prereads: AtomicU64,
    pub quotas: Quotas,
    pub counters: PerWorker<ListenerCounters>,
    /// For a UDP listener.
    pub datagrams: PerWorker<DatagramCounters>,
}

/// Statistics of one worker about one listener.
#[derive(Debug)]
pub struct ListenerCounters {
    /// Every accepted connection, including refused ones.
    pub sessions: Counter,
    pub received_bytes: Counter,
    pub sent_bytes: Counter,
    /// `session_closed_total{stage, reason}`.
    closed: [[Counter; CloseReason::ALL.len()]; Stage::ALL.len()],
}

impl Default for ListenerCounters {
    fn default() -> Self {
        ListenerCounters {
            sessions: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            closed: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
        }
    }
}

impl ListenerCounters {
    pub fn closed(&self, stage: Stage, reason: CloseReason) -> &Counter {
        &self.closed[stage as usize][reason as usize]
    }
}

impl Listener {
    /// `before`: what sessions keep of the previous version; if nothing changed, new sessions share it with them.
    fn new(config: Arc<config::Listener>, before: Option<&Arc<Terms>>, threads: usize) -> Listener {
        let trusted = config.proxy_protocol.as_ref().map(|own| Acl::new(&own.trusted.nets, &[]));
        let own = config::Listener {
            allow: Vec::new(),
            deny: Vec::new(),
            ..config::Listener::clone(&config)
        };
        let terms = before.filter(|before| *before.config == own).map(Arc::clone);
        let terms = terms.unwrap_or_else(|| {
            let live = before.map(|before| Arc::clone(&before.live));
            let live = live.unwrap_or_else(|| Arc::new(ListenerLive::new(threads)));
            let routes = Routes::new(&config.routes);
            Arc::new(Terms { config: Arc::new(own), routes, live })
        });
        static VERSIONS: AtomicU64 = AtomicU64::new(0);
        let version = VERSIONS.fetch_add(1, Relaxed);
        Listener {
            acl: Acl::new(&config.allow, &config.deny),
            trusted,
            whole: config,
            version,
            terms,
        }
    }

    /// Whether `allow` and `deny`, including their files, are the same.
    pub fn has_lists_of(&self, other: &Listener) -> bool {
        (&self.whole.allow, &self.whole.deny) == (&other.whole.allow, &other.whole.deny)
    }

    /// Whether a connection from this address must begin with a PROXY header; `None`: it came over a unix socket.
    pub fn trusts(&self, sender: Option<IpAddr>) -> bool {
        match (&self.trusted, &self.config.proxy_protocol, sender) {
            // An empty list would match every address.
            (Some(nets), Some(own), Some(ip)) => !own.trusted.nets.is_empty() && nets.allows(ip),
            (_, Some(own), None) => own.trusted.unix,
            _ => false,
        }
    }
}

impl Terms {
    /// Whether anything about a session may have to be known before it is routed.
    pub fn looks_at_first_bytes(&self) -> bool {
        let config = &self.config;
        config.proxy_protocol.is_some()
            || !self.routes.is_empty()
            || config.tls.is_some()
            || config.postgres_cancel == config::PostgresCancel::All
    }

    /// Sessions that ended with that reason before any backend was tried. `None`: none can.
    pub fn refused(&self, reason: CloseReason) -> Option<u64> {
        let before = [Stage::Admit, Stage::Preread, Stage::Route];
        let stages = before.into_iter().filter(|it| can_occur(self.config.protocol, *it, reason));
        let each = stages
            .map(|stage| self.live.counters.sum(|counters| counters.closed(stage, reason).value()));
        each.reduce(|sum, count| sum + count)
    }

    /// Sessions and flows that ended with that reason in any stage, if it is a failure.
    pub fn failed(&self, reason: CloseReason) -> u64 {
        if !reason.is_failure() {
            return 0;
        }
        let of = |stage| self.live.counters.sum(|counters| counters.closed(stage, reason).value());
        Stage::ALL.into_iter().map(of).sum()
    }

    pub fn is_in_use(&self) -> bool {
        self.live.active.load(Relaxed) > 0
    }
}

impl ListenerLive {
    pub fn new(threads: usize) -> Self {
        ListenerLive {
            active: AtomicU64::new(0),
            prereads: AtomicU64::new(0),
            quotas: Quotas::default(),
            counters: PerWorker::new(threads),
            datagrams: PerWorker::new(threads),
        }
    }

    /// Takes one of `limit` places, in one atomic step.
    pub fn enter(&self, limit: Option<u64>) -> bool {
        let limit = limit.unwrap_or(u64::MAX);
        self.active
            .fetch_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1))
            .is_ok()
    }

    pub fn leave(&self) {
        let before = self.active.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a place is given back at most once");
    }
}

impl Snapshot {
    /// Builds what `config` asks for, and keeps every part that did not change, also a part that was removed and is
    /// back before its last session ended. Statistics get a cell for each of `threads`. Changes nothing that is in
    /// use: a reload may still be refused.
    pub fn build(
        config: Arc<config::Config>,
        previous: &Snapshot,
        departed: &Departed,
        threads: usize,
    ) -> Snapshot {
        let listeners = config.listeners.iter().map(|listener| {
            let now = previous.listeners.get(&listener.name);
            let kept = now.filter(|now| now.whole == *listener).map(Arc::clone);
            let listener = kept.unwrap_or_else(|| {
                let gone = || departed.listeners.iter().find(|it| it.config.name == listener.name);
                let before = now.map(|now| &now.terms).or_else(gone);
                // With another protocol it is another listener, with metrics of its own.
                let before = before.filter(|before| before.config.protocol == listener.protocol);
                Arc::new(Listener::new(Arc::clone(listener), before, threads))
            });
            (Arc::clone(&listener.config.name), listener)
        });
        let listeners = listeners.collect();
        let pools = config.pools.iter().map(|pool| {
            let before = previous
                .pools
                .get(&pool.name)
                .or_else(|| departed.pools.iter().find(|departed| departed.name == pool.name));
            let kept = before.filter(|before| before.config == *pool).map(Arc::clone);
            let pool = kept.unwrap_or_else(|| {
                Arc::new(Pool::build(Arc::clone(pool), before.map(|b| &**b), threads))
            });
            (Arc::clone(&pool.name), pool)
        });
        let pools = pools.collect();
        Snapshot { config, listeners, pools }
    }

    /// Whether clients can choose the port with which they reach this pool, including a port that a PROXY header
    /// announces.
    pub fn leads_many_ports_to(&self, pool: &str) -> bool {
        let mut first = None;
        let leads = |listener: &&Arc<Listener>| {
            let of_routes = listener.config.routes.iter().filter_map(|route| route.pool.as_deref());
            listener.config.pool.as_deref() == Some(pool)
                || of_routes.into_iter().any(|it| it == pool)
        };
        self.listeners.values().filter(leads).any(|listener| {
            listener.config.proxy_protocol.is_some()
                || listener.config.bind.iter().filter_map(ListenAddr::port).any(|port| {
                    let before = *first.get_or_insert(port);
                    before != port
                })
        })
    }
}

impl Departed {
    /// The items of `before` and `self` that `now` does not have and that still have sessions.
    pub fn after(&self, before: &Snapshot, now: &Snapshot) -> Departed {
        let before_listeners = before.listeners.values().map(|listener| &listener.terms);
        let listeners = self.listeners.iter().chain(before_listeners);
        let pools = self.pools.iter().chain(before.pools.values());
        Departed {
            listeners: listeners
                .filter(|it| !now.listeners.contains_key(&it.config.name) && it.is_in_use())
                .map(Arc::clone)
                .collect(),
            pools: pools
                .filter(|it| !now.pools.contains_key(&it.name) && it.is_in_use())
                .map(Arc::clone)
                .collect(),
        }
    }
}
