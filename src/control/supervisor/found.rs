//! Applies what discovery found to the configuration in force: names from `discovery`, files from `file_watch`. A
//! pool keeps what was found for it over reloads, as long as it still asks the same question.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Supervisor;
use crate::border::in_force::{LeftOut, StandIns};
use crate::border::plane::SETTLING;
use crate::config::{Answer, Backend, Finder, Origin, Pool};
use crate::control::discovery::Outcomes;
use crate::data::pool::finding::Failure;
use crate::telemetry::events::EventKind;

/// Between two warnings about addresses that were found for a pool and cannot be used.
const REPEAT: Duration = Duration::from_secs(60);

impl Supervisor {
    /// No balancer should send clients here before each name of the start was asked for once.
    pub(super) fn await_names(&mut self) {
        let config = Arc::clone(&self.plane.snapshot.load().config);
        self.finds.waiting = config.questions().cloned().collect();
        self.plane.set_settling(!self.finds.waiting.is_empty());
    }

    /// Waits for answers, or until the wait for a tier is over. May be dropped while it waits.
    pub async fn next_found(&self) -> Outcomes {
        let next = self.finds.discovery.next();
        match self.finds.until {
            None => next.await,
            Some(until) => tokio::time::timeout_at(until.into(), next).await.unwrap_or_default(),
        }
    }

    /// Sessions and flows go on; those on a backend that is gone follow `removed`.
    pub fn renew_found(&mut self, outcomes: Outcomes) {
        for (question, outcome) in outcomes {
            self.finds.waiting.remove(&question);
            if let Some(answer) = outcome {
                self.finds.answers.insert(Origin::Dns(question), answer);
            }
        }
        self.apply_found();
        self.wait_for_tiers();
        if self.finds.waiting.is_empty() {
            self.plane.set_settling(false);
        }
    }

    /// Notes which names were answered, and which are no longer waited for.
    fn wait_for_tiers(&mut self) {
        let snapshot = self.plane.snapshot.load_full();
        for (pool, tier) in self.finds.tiers(&snapshot) {
            let has_waited = pool.waits_for_tier();
            pool.wait_for_tier(tier);
            let answers = &self.finds.answers;
            let is_open = |it: &Finder| !answers.contains_key(&it.origin);
            if has_waited && tier.is_none() && pool.config.finders().iter().any(is_open) {
                let what = format!(
                    "{}: names of a lower tier were not resolved in {} s; a higher tier serves in its place",
                    pool.name,
                    SETTLING.as_secs()
                );
                self.events.warn(EventKind::Discovery, what);
            }
        }
    }

    /// Reports the backends that stay although they are neither listed nor found now.
    pub(super) fn note_stand_ins(&mut self, now: StandIns) {
        for (pool, of_pool) in &now {
            if !self.finds.stand_ins.contains_key(pool) {
                let count = of_pool.len();
                let (plural, verb) = if count == 1 { ("", "stays") } else { ("s", "stay") };
                let what = format!(
                    "{pool}: {count} backend{plural} {verb} until the names that replace them are resolved"
                );
                self.events.note(EventKind::Discovery, what);
            }
        }
        self.finds.stand_ins = now;
    }

    /// A file of backends was read. The caller reports what is wrong with it.
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
        let (config, changed, left_out) =
            self.base.with_found(&self.finds.answers, &self.finds.stand_ins);
        self.warn_of(left_out);
        if changed.is_empty() {
            return;
        }
        let now = config.pools.clone();
        if let Err(error) = self.reload(config) {
            self.events
                .warn(EventKind::Discovery, format!("the found backends cannot be used: {error}"));
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
                count => format!(", and {} more cannot be used", count - 1),
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
    use crate::border::addr::BackendAddr;

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
