//! The ports towards one destination: which are free, in use, or cannot be reused yet. Pure: time is passed in. The
//! lock around it and the sockets belong to `source_ports`, which also has the picture.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How long a port cannot be reused; the kernel's TIME_WAIT.
pub const REST: Duration = Duration::from_secs(60);

/// Half of the window in which new connections are counted.
const HALF_WINDOW: Duration = Duration::from_secs(30);

/// A destination without a new connection for this long is forgotten: then its count is 0, and every port of it can
/// be reused.
pub const FORGET: Duration = Duration::from_secs(120);

/// The ports towards one destination.
#[derive(Debug)]
pub struct Book {
    pub opened: Window,
    /// `None` until maitred had to choose ports itself.
    free: Option<VecDeque<u16>>,
    resting: VecDeque<(Instant, u16)>,
    in_use: usize,
    /// Whether the backend agrees to timestamps, and when that was checked; `None` = not yet.
    pub timestamps: Option<(Instant, bool)>,
}

/// New connections in about the last minute: the current half and the one before.
#[derive(Debug)]
pub struct Window {
    since: Instant,
    now: u32,
    before: u32,
}

/// How a connection from a port of ours ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The kernel refused the port: another program has it, or it cannot be used again yet.
    Refused,
    /// It was never made, was reset, or the backend's FIN came first: the kernel keeps nothing.
    Free,
    /// Our FIN may have been first: the kernel keeps it in TIME_WAIT.
    ClosedByUs,
}

impl Book {
    pub fn new(now: Instant) -> Book {
        Book {
            opened: Window { since: now, now: 0, before: 0 },
            free: None,
            resting: VecDeque::new(),
            in_use: 0,
            timestamps: None,
        }
    }

    /// The port that has been free for the longest time. A port that is `listening` waits like a used one: its
    /// listener may be removed.
    pub fn take(
        &mut self,
        now: Instant,
        own: impl FnOnce() -> VecDeque<u16>,
        listening: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let free = self.free.get_or_insert_with(own);
        while self.resting.front().is_some_and(|(until, _)| *until <= now) {
            free.extend(self.resting.pop_front().map(|(_, port)| port));
        }
        loop {
            let port = free.pop_front()?;
            if !listening(port) {
                self.in_use += 1;
                return Some(port);
            }
            self.resting.push_back((now + REST, port));
        }
    }

    pub fn give_back(&mut self, port: u16, end: End, now: Instant) {
        self.in_use -= 1;
        let without_timestamps = matches!(self.timestamps, Some((_, false)));
        let rests = end == End::Refused || (end == End::ClosedByUs && without_timestamps);
        match &mut self.free {
            // All wait for the same time, so the queue is in order of time.
            _ if rests => self.resting.push_back((now + REST, port)),
            Some(free) => free.push_back(port),
            None => {}
        }
    }

    /// Whether timestamps must be checked again: a backend may be replaced by another at the same address.
    pub fn asks(&self, now: Instant) -> bool {
        self.timestamps.is_none_or(|(asked, _)| now.saturating_duration_since(asked) >= REST)
    }

    /// Whether it has nothing that is still needed. Ports that had to wait have long been reusable then.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.in_use == 0
            && self.resting.back().is_none_or(|(until, _)| *until <= now)
            && now.saturating_duration_since(self.opened.since) >= FORGET
    }
}

impl Window {
    pub fn count(&mut self, now: Instant) -> u32 {
        let halves = now.saturating_duration_since(self.since).as_secs() / HALF_WINDOW.as_secs();
        if halves > 0 {
            self.before = if halves == 1 { self.now } else { 0 };
            self.now = 0;
            self.since = now;
        }
        self.now = self.now.saturating_add(1);
        self.now.saturating_add(self.before)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const fn nobody(_: u16) -> bool {
        false
    }

    fn own() -> VecDeque<u16> {
        VecDeque::from([1, 3, 5])
    }

    #[test]
    fn the_least_recently_used_port_comes_first_and_a_refused_one_rests() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert_eq!(book.take(start, own, nobody), Some(1));
        assert_eq!(book.take(start, own, nobody), Some(3));
        book.give_back(1, End::Free, start);
        assert_eq!(book.take(start, own, nobody), Some(5));
        assert_eq!(book.take(start, own, nobody), Some(1));
        assert_eq!(book.take(start, own, nobody), None);
        book.give_back(3, End::Refused, start);
        assert_eq!(book.take(start + Duration::from_secs(59), own, nobody), None);
        assert_eq!(book.take(start + REST, own, nobody), Some(3));
    }

    #[test]
    fn a_port_we_closed_rests_only_without_timestamps() {
        let start = Instant::now();
        for (agreed, end, rests) in [
            (true, End::ClosedByUs, false),
            (false, End::ClosedByUs, true),
            (false, End::Free, false),
            (true, End::Refused, true),
        ] {
            let mut book = Book::new(start);
            book.timestamps = Some((start, agreed));
            let port = book.take(start, || VecDeque::from([7]), nobody).unwrap();
            book.give_back(port, end, start);
            let again = book.take(start + Duration::from_secs(59), own, nobody);
            assert_eq!(again, (!rests).then_some(7), "timestamps {agreed}, {end:?}");
        }
    }

    #[test]
    fn timestamps_are_asked_for_again_after_a_minute() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert!(book.asks(start));
        book.timestamps = Some((start, false));
        assert!(!book.asks(start + Duration::from_secs(59)));
        assert!(book.asks(start + REST));
    }

    #[test]
    fn a_listeners_port_is_passed_over_until_the_listener_is_gone() {
        let start = Instant::now();
        let mut book = Book::new(start);
        assert_eq!(book.take(start, own, |port| port == 1), Some(3));
        book.give_back(3, End::Free, start);
        let taken: Vec<u16> = std::iter::from_fn(|| book.take(start, own, nobody)).collect();
        assert_eq!(taken, [5, 3], "a look at 1 is due in a minute");
        assert_eq!(book.take(start + REST, own, nobody), Some(1));
    }

    #[test]
    fn every_port_is_in_exactly_one_place_whatever_happens() {
        let mut random = fastrand::Rng::with_seed(7);
        let start = Instant::now();
        let mut now = start;
        let mut book = Book::new(start);
        book.timestamps = Some((start, false));
        let all = || (0..100).collect::<VecDeque<u16>>();
        let mut out = BTreeSet::new();
        for _ in 0..100_000 {
            now += Duration::from_millis(random.u64(0..200));
            if random.bool() {
                if let Some(port) = book.take(now, all, |port| port < 3) {
                    assert!(port >= 3 && out.insert(port), "{port} was handed out twice");
                }
            } else if let Some(port) = out.pop_first() {
                let ends = [End::Refused, End::Free, End::ClosedByUs];
                book.give_back(port, ends[random.usize(0..3)], now);
            }
            let free = book.free.as_ref().map_or(100, VecDeque::len);
            assert_eq!(free + book.resting.len() + out.len(), 100);
            assert_eq!(book.in_use, out.len());
            assert!(book.resting.iter().is_sorted_by_key(|(until, _)| *until));
        }
    }

    #[test]
    fn openings_of_the_last_minute_are_counted() {
        let start = Instant::now();
        let mut window = Window { since: start, now: 0, before: 0 };
        assert_eq!(window.count(start), 1);
        assert_eq!(window.count(start + Duration::from_secs(29)), 2);
        assert_eq!(window.count(start + Duration::from_secs(31)), 3);
        assert_eq!(window.count(start + Duration::from_secs(200)), 1);
    }
}
