//! The book of what hands set on backends. It outlives reloads, and backends that leave and come back; only a hand or its
//! `until` takes anything out of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::border::snapshot::Snapshot;
use crate::config::Config;
use crate::control::health::transition::{self, Transition};
use crate::data::pool::backend::Backend;
use crate::data::pool::hand::{Hand, MOST, Wish};

/// By pool, then by backend.
#[derive(Clone, Default)]
pub struct Hands(BTreeMap<String, BTreeMap<String, Hand>>);

impl Hands {
    pub(super) fn of(&self, pool: &str, backend: &str) -> Option<&Hand> {
        self.0.get(pool)?.get(backend)
    }

    pub(super) fn grant(
        &mut self,
        pool: &str,
        backend: &str,
        wish: &Wish,
        who: &str,
        now: SystemTime,
    ) -> bool {
        let is_known = self.of(pool, backend).is_some();
        if !is_known && self.0.values().map(BTreeMap::len).sum::<usize>() >= MOST {
            return false;
        }
        let of_pool = self.0.entry(pool.to_owned()).or_default();
        of_pool.entry(backend.to_owned()).or_default().grant(wish, who, now);
        self.forget_empty();
        true
    }

    /// Lifts entries whose time is over; returns the backends, by pool.
    pub(super) fn expire(&mut self, now: SystemTime) -> BTreeMap<String, Vec<String>> {
        let mut lifted = BTreeMap::new();
        for (pool, backends) in &mut self.0 {
            let over = backends.iter_mut().filter_map(|(name, hand)| {
                let is_over = hand.expire(now);
                is_over.then(|| name.clone())
            });
            let over: Vec<String> = over.collect();
            if !over.is_empty() {
                lifted.insert(pool.clone(), over);
            }
        }
        self.forget_empty();
        lifted
    }

    fn forget_empty(&mut self) {
        self.0.values_mut().for_each(|backends| backends.retain(|_, hand| !hand.is_nothing()));
        self.0.retain(|_, backends| !backends.is_empty());
    }

    pub(super) fn until(&self) -> Option<SystemTime> {
        self.0.values().flat_map(BTreeMap::values).filter_map(Hand::until).min()
    }

    /// The configuration with the weights that were set.
    pub fn weigh(&self, mut config: Config) -> Config {
        for pool in &mut config.pools {
            let Some(hands) = self.0.get(&*pool.name) else { continue };
            let weight = |backend: &str| hands.get(backend)?.weight.as_ref().map(|set| set.value);
            if pool.backends.iter().all(|backend| weight(&backend.name).is_none()) {
                continue;
            }
            for backend in &mut Arc::make_mut(pool).backends {
                backend.weight = weight(&backend.name).unwrap_or(backend.weight);
            }
        }
        config
    }

    /// Applies the book to backends that were built anew or come back, before any of them can be picked, so that this
    /// has no consequences.
    pub fn apply(&self, snapshot: &Snapshot) {
        for pool in snapshot.pools.values() {
            for backend in &pool.backends {
                if let Some(it) = self.obey(backend) {
                    let (state, why) = (it.to.as_str(), it.why);
                    tracing::info!(pool = &*pool.name, backend = &*backend.name, "{state}: {why}");
                }
            }
        }
    }

    /// Applies the book's entry to a backend, if that entry is new to it.
    pub(super) fn obey(&self, backend: &Backend) -> Option<Transition> {
        let hand = self.of(&backend.pool, &backend.name).cloned().unwrap_or_default();
        if backend.status().hand == hand {
            return None;
        }
        transition::by_hand(backend, hand, Instant::now(), SystemTime::now())
    }
}
