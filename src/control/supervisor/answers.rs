//! What was found by names and files, and what it is not known of yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use crate::border::in_force::{LeftOut, StandIns};
use crate::border::plane::SETTLING;
use crate::border::snapshot::Snapshot;
use crate::config::{Answers, Config, Origin, Question};
use crate::control::discovery::Discovery;
use crate::data::pool;
use crate::telemetry::events::Events;

/// What was found, and the tasks that look.
pub struct Finds {
    pub discovery: Discovery,
    pub(super) answers: Answers,
    /// Backends of pools that now ask for their names in another way than before.
    pub(super) stand_ins: StandIns,
    /// Names of the start that have no outcome yet, not even a failure.
    pub(super) waiting: HashSet<Question>,
    /// Names that were never resolved, and since when they are asked for.
    unanswered: HashMap<Question, Instant>,
    /// When maitred stops waiting for the first of these tiers.
    pub(super) until: Option<Instant>,
    /// The last warning and its time, by pool.
    pub(super) warned: BTreeMap<Arc<str>, (LeftOut, Instant)>,
}

impl Finds {
    pub fn new(events: Arc<Events>) -> Finds {
        Finds {
            discovery: Discovery::new(events),
            answers: Answers::new(),
            stand_ins: StandIns::new(),
            waiting: HashSet::new(),
            unanswered: HashMap::new(),
            until: None,
            warned: BTreeMap::new(),
        }
    }

    /// The configuration with what is known already. Where nothing is known, it has the backends that were in force
    /// before, so that none is lost for a moment. Also returns these stand-ins, which are kept once the configuration
    /// is in force.
    pub fn fill(&mut self, mut config: Config, before: &Config) -> (Config, StandIns) {
        self.answers.extend(config.take_read());
        let stand_ins = config.stand_ins(before, &self.answers, &self.stand_ins);
        (config.with_found(&self.answers, &stand_ins).0, stand_ins)
    }

    /// If a tier's names were never resolved, maitred waits for them before a higher tier serves in its place, but
    /// not for too long. It does not wait if stand-ins serve for them, because then the tier's backends are known.
    /// Returns that tier, by pool.
    pub fn tiers(&mut self, snapshot: &Snapshot) -> Vec<(Arc<pool::Pool>, Option<u32>)> {
        let now = Instant::now();
        let before = std::mem::take(&mut self.unanswered);
        self.until = None;
        let mut tiers = Vec::new();
        for pool in snapshot.pools.values() {
            let mut lowest = None;
            for finder in pool.config.finders() {
                let Origin::Dns(question) = &finder.origin else { continue };
                if self.answers.contains_key(&finder.origin) {
                    continue;
                }
                let since = before.get(question).copied().unwrap_or(now);
                self.unanswered.insert(question.clone(), since);
                let until = since + SETTLING;
                if until > now && !self.stand_ins.contains_key(&pool.name) {
                    lowest = Some(lowest.map_or(finder.tier, |tier: u32| tier.min(finder.tier)));
                    self.until = Some(self.until.map_or(until, |first| first.min(until)));
                }
            }
            tiers.push((Arc::clone(pool), lowest));
        }
        tiers
    }

    /// Looks for what this snapshot needs, and forgets the rest.
    pub fn attend(&mut self, snapshot: &Snapshot) {
        let mut origins = HashSet::new();
        for pool in snapshot.pools.values() {
            let own = pool.config.finders().iter().map(|finder| finder.origin.clone());
            pool.shared.finding.attend(own.clone());
            origins.extend(own);
        }
        self.answers.retain(|origin, _| origins.contains(origin));
        self.warned.retain(|pool, _| snapshot.pools.contains_key(pool));
        self.discovery.apply(snapshot, &self.answers);
    }
}
