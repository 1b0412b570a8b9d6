//! Builds a pool from its configuration and its previous version. What stays the same stays the same object. Nothing
//! that the version in use reads is changed here, because the reload may still be refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::backend::{Backend, Live, Status};
use super::part::Seat;
use super::pick::narrow;
use super::shared::Shared;
use super::slots::Places;
use super::tier::Tier;
use super::{Departed, Pool};
use crate::border::addr::BackendAddr;
use crate::config;

impl Pool {
    /// `previous` is the version of this pool that is in use, if there is one.
    pub fn build(config: Arc<config::Pool>, previous: Option<&Pool>, workers: usize) -> Pool {
        let previous = previous.filter(|pool| pool.name == config.name);
        let shared = previous
            .map_or_else(|| Arc::new(Shared::new(workers)), |pool| Arc::clone(&pool.shared));
        let mut places: Places = previous.map(|pool| pool.places.clone()).unwrap_or_default();
        let known = known_backends(previous);
        let departed = departed_backends(previous);
        let mut make = |backend: &config::Backend| {
            let identity = Identity { name: &backend.name, address: &backend.address };
            if let Some(old) = known.get(&identity) {
                return adopt(old, &config, backend);
            }
            let live = match departed.get(&identity) {
                Some(live) => Arc::clone(live),
                None => newcomer(&config, &mut places, workers),
            };
            let new = Backend::new(&config, backend, live, Arc::clone(&shared));
            new.write_first_row(Instant::now());
            Arc::new(new)
        };
        let backends: Vec<Arc<Backend>> = config.backends.iter().map(&mut make).collect();
        places.trim();
        let tiers = build_tiers(&config, &backends, previous);
        let departed = still_departed(previous, &config);
        Pool { name: Arc::clone(&config.name), config, backends, shared, tiers, places, departed }
    }
}

/// What makes a backend the same one within its pool.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Identity<'a> {
    name: &'a str,
    address: &'a BackendAddr,
}

impl Departed {
    fn identity(&self) -> Identity<'_> {
        Identity { name: &self.name, address: &self.address }
    }
}

fn known_backends(previous: Option<&Pool>) -> HashMap<Identity<'_>, &Arc<Backend>> {
    let backends = previous.map(|pool| pool.backends.as_slice()).unwrap_or_default();
    backends
        .iter()
        .map(|backend| (Identity { name: &backend.name, address: &backend.address }, backend))
        .collect()
}

/// The same backend, with the present settings.
fn adopt(old: &Arc<Backend>, pool: &config::Pool, backend: &config::Backend) -> Arc<Backend> {
    let new = Backend::new(pool, backend, Arc::clone(&old.live), Arc::clone(&old.shared));
    if new.has_settings_of(old) { Arc::clone(old) } else { Arc::new(new) }
}

/// The state of a new backend, so its row may be written at once. The clocks are read here and not passed in, because
/// they only say when the row was made: there is no slow start at the start.
fn newcomer(pool: &config::Pool, places: &mut Places, workers: usize) -> Arc<Live> {
    let mut status = Status::new(pool.health.probe != config::Probe::None, SystemTime::now());
    if pool.single != config::Single::None {
        status.part.seat = Seat::LeftOut("single: not decided yet".to_owned());
    }
    Arc::new(Live::new(places.claim(), workers, status))
}

/// Removed backends that still have sessions. One that comes back keeps its status, too; probes go on from there.
fn departed_backends(previous: Option<&Pool>) -> HashMap<Identity<'_>, Arc<Live>> {
    let departed = previous.map(|pool| pool.departed.as_slice()).unwrap_or_default();
    departed.iter().filter_map(|it| Some((it.identity(), it.live.upgrade()?))).collect()
}

/// What was removed before and is not back, and what is removed now. Weak, so it keeps none of them alive.
fn still_departed(previous: Option<&Pool>, config: &config::Pool) -> Vec<Departed> {
    let Some(previous) = previous else { return Vec::new() };
    let present: HashSet<Identity> = config
        .backends
        .iter()
        .map(|backend| Identity { name: &backend.name, address: &backend.address })
        .collect();
    let now = previous.backends.iter().map(|backend| Departed {
        name: Arc::clone(&backend.name),
        address: backend.address.clone(),
        live: Arc::downgrade(&backend.live),
    });
    let before = previous.departed.iter().filter(|it| it.live.strong_count() > 0).cloned();
    before.chain(now).filter(|it| !present.contains(&it.identity())).collect()
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
