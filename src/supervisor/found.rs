//! What discovery found becomes part of the configuration in force: names by `discovery`, files by `file_watch`. A pool
//! keeps what was found for it over reloads, as long as it still asks for it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Supervisor;
use crate::config::{Answer, Answers, Backend, Config, LeftOut, Origin, Pool, Question};
use crate::discovery::{Discovery, Outcomes};
use crate::pool::finding::Failure;
use crate::snapshot::Snapshot;
use crate::telemetry::events::{EventKind, Events};

/// Between two warnings about what was found for a pool and is of no use.
const REPEAT: Duration = Duration::from_secs(60);

/// What was found, and who looks.
pub struct Finds {
    pub discovery: Discovery,
    answers: Answers,
    /// Of the start: not answered yet, not even by a failure.
    waiting: HashSet<Question>,
    /// By pool, what was warned of last, and when.
    warned: BTreeMap<Arc<str>, (LeftOut, Instant)>,
}

impl Finds {
    pub fn new(events: Arc<Events>) -> Finds {
        Finds {
            discovery: Discovery::new(events),
            answers: Answers::new(),
            waiting: HashSet::new(),
            warned: BTreeMap::new(),
        }
    }

    /// The configuration with what is known already, so that nobody loses a backend for a moment.
    pub fn fill(&mut self, mut config: Config) -> Config {
        self.answers.extend(config.take_read());
        config.with_found(&self.answers).0
    }

    /// Looks for what this snapshot wants, and forgets the rest.
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

impl Supervisor {
    /// Nobody is sent here before the names of the start were asked for once.
    pub(super) fn await_names(&mut self) {
        let config = Arc::clone(&self.plane.snapshot.load().config);
        self.finds.waiting = config.questions().cloned().collect();
        self.plane.set_settling(!self.finds.waiting.is_empty());
    }

    /// Waits for what was found. May be dropped while it waits.
    pub async fn next_found(&self) -> Outcomes {
        self.finds.discovery.next().await
    }

    /// Sessions and flows go on as they are; those on a backend that is gone, as `removed` says.
    pub fn renew_found(&mut self, outcomes: Outcomes) {
        for (question, outcome) in outcomes {
            self.finds.waiting.remove(&question);
            if let Some(answer) = outcome {
                self.finds.answers.insert(Origin::Dns(question), answer);
            }
        }
        self.apply_found();
        if self.finds.waiting.is_empty() {
            self.plane.set_settling(false);
        }
    }

    /// A file of backends was read. What is wrong with it is told by who asked.
    pub(super) fn renew_backends(
        &mut self,
        path: &Path,
        read: Result<Answer, Failure>,
    ) -> Result<(), String> {
        let origin = Origin::File(path.to_owned());
        let snapshot = self.plane.snapshot.load_full();
        let pools = snapshot.pools.values();
        let findings =
            pools.filter(|pool| pool.config.finders().iter().any(|it| it.origin == origin));
        let now = SystemTime::now();
        match read {
            Ok(answer) => {
                findings.for_each(|pool| drop(pool.shared.finding.succeeded(&origin, now)));
                self.finds.answers.insert(origin, Arc::new(answer));
                self.apply_found();
                Ok(())
            }
            Err(failure) => {
                for pool in findings {
                    pool.shared.finding.failed(&origin, &failure, now);
                }
                Err(failure.why)
            }
        }
    }

    fn apply_found(&mut self) {
        let before = self.base.pools.clone();
        let (config, changed, left_out) = self.base.with_found(&self.finds.answers);
        self.warn_of(left_out);
        if changed.is_empty() {
            return;
        }
        let now = config.pools.clone();
        if let Err(error) = self.reload(config) {
            self.events
                .warn(EventKind::Discovery, format!("what was found cannot be used: {error}"));
            return;
        }
        for name in changed {
            let of =
                |pools: &[Arc<Pool>]| pools.iter().find(|pool| pool.name == name).map(Arc::clone);
            if let (Some(before), Some(now)) = (of(&before), of(&now)) {
                let difference = difference(&before.backends, &now.backends);
                self.events.note_pool(&name, format!("{name}: {difference}"));
            }
        }
    }

    fn warn_of(&mut self, left_out: Vec<LeftOut>) {
        let now = Instant::now();
        for left_out in left_out {
            let known = self.finds.warned.get(&left_out.pool);
            if known.is_some_and(|(what, when)| *what == left_out || now - *when < REPEAT) {
                continue;
            }
            let LeftOut { pool, address, why, count } = &left_out;
            let more = match count {
                1 => String::new(),
                count => format!(", and {} more are of no use", count - 1),
            };
            let what = format!("{pool}: {address} was found, but {why}{more}");
            self.events.warn(EventKind::Discovery, what);
            self.finds.warned.insert(Arc::clone(pool), (left_out, now));
        }
    }
}

/// In one line.
fn difference(before: &[Backend], now: &[Backend]) -> String {
    let by_name = |backends: &[Backend]| -> BTreeMap<Arc<str>, Backend> {
        backends.iter().map(|it| (Arc::clone(&it.name), it.clone())).collect()
    };
    let (before, now) = (by_name(before), by_name(now));
    let is_same = |it: &Backend, other: &Backend| it.address == other.address;
    let stays = |it: &Backend, all: &BTreeMap<Arc<str>, Backend>| {
        all.get(&it.name).is_some_and(|other| is_same(it, other))
    };
    let added = now.values().filter(|it| !stays(it, &before)).collect();
    let gone = before.values().filter(|it| !stays(it, &now)).collect();
    let changed = now.values().filter(|it| stays(it, &before) && before.get(&it.name) != Some(it));
    let lists = [(added, "added"), (gone, "gone"), (changed.collect(), "changed")];
    let parts: Vec<String> = lists.iter().filter_map(|(list, what)| named(list, what)).collect();
    if parts.is_empty() {
        "the same backends in another order".to_owned()
    } else {
        parts.join(", ")
    }
}

/// `2 backends added (a, b)`, with the first few.
fn named(backends: &Vec<&Backend>, what: &str) -> Option<String> {
    const NAMED: usize = 3;
    let count = backends.len();
    let plural = if count == 1 { "" } else { "s" };
    let names: Vec<&str> = backends.iter().take(NAMED).map(|it| &*it.name).collect();
    let more = if count > NAMED { ", …" } else { "" };
    (count > 0).then(|| format!("{count} backend{plural} {what} ({}{more})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::BackendAddr;

    #[test]
    fn a_difference_is_told_in_one_line() {
        let backend = |last: u8, weight| {
            let address = BackendAddr::Inet(([192, 0, 2, last], 1).into());
            Backend { name: address.to_string().into(), address, weight, ..Backend::default() }
        };
        let before = [backend(1, 1), backend(2, 1)];
        let told = |now: &[Backend]| difference(&before, now);
        assert_eq!(
            told(&[backend(1, 1), backend(3, 1), backend(4, 1)]),
            "2 backends added (192.0.2.3:1, 192.0.2.4:1), 1 backend gone (192.0.2.2:1)"
        );
        assert_eq!(told(&[backend(1, 1)]), "1 backend gone (192.0.2.2:1)");
        assert_eq!(told(&[backend(2, 1), backend(1, 9)]), "1 backend changed (192.0.2.1:1)");
        assert_eq!(told(&[backend(2, 1), backend(1, 1)]), "the same backends in another order");
    }
}
