//! What was set by hand on one backend: a state, a weight, each with who, since when and until when. Pure; kept in
//! the supervisor's book, shown by the backend's status.

use std::fmt;
use std::time::SystemTime;

/// States that can only be set by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandState {
    Drain,
    Maintenance,
}

/// One thing that was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T> {
    pub value: T,
    pub who: String,
    pub since: SystemTime,
    /// `None`: until it is lifted by hand.
    pub until: Option<SystemTime>,
}

/// Everything that is set on a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hand {
    pub state: Option<Set<HandState>>,
    /// 0…256, instead of the configured one.
    pub weight: Option<Set<u32>>,
}

/// A change that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub state: Option<StateWish>,
    /// `Some(None)`: the configured weight again.
    pub weight: Option<Option<u32>>,
    pub until: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateWish {
    Set(HandState),
    /// Lifts the state, and the weight, too, unless the same change sets one.
    Up,
}

/// The most backends with something set: far more than anybody sets by hand, and few enough that a script cannot fill
/// the memory.
pub const MOST: usize = 10_000;

/// Why nothing was set.
#[derive(Debug, PartialEq, Eq)]
pub enum NotSet {
    NoPool,
    NoBackend,
    Full,
    /// The pool could not be built with that weight.
    Refused(String),
}

impl fmt::Display for NotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotSet::NoPool => f.write_str("there is no such pool"),
            NotSet::NoBackend => f.write_str("the pool has no such backend"),
            NotSet::Full => write!(f, "{MOST} backends are set by hand already; lift some"),
            NotSet::Refused(why) => f.write_str(why),
        }
    }
}

impl Wish {
    /// Whether it sets nothing.
    pub fn only_lifts(&self) -> bool {
        self.state == Some(StateWish::Up) && self.weight.is_none()
    }
}

impl HandState {
    pub fn as_str(self) -> &'static str {
        match self {
            HandState::Drain => "drain",
            HandState::Maintenance => "maintenance",
        }
    }
}

impl<T> Set<T> {
    fn is_over(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Hand {
    pub fn is_nothing(&self) -> bool {
        *self == Hand::default()
    }

    /// Whether new sessions may still go to the backend.
    pub fn takes_sessions(&self) -> bool {
        self.state.is_none() && self.weight.as_ref().is_none_or(|set| set.value > 0)
    }

    pub fn grant(&mut self, wish: &Wish, who: &str, now: SystemTime) {
        match wish.state {
            Some(StateWish::Set(state)) => self.state = Some(set(state, wish, who, now)),
            Some(StateWish::Up) => *self = Hand::default(),
            None => {}
        }
        if let Some(weight) = wish.weight {
            self.weight = weight.map(|weight| set(weight, wish, who, now));
        }
    }

    /// Lifts what has reached its end; returns whether there was anything.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let before = (self.state.is_some(), self.weight.is_some());
        self.state.take_if(|set| set.is_over(now));
        self.weight.take_if(|set| set.is_over(now));
        before != (self.state.is_some(), self.weight.is_some())
    }

    /// When the first of them ends.
    pub fn until(&self) -> Option<SystemTime> {
        let state = self.state.as_ref().and_then(|set| set.until);
        let weight = self.weight.as_ref().and_then(|set| set.until);
        state.into_iter().chain(weight).min()
    }
}

fn set<T>(value: T, wish: &Wish, who: &str, now: SystemTime) -> Set<T> {
    Set { value, who: who.to_owned(), since: now, until: wish.until }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        NOW + Duration::from_secs(seconds)
    }

    fn drain_until(until: Option<SystemTime>) -> Wish {
        Wish { state: Some(StateWish::Set(HandState::Drain)), until, ..Wish::default() }
    }

    #[test]
    fn state_and_weight_are_over_each_at_its_own_time() {
        let mut hand = Hand::default();
        hand.grant(&drain_until(None), "ann", NOW);
        let weight = Wish { weight: Some(Some(3)), until: Some(at(10)), ..Wish::default() };
        hand.grant(&weight, "bob", at(1));
        assert_eq!(hand.until(), Some(at(10)));
        assert!(!hand.expire(at(9)));
        assert!(hand.expire(at(10)));
        assert_eq!(hand.weight, None);
        assert_eq!(hand.state.as_ref().map(|set| &*set.who), Some("ann"));
        assert!(!hand.expire(at(1 << 40)), "without `until` only a hand lifts");
    }

    #[test]
    fn up_lifts_all_but_what_is_wished_with_it() {
        let mut hand = Hand::default();
        hand.grant(&drain_until(Some(at(5))), "ann", NOW);
        hand.grant(&Wish { weight: Some(Some(0)), ..Wish::default() }, "ann", NOW);
        let up = Wish { state: Some(StateWish::Up), ..Wish::default() };
        let mut lifted = hand.clone();
        lifted.grant(&up, "bob", NOW);
        assert!(lifted.is_nothing());
        hand.grant(&Wish { weight: Some(Some(7)), ..up }, "bob", NOW);
        assert_eq!((hand.state, hand.weight.map(|set| set.value)), (None, Some(7)));
    }
}
