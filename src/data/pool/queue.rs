//! The held sessions of a pool, over all workers and all of its versions: the one accepted first has the turn, and only
//! it picks. When its connection has begun, or it leaves, the turn goes on to the next.
//!
//! ```text
//! hold ──▶ SEATED ──its turn, and a backend──▶ UNDER WAY ──connected──▶ leaves
//!            ▲                                      │ failed
//!            └── rests: others have the turn first ─┘
//! ```
//!
//! What may bring a backend (one came, a slot was given back, a reload) calls who has the turn. What only time brings, it
//! waits for with a timer of its own. All others sleep.
//!
//! Backends see sessions in this order, two places out of turn at most: connections that begin one after the other may be
//! made in another order, so no fourth begins before the first of three is made, or takes longer than others should wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Sessions under way, counted from the first of them that is not connected yet.
const UNDER_WAY: usize = 3;

/// How long a session under way may keep others from following, where connections usually take less than `NEAR`: then
/// something is late, such as a busy machine.
const GRACE: Duration = Duration::from_millis(25);

/// The same for backends that are further away, whose order is the network's in any case. Also what is usual at most for
/// those that are not.
const NEAR: Duration = Duration::from_millis(5);

/// Of one pool.
#[derive(Debug, Default)]
pub struct Queue {
    /// Those that have a place: seated, or under way.
    held: AtomicU32,
    /// Another number each time that somebody is held and nobody was.
    round: AtomicU64,
    /// Newcomers that found room and went to the queue's end: as many of the oldest go in their place, whatever the pace.
    passes: AtomicU32,
    /// A std lock, held for a few steps; only held sessions take it, and whoever changes something for them.
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    /// By time of accept.
    seats: BTreeMap<u64, Seat>,
    /// In the order in which they set out; at most `UNDER_WAY`.
    under_way: VecDeque<UnderWay>,
    /// How long connections took of late.
    usual: Duration,
}

#[derive(Debug)]
struct Seat {
    waker: Waker,
    /// Something may have changed since it last picked.
    is_called: bool,
    /// Its attempt failed: until it is over that, others have the turn.
    rests: bool,
}

#[derive(Debug)]
struct UnderWay {
    session: u64,
    since: Instant,
    is_done: bool,
}

/// A session's place in the queue; given back on drop.
pub struct Held {
    queue: Arc<Queue>,
    /// Sessions are numbered when they are accepted.
    session: u64,
    spot: Spot,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Spot {
    Nowhere,
    Seated,
    UnderWay(Instant),
}

/// Whether a session may pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It does not have the turn, or nothing has changed since it picked: it is woken.
    NotNow,
    Now,
    /// It has the turn, and those under way hold it up so long at most.
    Soon(Duration),
}

impl Queue {
    pub fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }

    /// The round of those that are held, if anybody is. Sequentially consistent, for those who give back a slot.
    pub fn round(&self) -> Option<u64> {
        (self.held.load(SeqCst) > 0).then(|| self.round.load(Relaxed))
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, max: u32) -> bool {
        let more = |held| (held < max).then(|| held + 1);
        let Ok(before) = self.held.fetch_update(SeqCst, Relaxed, more) else { return false };
        if before == 0 {
            self.round.fetch_add(1, Relaxed);
            self.passes.store(0, Relaxed);
        }
        // With the order in `BackendPermit::drop`: either that permit sees us, or our pick sees its slot.
        fence(SeqCst);
        true
    }

    /// A slot was given back.
    pub fn call(&self) {
        let waker = self.line().call_first();
        wake(waker);
    }

    /// A backend came, or the pool is another: whoever failed may be served now.
    pub fn call_all(&self) {
        let mut line = self.line();
        line.seats.values_mut().for_each(|seat| seat.rests = false);
        let waker = line.call_first();
        drop(line);
        wake(waker);
    }

    /// A newcomer found room and leaves it to those who wait.
    pub fn give_way(&self) {
        let held = self.held();
        let more = |passes| (passes < held).then(|| passes + 1);
        let _ = self.passes.fetch_update(Relaxed, Relaxed, more);
        self.call();
    }

    pub fn has_pass(&self) -> bool {
        self.passes.load(Relaxed) > 0
    }

    pub fn take_pass(&self) -> bool {
        self.passes.fetch_update(Relaxed, Relaxed, |passes| passes.checked_sub(1)).is_ok()
    }
}

impl Line {
    fn first(&mut self) -> Option<(u64, &mut Seat)> {
        let first = self.seats.iter_mut().find(|(_, seat)| !seat.rests);
        first.map(|(session, seat)| (*session, seat))
    }

    /// Who has the turn is to pick. To be woken without the lock.
    fn call_first(&mut self) -> Option<Waker> {
        let (_, seat) = self.first()?;
        seat.is_called = true;
        Some(seat.waker.clone())
    }

    /// How long those under way hold up the next.
    fn holds_up(&mut self, now: Instant) -> Option<Duration> {
        let grace = if self.usual < NEAR { GRACE } else { NEAR };
        let age = |it: &UnderWay| now.saturating_duration_since(it.since);
        while self.under_way.front().is_some_and(|it| it.is_done || age(it) >= grace) {
            self.under_way.pop_front();
        }
        let oldest = self.under_way.front().filter(|_| self.under_way.len() >= UNDER_WAY)?;
        Some(grace - age(oldest))
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Held {
    /// A place for this session, unless `max` have one already.
    pub fn enter(queue: &Arc<Queue>, session: u64, max: u32) -> Option<Held> {
        let is_in = queue.enter(max);
        is_in.then(|| Held { queue: Arc::clone(queue), session, spot: Spot::Nowhere })
    }

    /// Whether it has the turn. Takes a seat if it has none; `rests`: because its attempt failed.
    pub fn turn(&mut self, rests: bool, now: Instant, cx: &mut Context<'_>) -> Turn {
        self.arrived(now);
        self.spot = Spot::Seated;
        let mut line = self.queue.line();
        let waker = || cx.waker().clone();
        let seat = || Seat { waker: waker(), is_called: true, rests };
        let seat = line.seats.entry(self.session).or_insert_with(seat);
        if !seat.waker.will_wake(cx.waker()) {
            seat.waker = waker();
        }
        let holds_up = line.holds_up(now);
        match (line.first(), holds_up) {
            (Some((session, seat)), _) if session != self.session || !seat.is_called => {
                Turn::NotNow
            }
            (Some(_), Some(wait)) => Turn::Soon(wait),
            (Some((_, seat)), None) => {
                seat.is_called = false;
                Turn::Now
            }
            // It rests itself.
            (None, _) => Turn::NotNow,
        }
    }

    /// Time alone may have brought something, and it has rested.
    pub fn call_self(&self) {
        if let Some(seat) = self.queue.line().seats.get_mut(&self.session) {
            (seat.is_called, seat.rests) = (true, false);
        }
    }

    /// It gave back what it picked itself, which is no news.
    pub fn not_called(&self) {
        if let Some(seat) = self.queue.line().seats.get_mut(&self.session) {
            seat.is_called = false;
        }
    }

    /// Its connection has begun: the next has the turn.
    pub fn sets_out(&mut self, now: Instant) {
        if self.spot == Spot::Seated {
            self.spot = Spot::UnderWay(now);
            let under_way = UnderWay { session: self.session, since: now, is_done: false };
            self.leave_seat(Some(under_way));
        }
    }

    /// Its connection is made, or failed.
    pub fn arrived(&mut self, now: Instant) {
        let Spot::UnderWay(since) = self.spot else { return };
        self.spot = Spot::Nowhere;
        let mut line = self.queue.line();
        line.usual = (line.usual * 7 + now.saturating_duration_since(since)) / 8;
        let own = line.under_way.iter_mut().find(|it| it.session == self.session);
        let was_waited_for = own.map(|own| own.is_done = true);
        let waker = was_waited_for.and_then(|()| line.call_first());
        drop(line);
        wake(waker);
    }

    fn leave_seat(&self, under_way: Option<UnderWay>) {
        let mut line = self.queue.line();
        line.seats.remove(&self.session);
        if line.under_way.len() < UNDER_WAY {
            line.under_way.extend(under_way);
        }
        let waker = match line.first() {
            Some((next, _)) if next > self.session => line.call_first(),
            _ => None,
        };
        drop(line);
        wake(waker);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.spot {
            Spot::Nowhere => {}
            Spot::Seated => self.leave_seat(None),
            Spot::UnderWay(_) => self.arrived(Instant::now()),
        }
        self.queue.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// A held session that can be asked whether it has the turn, and how often it was woken.
    struct Session {
        held: Held,
        woken: Arc<Woken>,
    }

    impl Session {
        fn new(queue: &Arc<Queue>, number: u64) -> Session {
            let held = Held::enter(queue, number, 100).unwrap();
            Session { held, woken: Arc::default() }
        }

        fn turn(&mut self, rests: bool, now: Instant) -> Turn {
            let waker = Waker::from(Arc::clone(&self.woken));
            self.held.turn(rests, now, &mut Context::from_waker(&waker))
        }

        fn has_turn(&mut self, rests: bool) -> bool {
            self.turn(rests, Instant::now()) == Turn::Now
        }

        fn wakes(&self) -> usize {
            self.woken.0.swap(0, Relaxed)
        }
    }

    #[test]
    fn the_oldest_has_the_turn_whoever_came_first_to_the_queue() {
        let queue = Arc::new(Queue::default());
        let [mut third, mut first, mut second] =
            [3, 1, 2].map(|number| Session::new(&queue, number));
        assert!(third.has_turn(false), "nobody else is seated yet");
        assert!(first.has_turn(false) && !first.has_turn(false), "once for each change");
        assert!(!second.has_turn(false) && !third.has_turn(false));
        queue.call();
        assert_eq!((first.wakes(), second.wakes(), third.wakes()), (1, 0, 0));
        assert!(first.has_turn(false));
        first.held.sets_out(Instant::now());
        assert_eq!((second.wakes(), third.wakes()), (1, 0));
        assert!(second.has_turn(false));
        drop(third);
        assert_eq!(second.wakes(), 0, "who waits behind it changes nothing for it");
        drop(first);
        assert_eq!(queue.held(), 1);
    }

    #[test]
    fn no_fourth_sets_out_before_the_first_of_three_arrived_or_was_waited_for() {
        let queue = Arc::new(Queue::default());
        let now = Instant::now();
        let mut sessions = [1, 2, 3, 4, 5, 6].map(|number| Session::new(&queue, number));
        sessions.iter_mut().for_each(|it| _ = it.turn(false, now));
        for session in &mut sessions[..3] {
            session.held.sets_out(now);
        }
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let wait = Duration::from_millis(23);
        assert_eq!(sessions[3].turn(false, after(2)), Turn::Soon(wait));
        assert_eq!(sessions[4].turn(false, after(2)), Turn::NotNow);
        sessions[3].wakes();
        // The two that arrived are after one that did not.
        sessions[1].held.arrived(after(2));
        sessions[2].held.arrived(after(2));
        assert_eq!(sessions[3].turn(false, after(2)), Turn::Soon(wait));
        sessions[0].held.arrived(after(2));
        assert!(sessions[3].wakes() > 0);
        assert_eq!(sessions[3].turn(false, after(2)), Turn::Now);
        sessions[3].held.sets_out(after(2));
        for session in [4, 5] {
            assert_eq!(sessions[session].turn(false, after(2)), Turn::Now);
            sessions[session].held.sets_out(after(2));
        }
        let mut last = Session::new(&queue, 7);
        assert_eq!(last.turn(false, after(26)), Turn::Soon(Duration::from_millis(1)));
        assert_eq!(last.turn(false, after(27)), Turn::Now, "it takes too long");
        drop(sessions);
        assert_eq!(queue.line().holds_up(after(27)), None);
    }

    #[test]
    fn who_failed_lets_others_try_and_comes_first_again_when_one_was_served() {
        let queue = Arc::new(Queue::default());
        let [mut first, mut second] = [1, 2].map(|number| Session::new(&queue, number));
        assert!(first.has_turn(false) && !second.has_turn(false));
        first.held.sets_out(Instant::now());
        assert!(second.has_turn(false));
        assert!(!first.has_turn(true), "its attempt failed");
        second.wakes();
        queue.call();
        assert_eq!((first.wakes(), second.wakes()), (0, 1));
        assert!(second.has_turn(false));
        queue.call_all();
        assert_eq!((first.wakes(), second.wakes()), (1, 0));
        assert!(first.has_turn(true) && !second.has_turn(false));
        // The same by its own timer.
        first.held.sets_out(Instant::now());
        assert!(!first.has_turn(true));
        first.held.call_self();
        assert!(first.has_turn(true));
    }

    #[test]
    fn far_backends_hold_up_nobody_for_long() {
        let queue = Arc::new(Queue::default());
        let mut now = Instant::now();
        let after = |now: Instant, milliseconds| now + Duration::from_millis(milliseconds);
        for number in 1..=4 {
            let mut session = Session::new(&queue, number);
            assert_eq!(session.turn(false, now), Turn::Now);
            session.held.sets_out(now);
            now = after(now, 30);
            session.held.arrived(now);
        }
        let mut sessions = [5, 6, 7, 8].map(|number| Session::new(&queue, number));
        for session in &mut sessions[..3] {
            assert_eq!(session.turn(false, now), Turn::Now);
            session.held.sets_out(now);
        }
        assert_eq!(sessions[3].turn(false, after(now, 3)), Turn::Soon(Duration::from_millis(2)));
        assert_eq!(sessions[3].turn(false, after(now, 5)), Turn::Now);
    }

    #[test]
    fn newcomers_give_way_to_as_many_as_wait() {
        let queue = Arc::new(Queue::default());
        assert_eq!(queue.round(), None);
        let held = [1, 2].map(|number| Held::enter(&queue, number, 2).unwrap());
        assert!(Held::enter(&queue, 3, 2).is_none(), "no more than the maximum");
        assert_eq!(queue.round(), Some(1));
        (0..5).for_each(|_| queue.give_way());
        assert!(queue.has_pass() && queue.take_pass() && queue.take_pass());
        assert!(!queue.has_pass() && !queue.take_pass());
        queue.give_way();
        drop(held);
        let _held = Held::enter(&queue, 4, 2).unwrap();
        assert_eq!((queue.round(), queue.has_pass()), (Some(2), false));
    }
}
