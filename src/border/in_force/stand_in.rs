//! Who stands in for names that were never answered for: a reload that asks for a pool's backends in another way (a name
//! instead of an address, other servers) takes none of them away until there is an answer. Pure.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::config::{Answers, Backend, Config, Origin, Pool, Question};

/// A backend of an earlier version of its pool.
#[derive(Clone, Debug, PartialEq)]
pub struct StandIn {
    backend: Backend,
    /// It goes when each of these was answered for.
    until: Vec<Origin>,
}

/// By pool; those that need none are missing.
pub type StandIns = BTreeMap<Arc<str>, Vec<StandIn>>;

/// Those for what `origin` may hold.
pub(super) fn of(all: &[StandIn], origin: &Origin) -> Vec<Backend> {
    let of_origin = all.iter().filter(|it| it.until.contains(origin));
    of_origin.map(|it| it.backend.clone()).collect()
}

impl Config {
    /// For what this configuration asks for and `before` did not, out of what `before` had and those who stood in there.
    pub fn stand_ins(&self, before: &Config, answers: &Answers, known: &StandIns) -> StandIns {
        let by_name: BTreeMap<&str, &Arc<Pool>> =
            before.pools.iter().map(|pool| (&*pool.name, pool)).collect();
        let mut stand_ins = StandIns::new();
        for pool in self.pools.iter().filter(|pool| pool.discovery.is_some()) {
            let Some(before) = by_name.get(&*pool.name) else { continue };
            let known = known.get(&pool.name).map_or(&[][..], Vec::as_slice);
            let of_pool = pool.stand_ins(before, answers, known);
            if !of_pool.is_empty() {
                stand_ins.insert(Arc::clone(&pool.name), of_pool);
            }
        }
        stand_ins
    }
}

impl Pool {
    fn stand_ins(&self, before: &Pool, answers: &Answers, known: &[StandIn]) -> Vec<StandIn> {
        let now: HashSet<&Origin> = self.finders().iter().map(|it| &it.origin).collect();
        let was: HashSet<&Origin> = before.finders().iter().map(|it| &it.origin).collect();
        let is_open = |origin: &Origin| now.contains(origin) && !answers.contains_key(origin);
        let new: Vec<&Origin> =
            now.iter().copied().filter(|it| !was.contains(it) && is_open(it)).collect();
        if new.is_empty() && known.is_empty() {
            return Vec::new();
        }
        // What was found by a name waits for that name, if that is asked for still; everything else for all of them.
        let instead = |of: Option<&Origin>| -> Vec<Origin> {
            let same = |it: &&&Origin| of.is_some_and(|of| asks_the_same(it, of));
            let same: Vec<&&Origin> = new.iter().filter(same).collect();
            let instead = if same.is_empty() { new.iter().collect() } else { same };
            instead.into_iter().map(|it| (*it).clone()).collect()
        };
        let listed = before.discovery.as_ref().map_or(&before.backends, |it| &it.listed);
        let listed = listed.iter().map(|it| (it.clone(), instead(None)));
        let gone = before.finders().iter().filter(|finder| !now.contains(&finder.origin));
        let found = gone.flat_map(|finder| {
            let answer = answers.get(&finder.origin);
            let found = answer.map(|answer| finder.backends(answer, before.balance));
            let until = instead(Some(&finder.origin));
            found.unwrap_or_default().into_iter().map(move |it| (it, until.clone()))
        });
        let known = known.iter().map(|it| {
            let mut until: Vec<Origin> =
                it.until.iter().filter(|it| is_open(it)).cloned().collect();
            if let Some(gone) = it.until.iter().find(|it| !now.contains(it)) {
                until.extend(instead(Some(gone)));
            }
            (it.backend.clone(), until)
        });
        let stays = self.discovery.as_ref().map_or(&[][..], |it| &it.listed);
        let is_listed = |backend: &Backend| {
            stays.iter().any(|it| it.name == backend.name || it.address == backend.address)
        };
        let all = listed.chain(found).chain(known);
        all.filter(|(backend, until)| !until.is_empty() && !is_listed(backend))
            .map(|(backend, until)| StandIn { backend, until })
            .collect()
    }
}

/// Of whomever it is asked.
fn asks_the_same(a: &Origin, b: &Origin) -> bool {
    match (a, b) {
        (Origin::Dns(a), Origin::Dns(b)) => {
            let what = |it: &Question| (it.name.clone(), it.record);
            what(a) == what(b)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::border::addr::BackendAddr;
    use crate::config::{Answer, Asked, Discovery, Finder};

    fn backend(last: u8) -> Backend {
        let address = BackendAddr::Inet(([192, 0, 2, last], 1).into());
        Backend { name: address.to_string().into(), address, ..Backend::default() }
    }

    fn name(name: &str, server: u8) -> Origin {
        let servers = vec![([127, 0, 0, server], 53).into()];
        Origin::Dns(Question { name: name.to_owned(), record: Asked::Address, servers })
    }

    fn answer(last: u8) -> Arc<Answer> {
        Arc::new(Answer::Addresses(vec![[192, 0, 2, last].into()]))
    }

    /// A pool that lists these backends and asks for these names.
    fn config(listed: &[u8], origins: &[Origin]) -> Config {
        let listed: Vec<Backend> = listed.iter().map(|last| backend(*last)).collect();
        let finder =
            |it: &Origin| Finder { origin: it.clone(), port: Some(1), ..Finder::default() };
        let finders = origins.iter().map(finder).collect();
        let discovery = Discovery { listed: listed.clone(), finders };
        let discovery = (!origins.is_empty()).then(|| Arc::new(discovery));
        let pool = Pool { backends: listed, discovery, ..Pool::default() };
        Config { pools: vec![Arc::new(pool)], ..Config::default() }
    }

    /// Last figures of the addresses that are there then, and who stands in from there on.
    fn then(
        now: &Config,
        before: &Config,
        answers: &Answers,
        known: &StandIns,
    ) -> (Vec<u8>, StandIns) {
        let stand_ins = now.stand_ins(before, answers, known);
        let (filled, _, left_out) = now.with_found(answers, &stand_ins);
        assert!(left_out.is_empty(), "{left_out:?}");
        let last = |it: &Backend| match it.address.ip() {
            Some(std::net::IpAddr::V4(ip)) => ip.octets()[3],
            _ => 0,
        };
        (filled.pools[0].backends.iter().map(last).collect(), stand_ins)
    }

    #[test]
    fn an_address_stays_until_the_name_in_its_place_was_answered_for() {
        let (before, now) = (config(&[1, 2], &[]), config(&[2], &[name("db", 1)]));
        let mut answers = Answers::new();
        let (there, known) = then(&now, &before, &answers, &StandIns::new());
        assert_eq!(there, [1, 2], "where the name stands");
        // Whatever else is reloaded meanwhile; but what an operator takes out then is out.
        let (there, known) = then(&now, &now, &answers, &known);
        assert_eq!(there, [1, 2]);
        assert_eq!(then(&config(&[], &[name("db", 1)]), &now, &answers, &known).0, [1]);
        answers.insert(name("db", 1), answer(3));
        let (there, known) = then(&now, &now, &answers, &known);
        assert_eq!((there, known.len()), (vec![3, 2], 0));
    }

    #[test]
    fn each_name_keeps_what_it_found_when_other_servers_are_asked() {
        let before = config(&[], &[name("a", 1), name("b", 1)]);
        let now = config(&[], &[name("a", 2), name("b", 2)]);
        let mut answers = Answers::from([(name("a", 1), answer(1)), (name("b", 1), answer(2))]);
        let (there, known) = then(&now, &before, &answers, &StandIns::new());
        assert_eq!(there, [1, 2]);
        answers.insert(name("a", 2), answer(3));
        assert_eq!(then(&now, &now, &answers, &known).0, [3, 2]);
        // The servers were mistyped, and are again.
        let again = config(&[], &[name("a", 2), name("b", 3)]);
        assert_eq!(then(&again, &now, &answers, &known).0, [3, 2]);
    }

    #[test]
    fn nobody_stands_in_for_what_was_answered_for_or_is_not_new() {
        let answers = Answers::from([(name("a", 1), answer(1))]);
        let (before, now) = (config(&[7], &[]), config(&[], &[name("a", 1)]));
        assert_eq!(then(&now, &before, &answers, &StandIns::new()).0, [1]);
        let before = config(&[7], &[name("typo", 1)]);
        let now = config(&[], &[name("typo", 1)]);
        assert!(then(&now, &before, &answers, &StandIns::new()).0.is_empty(), "7 was taken out");
    }
}
