//! The sessions and the weight of all members that are up, without reading each of them: bounded load needs this at
//! every pick. Chunks tally their rows (`slots.rs`); here their tallies are added up, sixteen of them for a thousand
//! backends.
//!
//! At rest the sum is exactly what the rows say. A session that another thread places or gives back at this very
//! moment may be missed or still counted, as it may be when rows are read one after the other.
//!
//! If a chunk also has rows of others (of another tier, of backends that a reload adds, of removed ones whose
//! sessions have not ended), its tallies say nothing about the members, and their rows in it are read. So are they
//! with `Weights::Forced`, which only counts when no backend is up.

use std::sync::Arc;

use super::members::Members;
use super::slots::{Chunk, Tallies, Weights};

pub struct Tally {
    /// With the members' rows in each, a bit each.
    chunks: Vec<(Arc<Chunk>, u64)>,
}

/// Sessions and weight of all members that are up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub sessions: u64,
    pub weight: u64,
}

impl Tally {
    /// From now on the members' rows are tallied. This only changes the cost of a session, so a version of the pool
    /// that is never used may ask for it.
    pub fn begin(members: &Members) -> Tally {
        let chunks = members.chunks();
        for (chunk, mine) in &chunks {
            rows(*mine).for_each(|row| chunk.tally(row));
        }
        Tally { chunks }
    }

    pub fn total(&self, weights: Weights) -> Total {
        let mut all = Tallies { sessions: 0, weight: 0 };
        for (chunk, mine) in &self.chunks {
            let tallied = match weights {
                Weights::Effective => chunk.tallies(*mine),
                Weights::Forced => None,
            };
            let tallies = tallied.unwrap_or_else(|| look_at(chunk, *mine, weights));
            all.sessions += tallies.sessions;
            all.weight += tallies.weight;
        }
        // Below 0 only while a change is under way, and then by what it is about to add.
        let whole = |sum: i64| u64::try_from(sum).unwrap_or(0);
        Total { sessions: whole(all.sessions), weight: whole(all.weight) }
    }
}

fn look_at(chunk: &Chunk, mine: u64, weights: Weights) -> Tallies {
    let mut tallies = Tallies { sessions: 0, weight: 0 };
    for row in rows(mine) {
        let hot = &chunk.rows()[row];
        let load = hot.load();
        let weight = hot.weight_of(load, weights);
        if weight > 0 {
            tallies.sessions += i64::from(load.sessions());
            tallies.weight += i64::from(weight);
        }
    }
    tallies
}

/// The bits that are set, lowest first.
fn rows(mut mine: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let row = usize::try_from(mine.trailing_zeros()).ok().filter(|_| mine != 0)?;
        mine &= mine - 1;
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::super::backend::BackendState;
    use super::super::slots::CHUNK;
    use super::super::tests::{build, config_of, pick, sessions, set_state};
    use super::super::{Picked, Pool};
    use super::*;
    use crate::config::{self, Balance};
    use proptest::prelude::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::{Duration, Instant, SystemTime};

    fn bounded(weights: &[u32]) -> config::Pool {
        let mut config = config_of(Balance::ConsistentHash, weights);
        config.hash.bounded_load = Some(125);
        config.hash.table_size = 251;
        config
    }

    /// The tallies of each tier, as a picker has them, without beginning any.
    fn tallies(pool: &Pool) -> Vec<Tally> {
        let numbers: std::collections::BTreeSet<u32> =
            pool.backends.iter().map(|it| it.tier).collect();
        let of_tier = |number| {
            let indices = (0..).zip(&pool.backends).filter(|(_, it)| it.tier == number);
            let indices = indices.map(|(index, _)| index).collect();
            Tally { chunks: Members::new(&pool.backends, indices).chunks() }
        };
        numbers.into_iter().map(of_tier).collect()
    }

    /// Sums over each backend's own values.
    fn looked_at(pool: &Pool, tier: u32) -> Total {
        let mut total = Total::default();
        for backend in pool.backends.iter().filter(|backend| backend.tier == tier) {
            let load = backend.live.slot.hot().load();
            if load.weight() > 0 {
                total.sessions += u64::from(load.sessions());
                total.weight += u64::from(load.weight());
            }
        }
        total
    }

    /// Tallies equal the rows: of each tier, and of each chunk, whichever backends have rows in it.
    fn assert_exact(pool: &Pool) {
        for tally in tallies(pool) {
            for (chunk, mine) in &tally.chunks {
                let of_all = chunk.tallies(u64::MAX).unwrap();
                let shares = chunk.rows().iter().map(|row| row.load().share());
                let (sessions, weight) = shares.fold((0, 0), |(sessions, weight), share| {
                    (sessions + i64::from(share.sessions), weight + i64::from(share.weight))
                });
                assert_eq!((of_all.sessions, of_all.weight), (sessions, weight));
                assert!(*mine != 0);
            }
            let first = rows(tally.chunks[0].1).next().unwrap();
            let tier = pool.backends.iter().find(|backend| {
                let slot = &backend.live.slot;
                Arc::ptr_eq(slot.chunk(), &tally.chunks[0].0) && slot.index() == first
            });
            assert_eq!(tally.total(Weights::Effective), looked_at(pool, tier.unwrap().tier));
        }
    }

    /// Whether a total needs no read of any row.
    fn is_quick(pool: &Pool) -> bool {
        tallies(pool)
            .iter()
            .all(|it| it.chunks.iter().all(|(chunk, mine)| chunk.tallies(*mine).is_some()))
    }

    fn reload(pool: &Pool, config: config::Pool) -> Pool {
        let pool = Pool::build(Arc::new(config), Some(pool), 2);
        pool.activate(Instant::now(), SystemTime::now());
        pool
    }

    #[test]
    fn only_sessions_on_those_that_are_up_count() {
        let pool = build(bounded(&[1; 3]));
        let permits: Vec<Picked> = (0..30).map(|number| pick(&pool, number).unwrap()).collect();
        let [tally] = tallies(&pool).try_into().ok().unwrap();
        let unit = u64::from(super::super::slots::WEIGHT_UNIT);
        let total = |sessions, weight: u64| Total { sessions, weight: weight * unit };
        assert_eq!(tally.total(Weights::Effective), total(30, 3));
        let on_first = u64::from(sessions(&pool)[0]);
        set_state(&pool, 0, BackendState::Down);
        assert_eq!(tally.total(Weights::Effective), total(30 - on_first, 2));
        // Sessions that end on a backend that is down change nothing, and the rest counts when it is up again.
        let mut permits = permits;
        let at = permits.iter().position(|picked| picked.index == 0).unwrap();
        drop(permits.swap_remove(at));
        assert_eq!(tally.total(Weights::Effective), total(30 - on_first, 2));
        assert_eq!(tally.total(Weights::Forced), total(29, 3));
        set_state(&pool, 0, BackendState::Up);
        assert_eq!(tally.total(Weights::Effective), total(29, 3));
        drop(permits);
        assert_eq!(tally.total(Weights::Effective), total(0, 3));
    }

    #[test]
    fn no_row_is_looked_at_unless_others_are_in_its_chunk() {
        let config = bounded(&[1; 150]);
        let pool = build(config.clone());
        assert!(is_quick(&pool));
        let mut sessions = (0..).map(|number| pick(&pool, number).unwrap());
        let held = sessions.find(|picked| picked.index == 3).unwrap();
        let mut fewer = config.clone();
        fewer.backends.drain(..CHUNK);
        // While a new version is built and not in use yet, the version in use is as quick as before; so it is when a
        // reload adds some.
        let after = Pool::build(Arc::new(fewer.clone()), Some(&pool), 2);
        assert!(is_quick(&pool) && is_quick(&after));
        let mut more = bounded(&[1; 200]);
        more.backends.iter_mut().skip(150).for_each(|backend| backend.tier = 1);
        let mixed = reload(&pool, more);
        assert!(!is_quick(&mixed));
        assert_exact(&mixed);
        drop(mixed);
        assert!(is_quick(&pool), "those that were added are gone");
        drop((after, held));
        assert_exact(&pool);
    }

    #[test]
    fn a_pool_that_bounds_nothing_tallies_nothing_until_a_reload_makes_it() {
        let plain = config_of(Balance::ConsistentHash, &[1, 2, 3]);
        let pool = build(plain);
        let permits: Vec<Picked> = (0..30).map(|number| pick(&pool, number).unwrap()).collect();
        let chunk = pool.backends[0].live.slot.chunk();
        assert_eq!(chunk.tallies(u64::MAX), Some(Tallies { sessions: 0, weight: 0 }));
        let pool = reload(&pool, bounded(&[1, 2, 3]));
        assert_eq!(looked_at(&pool, 0).sessions, 30);
        assert_exact(&pool);
        drop(permits);
        assert_eq!(looked_at(&pool, 0).sessions, 0);
        assert_exact(&pool);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pick(u32),
        GiveBack(prop::sample::Index),
        /// A session that ends in a panic.
        Panic(u32),
        State(prop::sample::Index, prop::sample::Index),
        SlowStart(u64),
        /// Which backends stay (a bit each), with weights and tiers from a seed; whether it is swapped in or refused.
        Reload {
            stay: u32,
            seed: u32,
            is_refused: bool,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => any::<u32>().prop_map(Step::Pick),
            6 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            1 => any::<u32>().prop_map(Step::Panic),
            4 => any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(who, what)| Step::State(who, what)),
            1 => (0..120_u64).prop_map(Step::SlowStart),
            2 => any::<(u32, u32, bool)>()
                .prop_map(|(stay, seed, is_refused)| Step::Reload { stay, seed, is_refused }),
        ]
    }

    /// Up to ten of twelve backends, different ones each time, in up to three tiers, with weights from 0 to 4.
    fn reloaded(stay: u32, seed: u32) -> config::Pool {
        let digit = |number: u32, base: u32| seed.rotate_left(number * 5) % base;
        let weights: Vec<u32> = (0..12).map(|number| digit(number, 5)).collect();
        let mut config = bounded(&weights);
        config.slow_start = Some(Duration::from_secs(100));
        let mut number = 0;
        config.backends.retain_mut(|backend| {
            backend.tier = digit(number, 3);
            backend.max_sessions = (digit(number, 4) == 0).then_some(3);
            number += 1;
            number == 1 || stay >> number & 1 == 1
        });
        config
    }

    proptest! {
        #[test]
        fn tallies_are_exact_whatever_happens(
            is_bounded in any::<bool>(), steps in prop::collection::vec(step(), 1..80)
        ) {
            let mut first = reloaded(u32::MAX, 1);
            first.hash.bounded_load = is_bounded.then_some(125);
            let mut pool = build(first);
            // Once any version of the pool is bounded, all its rows are tallied.
            let mut is_bounded = is_bounded;
            let mut permits: Vec<Picked> = Vec::new();
            for step in steps {
                match step {
                    Step::Pick(number) => permits.extend(pick(&pool, number)),
                    Step::GiveBack(_) if permits.is_empty() => {}
                    Step::GiveBack(which) => drop(permits.swap_remove(which.index(permits.len()))),
                    Step::Panic(number) => {
                        let session = || {
                            let _picked = pick(&pool, number);
                            std::panic::resume_unwind(Box::new("a session fails"));
                        };
                        assert!(catch_unwind(AssertUnwindSafe(session)).is_err());
                    }
                    Step::State(who, what) => {
                        set_state(&pool, who.index(pool.backends.len()), *what.get(&BackendState::ALL));
                    }
                    Step::SlowStart(seconds) => pool.refresh_weights(Instant::now() + Duration::from_secs(seconds)),
                    Step::Reload { stay, seed, is_refused } => {
                        let next = Pool::build(Arc::new(reloaded(stay, seed)), Some(&pool), 2);
                        if is_bounded {
                            assert_exact(&pool);
                        }
                        if !is_refused {
                            next.activate(Instant::now(), SystemTime::now());
                            pool = next;
                            is_bounded = true;
                        }
                    }
                }
                if is_bounded {
                    assert_exact(&pool);
                }
            }
            drop(permits);
            if is_bounded {
                assert_exact(&pool);
            }
            assert!(sessions(&pool).iter().all(|count| *count == 0));
        }
    }

    /// Picks, ends, weights, states and reloads all at once: nothing is lost, and at rest nothing is left.
    #[test]
    fn tallies_are_exact_over_threads() {
        let config = bounded(&[2; 100]);
        let first = build(config.clone());
        let current = arc_swap::ArcSwap::from_pointee(first);
        let current = &current;
        std::thread::scope(|scope| {
            let pick_and_keep = |thread: u32| {
                let mut permits: Vec<Picked> = Vec::new();
                for number in 0..3_000_u32 {
                    permits.extend(pick(&current.load(), number * 3 + thread));
                    if permits.len() > 50 {
                        permits.swap_remove(number as usize % 50);
                    }
                }
                permits
            };
            let pickers: Vec<_> = (0..3).map(|n| scope.spawn(move || pick_and_keep(n))).collect();
            for turn in 0..100_u32 {
                let number = turn as usize;
                let pool = current.load_full();
                set_state(&pool, number % 90, BackendState::ALL[number % 6]);
                let mut next = config.clone();
                next.backends.iter_mut().for_each(|backend| backend.weight = turn % 4);
                next.backends
                    .iter_mut()
                    .step_by(number % 7 + 1)
                    .for_each(|backend| backend.tier = 1);
                next.backends.truncate(90 + number % 11);
                current.store(Arc::new(reload(&pool, next)));
            }
            let permits: Vec<_> = pickers.into_iter().map(|it| it.join().unwrap()).collect();
            assert_exact(&current.load());
            drop(permits);
        });
        let pool = current.load_full();
        assert_exact(&pool);
        assert!(sessions(&pool).iter().all(|count| *count == 0));
        let totals = tallies(&pool).into_iter().map(|tally| tally.total(Weights::Effective));
        assert!(totals.into_iter().all(|total| total.sessions == 0));
    }
}
