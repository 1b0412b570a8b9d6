//! Building a pool from its configuration and the version before it. What stays the same stays the same object;
//! nothing that the version in use reads is changed here, for the reload may still be refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::backend::{Backend, Live, Status};
use super::slots::Places;
use super::tier::Tier;
use super::{Pool, Shared, narrow};
use crate::addr::BackendAddr;
use crate::config;

impl Pool {
    /// `previous` is the version in use of the pool of this name, if there is one.
    pub fn build(config: Arc<config::Pool>, previous: Option<&Pool>, workers: usize) -> Pool {
        let previous = previous.filter(|pool| pool.name == config.name);
        let shared: Arc<Shared> = previous.map(|pool| Arc::clone(&pool.shared)).unwrap_or_default();
        let mut places: Places = previous.map(|pool| pool.places.clone()).unwrap_or_default();
        let known = known_backends(previous);
        let mut make =
            |backend: &config::Backend| match known.get(&(&*backend.name, &backend.address)) {
                Some(old) => adopt(old, &config, backend),
                None => Arc::new(newcomer(&config, backend, &shared, &mut places, workers)),
            };
        let backends: Vec<Arc<Backend>> = config.backends.iter().map(&mut make).collect();
        places.trim();
        let tiers = build_tiers(&config, &backends, previous);
        Pool { name: Arc::clone(&config.name), config, backends, shared, tiers, places }
    }
}

/// The identity within a pool.
type Identity<'a> = (&'a str, &'a BackendAddr);

fn known_backends(previous: Option<&Pool>) -> HashMap<Identity<'_>, &Arc<Backend>> {
    let backends = previous.map(|pool| pool.backends.as_slice()).unwrap_or_default();
    backends.iter().map(|backend| ((&*backend.name, &backend.address), backend)).collect()
}

/// The same backend, with the settings of now.
fn adopt(old: &Arc<Backend>, pool: &config::Pool, backend: &config::Backend) -> Arc<Backend> {
    let new = Backend::new(pool, backend, Arc::clone(&old.live), Arc::clone(&old.shared));
    if new.has_settings_of(old) { Arc::clone(old) } else { Arc::new(new) }
}

/// A backend nobody knows yet, so its row may be written at once. The clocks are read here and not passed in, since
/// they only say when the row was made: no slow start at the start.
fn newcomer(
    pool: &config::Pool,
    backend: &config::Backend,
    shared: &Arc<Shared>,
    places: &mut Places,
    workers: usize,
) -> Backend {
    let status = Status::new(pool.health.probe != config::Probe::None, SystemTime::now());
    let live = Arc::new(Live::new(places.claim(), workers, status));
    let new = Backend::new(pool, backend, live, Arc::clone(shared));
    new.write_first_row(Instant::now());
    new
}

fn build_tiers(
    config: &config::Pool,
    backends: &[Arc<Backend>],
    previous: Option<&Pool>,
) -> Vec<Tier> {
    let mut indices: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (index, backend) in backends.iter().enumerate() {
        indices.entry(backend.tier).or_default().push(narrow(index));
    }
    let before = |number| previous?.tiers.iter().find(|tier| tier.number == number);
    indices
        .into_iter()
        .map(|(number, indices)| Tier::build(number, config, backends, indices, before(number)))
        .collect()
}
