//! Whole pools: tiers, limits, tried backends, reloads, waking. The algorithms' own tests are beside them.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::backend::BackendState;
use super::queue::Turn;
use super::slots::{WEIGHT_UNIT, Weights};
use super::{Held, PickError, PickKey, Picked, Pool, Tried};
use crate::border::addr::{BackendAddr, ClientAddr};
use crate::config::{self, Balance, WhenNoneUp};
use crate::sys::clock::Moment;

pub const ALL: [Balance; 8] = [
    Balance::ConsistentHash,
    Balance::FirstAvailable,
    Balance::IpHash,
    Balance::LeastConnections,
    Balance::LeastLatency,
    Balance::Random,
    Balance::RoundRobin,
    Balance::TwoChoices,
];

/// Backends `b0`, `b1`, … with these weights; without probes, so they are up.
pub fn config_of(balance: Balance, weights: &[u32]) -> config::Pool {
    let mut pool = config::Pool { balance, ..config::Pool::default() };
    pool.health.probe = config::Probe::None;
    pool.hash.table_size = 4_093;
    pool.backends = weights
        .iter()
        .enumerate()
        .map(|(number, weight)| config::Backend {
            name: format!("b{number}").into(),
            address: BackendAddr::Inet(address(number)),
            weight: *weight,
            ..config::Backend::default()
        })
        .collect();
    pool
}

fn address(number: usize) -> SocketAddr {
    let [high, low] = u16::try_from(number).unwrap().to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 5432))
}

/// The seed is new in every run, and a failure prints it.
pub fn build(config: config::Pool) -> Pool {
    let seed = fastrand::u64(..);
    fastrand::seed(seed);
    println!("seed of chance: {seed}");
    Pool::build(Arc::new(config), None, 2)
}

pub fn pool_of(balance: Balance, weights: &[u32]) -> Pool {
    build(config_of(balance, weights))
}

pub fn client(number: u32) -> PickKey<'static> {
    let port = (number % 50_000) as u16 + 1_024;
    PickKey::new(ClientAddr::new(SocketAddr::from((number.to_be_bytes(), port))))
}

pub fn pick(pool: &Pool, number: u32) -> Result<Picked, PickError> {
    pool.pick(&client(number), &Tried::default(), Instant::now())
}

pub fn set_state(pool: &Pool, index: usize, state: BackendState) -> bool {
    pool.backends[index].set_state(state, "by the test", Instant::now(), SystemTime::now())
}

pub fn sessions(pool: &Pool) -> Vec<u32> {
    pool.backends.iter().map(|b| b.live.slot.hot().in_flight()).collect()
}

/// How often each backend is picked, if every session ends at once.
pub fn counts(pool: &Pool, picks: u32) -> Vec<u32> {
    let mut counts = vec![0; pool.backends.len()];
    for number in 0..picks {
        counts[pick(pool, number).unwrap().index as usize] += 1;
    }
    assert!(sessions(pool).iter().all(|count| *count == 0), "every permit was given back");
    counts
}

/// Picks until none is left, each time noting the last as tried.
fn try_all(pool: &Pool) -> (Vec<u32>, PickError) {
    let mut tried = Tried::default();
    loop {
        match pool.pick(&client(1), &tried, Instant::now()) {
            Ok(picked) => tried.push(picked.index),
            Err(why) => return (tried.iter().collect(), why),
        }
    }
}

#[test]
fn every_algorithm_tries_each_backend_once_and_the_tiers_in_order() {
    for balance in ALL {
        let mut config = config_of(balance, &[1, 2, 3, 0, 1, 1]);
        config.backends[0].tier = 7;
        config.backends[5].tier = 7;
        let (tried, why) = try_all(&build(config));
        assert_eq!(why, PickError::AllTried, "{balance:?}");
        assert_eq!(tried.len(), 5, "{balance:?}: {tried:?}");
        let (first, second) = tried.split_at(3);
        assert_eq!(HashSet::from_iter(first), HashSet::from([&1, &2, &4]), "{balance:?}");
        assert_eq!(HashSet::from_iter(second), HashSet::from([&0, &5]), "{balance:?}");
    }
}

#[test]
fn a_saturated_pool_says_so_at_once_and_serves_again_when_a_slot_is_given_back() {
    for balance in ALL {
        let mut config = config_of(balance, &[1; 50]);
        config.backends.iter_mut().for_each(|backend| backend.max_sessions = Some(2));
        config.hash.bounded_load = Some(125);
        let pool = build(config);
        let mut permits: Vec<Picked> =
            (0..100).map(|number| pick(&pool, number).unwrap()).collect();
        assert_eq!(sessions(&pool), [2; 50], "{balance:?}");
        let began = Instant::now();
        for number in 0..100 {
            assert_eq!(pick(&pool, number).err(), Some(PickError::AllFull), "{balance:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(2), "{balance:?}");
        let left = permits.swap_remove(31).index;
        assert_eq!(pick(&pool, 7).unwrap().index, left, "{balance:?}");
        drop(permits);
        assert_eq!(sessions(&pool), [0; 50], "{balance:?}");
    }
}

#[test]
fn limits_are_exact_over_threads() {
    for balance in ALL {
        let mut config = config_of(balance, &[1, 2, 3]);
        config.backends.iter_mut().for_each(|backend| backend.max_sessions = Some(3));
        let pool = build(config);
        let inside: [AtomicU32; 3] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..8_u32 {
                let (pool, inside) = (&pool, &inside);
                scope.spawn(move || {
                    for number in 0..500 {
                        let two = [pick(pool, number * 8 + thread), pick(pool, number)];
                        for picked in two.iter().flatten() {
                            let before = inside[picked.index as usize].fetch_add(1, Relaxed);
                            assert!(before < 3, "{balance:?}: a fourth session on one backend");
                        }
                        std::thread::yield_now();
                        for picked in two.into_iter().flatten() {
                            inside[picked.index as usize].fetch_sub(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(sessions(&pool), [0; 3], "{balance:?}");
    }
}

/// Two tiers of two backends of one session each: what the picks of four sessions and one more find.
#[test]
fn tiers_and_spill() {
    use BackendState::Down;
    use PickError::{AllFull, NoneUp};
    let table: [(bool, &[usize], &[usize], PickError); 8] = [
        (false, &[], &[0, 1], AllFull),
        (true, &[], &[0, 1, 2, 3], AllFull),
        (false, &[0], &[1], AllFull),
        (true, &[0], &[1, 2, 3], AllFull),
        (false, &[0, 1], &[2, 3], AllFull),
        (true, &[0, 1], &[2, 3], AllFull),
        (false, &[0, 1, 2, 3], &[], NoneUp),
        (true, &[0, 1, 2, 3], &[], NoneUp),
    ];
    for (balance, (spill, down, expected, end)) in
        ALL.into_iter().flat_map(|b| table.map(|t| (b, t)))
    {
        let mut config = config_of(balance, &[1; 4]);
        config.spill = spill;
        for (index, backend) in config.backends.iter_mut().enumerate() {
            backend.tier = u32::from(index >= 2) + 3;
            backend.max_sessions = Some(1);
        }
        let pool = build(config);
        down.iter().for_each(|index| assert!(set_state(&pool, *index, Down)));
        let mut permits = Vec::new();
        let why = loop {
            match pick(&pool, 9) {
                Ok(picked) => permits.push(picked),
                Err(why) => break why,
            }
        };
        let tiers: Vec<bool> = permits.iter().map(|picked| picked.index >= 2).collect();
        assert!(tiers.is_sorted(), "{balance:?}: the lower tier first");
        let mut picked: Vec<usize> = permits.iter().map(|picked| picked.index as usize).collect();
        picked.sort();
        assert_eq!((picked.as_slice(), why), (expected, end), "{balance:?} {spill} {down:?}");
    }
}

#[test]
fn try_all_ignores_probes_but_not_the_hand() {
    for balance in ALL {
        let mut config = config_of(balance, &[1, 1, 1, 0]);
        config.when_none_up = WhenNoneUp::TryAll;
        let pool = build(config);
        set_state(&pool, 0, BackendState::Down);
        set_state(&pool, 1, BackendState::Drain);
        assert!((0..50).all(|number| pick(&pool, number).unwrap().index == 2), "{balance:?}");
        set_state(&pool, 2, BackendState::Ejected);
        let (mut tried, why) = try_all(&pool);
        tried.sort();
        assert_eq!((tried, why), (vec![0, 2], PickError::AllTried), "{balance:?}");
        set_state(&pool, 0, BackendState::Maintenance);
        set_state(&pool, 2, BackendState::Maintenance);
        assert_eq!(pick(&pool, 1).err(), Some(PickError::NoneUp), "{balance:?}");
    }
}

#[test]
fn new_backends_start_as_the_probe_and_start_say() {
    let weights = |start, probe| {
        let mut config = config_of(Balance::Random, &[3]);
        config.health.start = start;
        config.health.probe = probe;
        config.backends[0].max_sessions = Some(9);
        let pool = build(config);
        let hot = pool.backends[0].live.slot.hot();
        assert_eq!(hot.limit.load(Relaxed), 9);
        (pool.backends[0].status().state, hot.weight(Weights::Effective) / WEIGHT_UNIT)
    };
    use config::{Probe, Start};
    assert_eq!(weights(Start::Down, Probe::None), (BackendState::Up, 3));
    assert_eq!(weights(Start::Up, Probe::Tcp), (BackendState::Starting, 3));
    assert_eq!(weights(Start::Down, Probe::Tcp), (BackendState::Starting, 0));
}

#[test]
fn slow_start_ramps_after_a_recovery_and_never_at_the_start() {
    let mut config = config_of(Balance::RoundRobin, &[2, 2]);
    config.slow_start = Some(Duration::from_secs(100));
    config.health.probe = config::Probe::Tcp;
    let pool = build(config);
    let backend = &pool.backends[0];
    let weight = || backend.live.slot.hot().weight(Weights::Effective);
    let (now, wall) = (Instant::now(), SystemTime::now());
    assert!(backend.set_state(BackendState::Up, "passed", now, wall));
    assert_eq!(weight(), 2 * WEIGHT_UNIT);
    assert!(backend.set_state(BackendState::Down, "refused", now, wall));
    assert!(!backend.set_state(BackendState::Down, "timeout", now, wall));
    assert_eq!(backend.status().why, "timeout");
    assert!(backend.set_state(BackendState::Up, "passed", now, wall));
    assert_eq!(weight(), 52);
    pool.refresh_weights(now + Duration::from_secs(50));
    assert_eq!(weight(), WEIGHT_UNIT);
    pool.refresh_weights(now + Duration::from_secs(100));
    assert_eq!(weight(), 2 * WEIGHT_UNIT);
    assert_eq!(backend.status().transitions(BackendState::Up), 2);
    assert_eq!(backend.status().transitions(BackendState::Down), 1);
}

#[test]
fn building_changes_nothing_until_activation() {
    let config = config_of(Balance::LeastConnections, &[1, 1, 1]);
    let before = build(config.clone());
    let held = pick(&before, 1).unwrap();
    let mut changed = config;
    changed.backends[0].weight = 5;
    changed.backends[0].max_sessions = Some(7);
    let after = Pool::build(Arc::new(changed), Some(&before), 2);
    let row = || {
        let hot = before.backends[0].live.slot.hot();
        (hot.weight(Weights::Effective) / WEIGHT_UNIT, hot.limit.load(Relaxed))
    };
    assert_eq!(row(), (1, u32::MAX));
    after.activate(Instant::now(), SystemTime::now());
    assert_eq!(row(), (5, 7));
    assert!(Arc::ptr_eq(&before.backends[0].live, &after.backends[0].live));
    assert!(!Arc::ptr_eq(&before.backends[0], &after.backends[0]));
    assert!(Arc::ptr_eq(&before.backends[1], &after.backends[1]));
    assert!(Arc::ptr_eq(&before.shared, &after.shared));
    assert_eq!(sessions(&after), [1, 0, 0]);
    drop(held);
    assert_eq!(sessions(&after), [0, 0, 0]);
}

#[test]
fn losing_the_probe_makes_up_and_the_hand_stays() {
    let mut config = config_of(Balance::LeastConnections, &[1, 1, 1]);
    config.health.probe = config::Probe::Tcp;
    let before = build(config.clone());
    set_state(&before, 1, BackendState::Down);
    set_state(&before, 2, BackendState::Drain);
    config.health.probe = config::Probe::None;
    let after = Pool::build(Arc::new(config), Some(&before), 2);
    after.activate(Instant::now(), SystemTime::now());
    let states: Vec<BackendState> = after.backends.iter().map(|b| b.status().state).collect();
    assert_eq!(states, [BackendState::Up, BackendState::Up, BackendState::Drain]);
}

#[test]
fn another_name_or_address_is_another_backend() {
    let config = config_of(Balance::LeastConnections, &[1, 1]);
    let before = build(config.clone());
    let mut changed = config;
    changed.backends[0].name = "renamed".into();
    changed.backends[1].address = BackendAddr::Inet(address(77));
    let after = Pool::build(Arc::new(changed), Some(&before), 2);
    for (old, new) in before.backends.iter().zip(&after.backends) {
        assert!(!Arc::ptr_eq(&old.live, &new.live));
    }
}

/// Reloads that shrink, grow and shuffle while sessions stay: no row ever counts for two backends.
#[test]
fn a_place_is_reused_only_when_nobody_counts_on_it() {
    let config = config_of(Balance::RoundRobin, &[1; 150]);
    let mut pool = build(config.clone());
    let mut permits: Vec<Picked> = (0..150).map(|number| pick(&pool, number).unwrap()).collect();
    let rows = |pool: &Pool| -> Vec<(usize, usize)> {
        let slots = pool.backends.iter().map(|backend| &backend.live.slot);
        slots.map(|slot| (Arc::as_ptr(slot.chunk()) as usize, slot.index())).collect()
    };
    let used: HashSet<(usize, usize)> = rows(&pool).into_iter().collect();
    // All others are removed; their sessions stay.
    let mut fewer = config.clone();
    fewer.backends.truncate(10);
    pool = Pool::build(Arc::new(fewer.clone()), Some(&pool), 2);
    let mut other = config_of(Balance::RoundRobin, &[1; 200]);
    other.backends.drain(..150);
    other.backends.extend(fewer.backends.clone());
    let next = Pool::build(Arc::new(other), Some(&pool), 2);
    assert!(
        rows(&next)[..50].iter().all(|row| !used.contains(row)),
        "old sessions still count there"
    );
    assert_eq!(sessions(&next)[..50], [0; 50]);
    assert_eq!(sessions(&next)[50..], [1; 10]);
    drop(next);
    // Their sessions end: the places are free.
    permits.truncate(10);
    let again = Pool::build(Arc::new(config), Some(&pool), 2);
    assert!(rows(&again).iter().filter(|row| used.contains(row)).count() >= 64);
    assert_eq!(rows(&again).into_iter().collect::<HashSet<_>>().len(), 150);
    drop(permits);
    assert_eq!(sessions(&again), vec![0; 150]);
}

#[test]
fn one_that_comes_back_still_counts_the_sessions_it_left_with() {
    let mut both = config_of(Balance::LeastConnections, &[1, 1]);
    both.backends.iter_mut().for_each(|backend| backend.max_sessions = Some(1));
    let mut one = both.clone();
    one.backends.truncate(1);
    let first = build(both.clone());
    let permits = [pick(&first, 1).unwrap(), pick(&first, 1).unwrap()];
    let second = Pool::build(Arc::new(one.clone()), Some(&first), 2);
    drop(first);
    let third = Pool::build(Arc::new(one), Some(&second), 2);
    drop(second);
    assert_eq!(third.departed().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), ["b1"]);
    let fourth = Pool::build(Arc::new(both), Some(&third), 2);
    assert_eq!(fourth.departed().count(), 0);
    assert_eq!(sessions(&fourth), [1, 1]);
    assert_eq!(pick(&fourth, 1).err(), Some(PickError::AllFull));
    drop(permits);
    assert_eq!(third.departed().count(), 1, "the fourth version has it again");
    drop(fourth);
    assert_eq!(third.departed().count(), 0);
}

#[test]
fn a_refused_reload_leaves_its_places_free() {
    let config = config_of(Balance::RoundRobin, &[1; 10]);
    let pool = build(config);
    let bigger = Arc::new(config_of(Balance::RoundRobin, &[1; 20]));
    let first = Pool::build(Arc::clone(&bigger), Some(&pool), 2);
    let index = first.backends[15].live.slot.index();
    drop(first);
    let second = Pool::build(bigger, Some(&pool), 2);
    assert_eq!(second.backends[15].live.slot.index(), index);
}

/// Sits down, and returns whether it has the turn.
fn has_turn(held: &mut Held) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    held.turn(false, Instant::now(), &mut cx) == Turn::Now
}

#[test]
fn held_sessions_are_called_when_a_backend_comes_up_or_a_slot_is_given_back() {
    let mut config = config_of(Balance::LeastConnections, &[1]);
    config.backends[0].max_sessions = Some(1);
    let pool = build(config);
    let permit = pick(&pool, 1).unwrap();
    let mut held = Held::enter(&pool.shared.queue, 1, 1).unwrap();
    assert!(has_turn(&mut held) && !has_turn(&mut held));
    set_state(&pool, 0, BackendState::Down);
    assert!(!has_turn(&mut held));
    set_state(&pool, 0, BackendState::Up);
    assert!(has_turn(&mut held));
    assert_eq!(pick(&pool, 1).err(), Some(PickError::AllFull));
    drop(permit);
    assert!(has_turn(&mut held) && pick(&pool, 1).is_ok());
    drop(held);
    assert_eq!(pool.shared.queue.held(), 0);
}

#[test]
fn held_sessions_are_let_through_at_a_pace_to_a_backend_that_came() {
    let pool = build(config_of(Balance::FirstAvailable, &[1, 1]));
    let now = Moment::now();
    let through =
        |index: usize| (0..100).filter(|_| pool.lets_through(&pool.backends[index], now)).count();
    set_state(&pool, 0, BackendState::Down);
    set_state(&pool, 0, BackendState::Up);
    assert_eq!(through(0), 100, "nobody waited for it");
    let _held = Held::enter(&pool.shared.queue, 1, 1).unwrap();
    set_state(&pool, 0, BackendState::Down);
    set_state(&pool, 0, BackendState::Up);
    let now = Moment::now();
    let through =
        |index: usize| (0..100).filter(|_| pool.lets_through(&pool.backends[index], now)).count();
    assert_eq!((through(0), through(1)), (10, 100), "the other one was there before");
    let (left_alone, soonest) = pool.left_alone(now);
    assert!(left_alone.contains(0) && !left_alone.contains(1));
    assert!(soonest.unwrap() <= Duration::from_millis(10));
    pool.shared.queue.give_way();
    assert_eq!((pool.left_alone(now).1, through(0)), (None, 1), "a newcomer lets one through");
}

#[test]
fn room_is_that_of_the_tier_that_serves() {
    let mut config = config_of(Balance::LeastConnections, &[1, 1, 1]);
    config.backends[0].max_sessions = Some(2);
    config.backends[1].max_sessions = Some(1);
    config.backends[2].tier = 1;
    let spills = config::Pool { spill: true, ..config.clone() };
    let pool = build(config);
    assert_eq!(pool.room(), 2);
    pool.backends[0].live.rest.begin(Duration::ZERO);
    assert_eq!(pool.room(), 1, "the other one failed, and served nobody since");
    pool.backends[0].live.rest.lift();
    let picked: Vec<_> = (0..3).map(|number| pick(&pool, number).unwrap()).collect();
    assert_eq!(pool.room(), 0, "no session comes to the next tier");
    drop(picked);
    set_state(&pool, 0, BackendState::Down);
    assert_eq!(pool.room(), 1);
    set_state(&pool, 1, BackendState::Down);
    assert_eq!(pool.room(), u32::MAX);
    let pool = build(spills);
    let _picked: Vec<_> = (0..3).map(|number| pick(&pool, number).unwrap()).collect();
    assert_eq!(pool.room(), u32::MAX);
}

#[test]
fn no_tier_serves_in_the_place_of_one_that_is_waited_for() {
    let mut config = config_of(Balance::LeastConnections, &[1, 1]);
    config.backends[0].tier = 1;
    config.backends[1].tier = 2;
    let pool = build(config);
    let pick = || pool.pick(&client(1), &Tried::default(), Instant::now()).map(|it| it.index);
    pool.wait_for_tier(Some(0));
    assert_eq!((pick(), pool.waits_for_tier()), (Err(PickError::NoneUp), true));
    pool.wait_for_tier(Some(1));
    assert_eq!(pick(), Ok(0), "who is known there serves");
    set_state(&pool, 0, BackendState::Down);
    assert_eq!((pick(), pool.waits_for_tier()), (Err(PickError::NoneUp), true));
    pool.wait_for_tier(Some(2));
    assert_eq!((pick(), pool.waits_for_tier()), (Ok(1), false), "there is none above");
    pool.wait_for_tier(None);
    assert_eq!((pick(), pool.waits_for_tier()), (Ok(1), false));
}
