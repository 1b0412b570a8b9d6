//! The order within a pool: who serves where the verdicts of the probes alone do not say it. `single` chooses one
//! backend, `flap` holds one down, `failback` keeps a tier. The rules are pure and stand in files of those names; here they
//! are applied.
//!
//! ```text
//!   verdict ─▶ note_verdict ─▶ flap ─▶ single: who loses its seat, then who gets it ─▶ state, weight ─▶ failback: tier
//! ```
//!
//! Everything happens under one lock per pool, whichever thread has something new: the probes' thread a verdict or the
//! time, the supervisor a change by hand or a reload. So of two backends of a `single` pool the one has lost its weight
//! before the other gets it. A pick takes no lock: it reads weights, and `Shared::serving_tier`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Pool;
use super::backend::{Backend, BackendState};
use super::failback::{self, TierNow, Wait};
use super::fitness::{ProbeResult, Standing};
use super::memory::{News, Order, Who};
use super::part::{Seat, Waits};
use super::single::{self, Choice, Claim};
use super::slots::Weights;
use crate::config::{Failback, Single};

/// What an election is about.
struct Scene<'a> {
    pool: &'a Pool,
    /// Its state is for the caller to change.
    except: Option<&'a Backend>,
    now: Instant,
    wall: SystemTime,
}

/// In a larger pool a verdict is followed up at the next tick, a tenth of a second later: looking at all backends for the
/// verdict about each would take too long.
const PROMPT: usize = 256;

/// Names in one sentence; the others are counted.
const NAMED: usize = 5;

impl Pool {
    /// The lock comes before those of a backend.
    pub fn order(&self) -> MutexGuard<'_, Order> {
        self.shared.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether time alone may change who serves.
    pub fn has_order(&self) -> bool {
        let config = &self.config;
        config.single != Single::None
            || config.failback != Failback::Immediate
            || config.flap.is_some()
    }

    /// Decides anew who serves.
    pub fn reorder(&self, now: Instant, wall: SystemTime) {
        let mut order = self.order();
        order.end_holds(self, now, wall);
        order.elect(self, None, now, wall);
        order.fall_back(self, now, wall);
    }

    /// An operator says that it may serve: it is no longer held down, and its tier may be the one that serves.
    pub fn let_serve(&self, backend: &Backend, now: Instant, wall: SystemTime) {
        {
            let mut status = backend.status();
            // For one that is known to be down it would count when nobody remembers it.
            status.part.is_let = self.config.failback != Failback::Immediate
                && matches!(status.verdict, Standing::Starting | Standing::Up);
            if let Some(hold) = &mut status.part.hold {
                hold.until = now;
            }
        }
        self.reorder(now, wall);
    }

    pub fn take_news(&self) -> Vec<News> {
        if !self.shared.has_news.swap(false, Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut self.order().news)
    }

    /// With `failback`: the tier that serves, or served last.
    pub fn serving_tier(&self) -> Option<u32> {
        (self.config.failback != Failback::Immediate).then(|| self.order().serving).flatten()
    }
}

impl Order {
    fn tell(&mut self, pool: &Pool, news: News) {
        self.keep(news);
        pool.shared.has_news.store(true, Relaxed);
    }

    /// The probes have a new verdict about a backend; its state is for the caller to change. Others may lose or get
    /// their seats.
    pub fn note_verdict(
        &mut self,
        pool: &Pool,
        backend: &Backend,
        (verdict, why): (Standing, String),
        now: Instant,
        wall: SystemTime,
    ) {
        {
            let mut status = backend.status();
            let before = std::mem::replace(&mut status.verdict, verdict);
            status.verdict_why = why;
            if verdict != Standing::Up {
                status.part.is_let = false;
            }
            if let Some(flap) = &pool.config.flap
                && status.part.hold.is_none()
                && is_change(before, verdict)
            {
                status.part.hold = status.part.changes.note(flap, now, wall);
                status.part.is_told = false;
            }
        }
        if pool.backends.len() <= PROMPT {
            self.elect(pool, Some(backend), now, wall);
        }
    }

    /// The verdict has changed its state and weight.
    pub fn follow_up(&mut self, pool: &Pool, now: Instant, wall: SystemTime) {
        if pool.backends.len() <= PROMPT {
            self.fall_back(pool, now, wall);
        }
    }

    /// Ends holds whose time is over, or for which there is no rule any more.
    fn end_holds(&mut self, pool: &Pool, now: Instant, wall: SystemTime) {
        // One scan also after the rule is gone.
        if !std::mem::replace(&mut self.has_holds, pool.config.flap.is_some()) {
            return;
        }
        let is_over = |backend: &&Arc<Backend>| {
            let mut status = backend.status();
            let until = status.part.hold.as_ref().map(|hold| hold.until);
            let is_over = until.is_some_and(|until| until <= now || pool.config.flap.is_none());
            if is_over {
                status.part.hold = None;
                status.part.changes.forget();
            }
            is_over
        };
        let free: Vec<&Arc<Backend>> = pool.backends.iter().filter(is_over).collect();
        if free.is_empty() {
            return;
        }
        self.elect(pool, None, now, wall);
        free.into_iter().for_each(|backend| self.show(pool, backend, now, wall));
    }

    /// A hold that changed no state is news; else it is in the change.
    pub fn tell_of_hold(&mut self, pool: &Pool, backend: &Backend) {
        let why = {
            let mut status = backend.status();
            let is_told = std::mem::replace(&mut status.part.is_told, true);
            status.part.hold.as_ref().filter(|_| !is_told).map(|hold| hold.why.clone())
        };
        if let Some(why) = why {
            self.tell(pool, News::Held { backend: Arc::clone(&backend.name), why });
        }
    }

    /// `single`. `except`: its state is for the caller to change.
    fn elect(&mut self, pool: &Pool, except: Option<&Backend>, now: Instant, wall: SystemTime) {
        let scene = Scene { pool, except, now, wall };
        if pool.config.single == Single::None {
            if std::mem::replace(&mut self.has_seats, false) {
                pool.backends.iter().for_each(|it| self.seat(&scene, it, Seat::Free));
                self.end_conflict(pool, None);
                self.chosen = None;
            }
            return;
        }
        self.has_seats = true;
        let claims: Vec<Claim> =
            pool.backends.iter().map(|it| claim(it, self.chosen.as_ref())).collect();
        let choice = single::choose(pool.config.single, &claims);
        let serves = match &choice {
            Choice::Serves { index, .. } => Some(*index),
            Choice::Refused(_) => None,
            // With `try_all` at most this one gets sessions.
            Choice::None | Choice::WaitsFor(_) => claims.iter().position(|claim| claim.served),
        };
        let why = left_out(pool, &choice);
        // First whoever loses its seat: no two have one at any time.
        for (index, backend) in pool.backends.iter().enumerate() {
            if Some(index) != serves {
                self.seat(&scene, backend, Seat::LeftOut(why.clone()));
            }
        }
        for (_, live) in pool.departed() {
            live.status().part.seat = Seat::LeftOut("single: it was removed".to_owned());
            live.slot.set_weights(0, 0);
        }
        if let Some(index) = serves {
            self.seat(&scene, &pool.backends[index], Seat::Serves);
        }
        match serves {
            Some(index) => self.chosen = Some(who(&pool.backends[index])),
            None if choice.is_conflict() => self.chosen = None,
            None => {}
        }
        self.note_conflict(pool, &choice);
    }

    fn seat(&mut self, scene: &Scene, backend: &Arc<Backend>, seat: Seat) {
        let before = std::mem::replace(&mut backend.status().part.seat, seat.clone());
        if before == seat {
            return;
        }
        backend.refresh_weight(scene.now);
        let is_excepted = scene.except.is_some_and(|it| Arc::ptr_eq(&it.live, &backend.live));
        if !is_excepted {
            self.show(scene.pool, backend, scene.now, scene.wall);
        }
    }

    fn note_conflict(&mut self, pool: &Pool, choice: &Choice) {
        if !choice.is_conflict() {
            let serves = match choice {
                Choice::Serves { index, .. } => Some(*index),
                _ => None,
            };
            self.end_conflict(pool, serves);
            return;
        }
        if pool.shared.is_in_conflict.swap(true, Relaxed) {
            return;
        }
        let (right, outcome) = match choice {
            Choice::Serves { index, others } => {
                let all = std::iter::once(index).chain(others).copied().collect();
                (all, format!("{} goes on", pool.backends[*index].name))
            }
            Choice::Refused(all) => (all.clone(), "none serves".to_owned()),
            Choice::None | Choice::WaitsFor(_) => return,
        };
        let what = format!("{}: {}; {outcome}", pool.name, several_right(pool, right));
        self.tell(pool, News::Alarm(what));
    }

    fn end_conflict(&mut self, pool: &Pool, serves: Option<usize>) {
        if !pool.shared.is_in_conflict.swap(false, Relaxed) {
            return;
        }
        let outcome = match serves {
            Some(index) => format!("{} serves", pool.backends[index].name),
            None => "none serves".to_owned(),
        };
        self.tell(pool, News::Note(format!("{}: the conflict is over: {outcome}", pool.name)));
    }

    /// Brings a backend's state into line with its part.
    fn show(&mut self, pool: &Pool, backend: &Arc<Backend>, now: Instant, wall: SystemTime) {
        use BackendState::{Drain, Ejected, Maintenance};
        let changed = backend.change(now, wall, |status| {
            let is_overruled = matches!(status.state, Drain | Ejected | Maintenance);
            (!is_overruled).then(|| status.settled())
        });
        if changed.is_some() {
            let status = backend.status().clone();
            let (to, lost, why) = (status.state, status.lost, status.why);
            self.tell(pool, News::Changed { backend: who(backend), to, lost, why });
        }
    }

    /// `failback`: which tier serves, and which ones wait. To be asked once all weights are as they are to be.
    fn fall_back(&mut self, pool: &Pool, now: Instant, wall: SystemTime) {
        let rule = pool.config.failback;
        let before = self.serving;
        if rule == Failback::Immediate && before.is_none() {
            return;
        }
        let tiers = self.tiers(pool, now);
        // Until then nothing is kept: at the start the lowest tier may be the last that answers.
        let has_served = pool.backends.iter().any(|it| it.live.slot.peak() > 0);
        self.serving = match rule {
            Failback::Immediate => None,
            _ => failback::serves(rule, &tiers, before.filter(|_| has_served), now).or(before),
        };
        let serving = self.serving.unwrap_or(0);
        if pool.shared.serving_tier.swap(serving, Relaxed) != serving {
            pool.wake_held();
        }
        if let (Some(before), Some(serving)) = (before, self.serving)
            && before != serving
            && has_served
        {
            let again = if serving < before { " again" } else { "" };
            let what =
                format!("{}: tier {serving} serves{again}, instead of tier {before}", pool.name);
            self.tell(pool, News::Note(what));
        }
        for backend in &pool.backends {
            let tier = tiers.iter().find(|tier| tier.number == backend.tier);
            let waits = tier.filter(|tier| tier.number < serving && takes(backend));
            let wait = waits.and_then(|tier| failback::wait(rule, tier, now));
            let mut status = backend.status();
            let wait = wait.filter(|_| status.state == BackendState::Up);
            keep_wait(&mut status.part.waits, wait, wall);
            // What was allowed has happened.
            status.part.is_let &= backend.tier < serving || status.verdict == Standing::Starting;
        }
    }

    fn tiers(&mut self, pool: &Pool, now: Instant) -> Vec<TierNow> {
        let mut tiers: BTreeMap<u32, TierNow> = BTreeMap::new();
        for backend in &pool.backends {
            let number = backend.tier;
            let of_tier = TierNow { number, takes: false, up_since: None, is_let: false };
            let tier = tiers.entry(number).or_insert(of_tier);
            if !takes(backend) {
                continue;
            }
            let status = backend.status();
            tier.takes = true;
            tier.is_let |= status.part.is_let;
            if status.state == BackendState::Up {
                tier.up_since = Some(*self.up_since.entry(number).or_insert(now));
            }
        }
        self.up_since.retain(|number, _| tiers.get(number).is_some_and(|it| it.up_since.is_some()));
        tiers.into_values().collect()
    }
}

/// Whether it went up or down. The first verdict is no change, and one role instead of another is none that is bad.
fn is_change(before: Standing, after: Standing) -> bool {
    let kind = |standing| match standing {
        Standing::Down(_) => 'd',
        Standing::Standby => 'b',
        Standing::Starting => 's',
        Standing::Up => 'u',
    };
    let (before, after) = (kind(before), kind(after));
    before != after && before != 's' && matches!(after, 'u' | 'd')
}

fn takes(backend: &Backend) -> bool {
    backend.live.slot.hot().weight(Weights::Effective) > 0
}

fn who(backend: &Backend) -> Who {
    Who { name: Arc::clone(&backend.name), address: backend.address.clone() }
}

fn claim(backend: &Backend, chosen: Option<&Who>) -> Claim {
    let status = backend.status();
    let last = status.last_probe.as_ref().map(|(last, _)| last.result);
    let may_be_right = status.returns || matches!(last, None | Some(ProbeResult::Passed));
    Claim {
        is_right: status.verdict == Standing::Up,
        is_unknown: status.verdict == Standing::Starting && may_be_right,
        is_out: status.hand.state.is_some() || status.part.hold.is_some() || backend.weight == 0,
        served: chosen.is_some_and(|it| it.name == backend.name && it.address == backend.address),
    }
}

/// Why the others do not serve.
fn left_out(pool: &Pool, choice: &Choice) -> String {
    match choice {
        Choice::None => "single: none serves".to_owned(),
        Choice::Refused(right) => {
            format!("single: {}; none serves", several_right(pool, right.clone()))
        }
        Choice::Serves { index, .. } => format!("single: {} serves", pool.backends[*index].name),
        Choice::WaitsFor(index) => {
            format!("single: waits for the first probes of {}", pool.backends[*index].name)
        }
    }
}

fn several_right(pool: &Pool, mut right: Vec<usize>) -> String {
    right.sort_unstable();
    let names: Vec<&str> =
        right.iter().take(NAMED).map(|index| &*pool.backends[*index].name).collect();
    let more = match right.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{} backends say they are right: {}{more}", right.len(), names.join(", "))
}

/// The time until which a tier waits is told once, and not again for what the clock was off.
fn keep_wait(waits: &mut Option<Waits>, wait: Option<Wait>, wall: SystemTime) {
    const OFF: Duration = Duration::from_secs(1);
    let now = wait.map(|wait| match wait {
        Wait::ForAHand => Waits::ForAHand,
        Wait::For(left) => Waits::Until(wall + left),
    });
    let is_same = match (&*waits, &now) {
        (Some(Waits::Until(before)), Some(Waits::Until(now))) => {
            let (early, late) = (before.min(now), before.max(now));
            late.duration_since(*early).is_ok_and(|off| off < OFF)
        }
        (before, now) => before == now,
    };
    if !is_same {
        *waits = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Balance, DownReason, Flap, Probe, WhenNoneUp};
    use crate::control::health::transition;
    use crate::data::pool::hand::{Hand, HandState, StateWish, Wish};
    use crate::data::pool::tests::{build, config_of, pick};
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    const DEAD: Standing = Standing::Down(DownReason::Dead);

    /// A backend for each tier, with probes; each has had none.
    fn config(tiers: &[u32]) -> config::Pool {
        let mut config = config_of(Balance::RoundRobin, &vec![1; tiers.len()]);
        config.health.probe = Probe::Tcp;
        config.backends.iter_mut().zip(tiers).for_each(|(backend, tier)| backend.tier = *tier);
        config
    }

    fn started(config: config::Pool) -> Pool {
        let pool = build(config);
        pool.activate(Instant::now(), SystemTime::now());
        pool
    }

    fn settle(pool: &Pool, index: usize, verdict: Standing, now: Instant) {
        let wall = SystemTime::now();
        transition::settle(pool, &pool.backends[index], verdict, "x".into(), now, wall);
    }

    fn weights(pool: &Pool, of: Weights) -> Vec<u32> {
        pool.backends.iter().map(|it| it.live.slot.hot().weight(of)).collect()
    }

    fn by_hand(pool: &Pool, index: usize, wish: StateWish, now: Instant) {
        let mut hand = Hand::default();
        let wish = Wish { state: Some(wish), ..Wish::default() };
        hand.grant(&wish, "test", SystemTime::now());
        transition::by_hand(&pool.backends[index], hand, now, SystemTime::now());
        pool.reorder(now, SystemTime::now());
        if wish.state == Some(StateWish::Up) {
            pool.let_serve(&pool.backends[index], now, SystemTime::now());
        }
    }

    #[test]
    fn none_serves_before_its_probes_have_passed() {
        let single = Single::Keep;
        let pool =
            started(config::Pool { single, when_none_up: WhenNoneUp::TryAll, ..config(&[0, 0]) });
        assert!(pick(&pool, 1).is_err(), "although they start up, and all are tried");
        settle(&pool, 1, Standing::Up, Instant::now());
        let state = |index: usize| pool.backends[index].status().state;
        assert_eq!((state(1), pick(&pool, 1).is_err()), (BackendState::Standby, true));
        assert_eq!(pool.backends[1].status().why, "single: waits for the first probes of b0");
        settle(&pool, 0, DEAD, Instant::now());
        assert_eq!(state(1), BackendState::Up);
        assert_eq!(pick(&pool, 1).ok().map(|it| it.index), Some(1));
        assert!(
            pool.take_news()
                .iter()
                .any(|news| matches!(news, News::Changed { to: BackendState::Up, .. }))
        );
    }

    #[test]
    fn one_that_left_the_pool_and_comes_back_has_no_seat() {
        let before = started(config::Pool { single: Single::Keep, ..config(&[0, 0]) });
        let now = Instant::now();
        settle(&before, 1, Standing::Standby, now);
        settle(&before, 0, Standing::Up, now);
        let session = pick(&before, 1).unwrap();
        assert_eq!(session.index, 0);
        let mut config = (*before.config).clone();
        let gone = config.backends.remove(0);
        let without = Pool::build(Arc::new(config.clone()), Some(&before), 1);
        without.activate(now, SystemTime::now());
        settle(&without, 0, Standing::Up, now);
        assert_eq!(pick(&without, 1).ok().map(|it| it.index), Some(0));
        assert!(pick(&before, 1).is_err() || weights(&before, Weights::Effective)[0] == 0);
        config.backends.push(gone);
        let again = Pool::build(Arc::new(config), Some(&without), 1);
        again.activate(now, SystemTime::now());
        assert_eq!(weights(&again, Weights::Effective).iter().filter(|it| **it > 0).count(), 1);
        assert_eq!(again.backends[1].status().state, BackendState::Standby, "a conflict");
        assert!(again.shared.is_in_conflict.load(Relaxed));
        drop(session);
    }

    /// Within one change of places, a reader that sees the first with weight, then the second, and then the first again,
    /// has seen two that serve.
    #[test]
    fn whoever_loses_its_seat_has_lost_its_weight_before_another_gets_it() {
        let pool = started(config::Pool { single: Single::Keep, ..config(&[0, 0]) });
        let now = Instant::now();
        settle(&pool, 1, Standing::Standby, now);
        settle(&pool, 0, Standing::Up, now);
        let weight = |index: usize| pool.backends[index].live.slot.hot().weight(Weights::Effective);
        let (looks, changes, is_over) =
            (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let before = changes.load(SeqCst);
                    let seen = [weight(0), weight(1), weight(0)];
                    let is_one_change = changes.load(SeqCst) == before;
                    looks.fetch_add(1, SeqCst);
                    assert!(!is_one_change || seen.contains(&0), "{seen:?}");
                }
            });
            let end = Instant::now() + Duration::from_secs(20);
            let is_enough = || looks.load(SeqCst) > 20_000 && changes.load(SeqCst) > 20_000;
            while !is_enough() && Instant::now() < end {
                for (old, new) in [(0, 1), (1, 0)] {
                    // A conflict, and its end by the loss of the one that was kept.
                    settle(&pool, new, Standing::Up, now);
                    settle(&pool, old, Standing::Standby, now);
                    assert_eq!([weight(old), weight(new)].map(|it| it > 0), [false, true]);
                    changes.fetch_add(1, SeqCst);
                }
                pool.take_news();
            }
            is_over.store(true, SeqCst);
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Hand(usize, StateWish),
        Reload(Single, Failback, bool),
        Tick(u64),
        Verdict(usize, Standing),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let verdict = prop_oneof![
            3 => Just(Standing::Up), 2 => Just(DEAD), 1 => Just(Standing::Standby)
        ];
        let wish = prop_oneof![
            Just(StateWish::Up),
            Just(StateWish::Set(HandState::Drain)),
            Just(StateWish::Set(HandState::Maintenance))
        ];
        let single = prop_oneof![Just(Single::None), Just(Single::Keep), Just(Single::Refuse)];
        let after = Failback::After(Duration::from_secs(10));
        let failback = prop_oneof![Just(Failback::Immediate), Just(Failback::Manual), Just(after)];
        prop_oneof![
            6 => (0..4_usize, verdict).prop_map(|(index, it)| Step::Verdict(index, it)),
            2 => (0..4_usize, wish).prop_map(|(index, it)| Step::Hand(index, it)),
            1 => (single, failback, any::<bool>()).prop_map(|(s, f, flap)| Step::Reload(s, f, flap)),
            2 => (0..20_u64).prop_map(Step::Tick),
        ]
    }

    proptest! {
        /// Whatever happens: with `single` at most one backend can be picked by either kind of weight, and only one whose
        /// probes pass; a pool in which any backend takes sessions serves; and with `failback` the tier that served goes
        /// on while it can, unless a hand or the time let a lower one serve.
        #[test]
        fn the_order_holds_whatever_happens(steps in prop::collection::vec(any_step(), 1..60)) {
            let mut config = config(&[0, 0, 1, 2]);
            config.when_none_up = WhenNoneUp::TryAll;
            let mut pool = started(config.clone());
            let mut now = Instant::now();
            let mut served: Option<u32> = None;
            for step in steps {
                // Given now or before, and not used yet.
                let is_let = matches!(step, Step::Hand(_, StateWish::Up))
                    || pool.backends.iter().any(|backend| backend.status().part.is_let);
                match step {
                    Step::Hand(index, wish) => by_hand(&pool, index, wish, now),
                    Step::Reload(single, failback, flaps) => {
                        (config.single, config.failback) = (single, failback);
                        let (within, hold_down) = (Duration::from_secs(60), Duration::from_secs(15));
                        config.flap = flaps.then_some(Flap { changes: 3, within, hold_down });
                        pool = Pool::build(Arc::new(config.clone()), Some(&pool), 2);
                        pool.activate(now, SystemTime::now());
                    }
                    Step::Tick(seconds) => {
                        now += Duration::from_secs(seconds);
                        pool.reorder(now, SystemTime::now());
                    }
                    // In maintenance nothing is probed.
                    Step::Verdict(index, verdict) => {
                        if pool.backends[index].status().state != BackendState::Maintenance {
                            settle(&pool, index, verdict, now);
                        }
                    }
                }
                let open = weights(&pool, Weights::Effective);
                let takes = open.iter().filter(|weight| **weight > 0).count();
                if config.single != Single::None {
                    prop_assert!(takes <= 1);
                    let forced = weights(&pool, Weights::Forced);
                    prop_assert!(forced.iter().filter(|weight| **weight > 0).count() <= 1);
                    for (backend, weight) in pool.backends.iter().zip(&open) {
                        prop_assert!(*weight == 0 || backend.status().verdict == Standing::Up);
                    }
                } else {
                    prop_assert!(!pool.shared.is_in_conflict.load(Relaxed));
                }
                for backend in &pool.backends {
                    let status = backend.status();
                    prop_assert!(status.part.hold.is_none() || status.state != BackendState::Up);
                }
                let is_timed = matches!(config.failback, Failback::After(_));
                let tier = |index: u32| config.backends[index as usize].tier;
                let could = served.is_some_and(|served| {
                    (0_u32..).zip(&open).any(|(index, weight)| *weight > 0 && tier(index) == served)
                });
                if takes > 0 {
                    let Ok(picked) = pick(&pool, 1) else { panic!("none serves: {open:?}") };
                    let number = tier(picked.index);
                    if could && config.failback == Failback::Manual && !is_let {
                        prop_assert_eq!(Some(number), served, "it goes on");
                    }
                    if could && !is_timed && config.failback != Failback::Immediate {
                        prop_assert!(Some(number) <= served);
                    }
                    served = (config.failback != Failback::Immediate).then_some(number);
                } else {
                    served = pool.serving_tier();
                }
            }
        }
    }

    /// A pool of thousands is not looked through for each verdict.
    #[test]
    fn a_large_pool_follows_at_the_next_tick() {
        let pool = started(config::Pool { single: Single::Keep, ..config(&vec![0; PROMPT + 1]) });
        let now = Instant::now();
        (1..=PROMPT).for_each(|index| settle(&pool, index, Standing::Standby, now));
        settle(&pool, 0, Standing::Up, now);
        assert!(pick(&pool, 1).is_err());
        pool.reorder(now, SystemTime::now());
        assert_eq!(pick(&pool, 1).ok().map(|it| it.index), Some(0));
    }
}
