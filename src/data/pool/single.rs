//! `single`: which one of a pool's backends serves. Pure: from what is known of each to who it is, and why.
//!
//! A backend says that it is right when its probes pass. Where several do, `keep` lets the one go on that served before,
//! and `refuse` none; without one that served before, `keep` is `refuse`. While none serves, one that is right waits for
//! the first probe of the others: it may be one of two.

use crate::config::Single;

/// What is known of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Its probes pass.
    pub is_right: bool,
    /// It was not probed yet, or not often enough.
    pub is_unknown: bool,
    /// By hand, for flapping, without weight: it does not serve, whatever its probes say.
    pub is_out: bool,
    /// It serves, or did before all others that do.
    pub served: bool,
}

/// The outcome; backends by their index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None is right.
    None,
    /// Several are right, and none of them serves.
    Refused(Vec<usize>),
    /// The others that are right stand by.
    Serves { index: usize, others: Vec<usize> },
    /// One is right, but the state of this one is not known yet.
    WaitsFor(usize),
}

pub fn choose(single: Single, claims: &[Claim]) -> Choice {
    let of = |is: fn(&Claim) -> bool| {
        let claims = claims.iter().enumerate();
        claims.filter(move |(_, it)| !it.is_out && is(it)).map(|(index, _)| index)
    };
    let mut right: Vec<usize> = of(|it| it.is_right).collect();
    let before = right.iter().position(|index| claims[*index].served);
    match (right.len(), before) {
        (0, _) => Choice::None,
        (1, None) => match of(|it| it.is_unknown).next() {
            Some(other) => Choice::WaitsFor(other),
            None => Choice::Serves { index: right[0], others: Vec::new() },
        },
        (1, Some(_)) => Choice::Serves { index: right[0], others: Vec::new() },
        (_, Some(before)) if single == Single::Keep => {
            let index = right.remove(before);
            Choice::Serves { index, others: right }
        }
        _ => Choice::Refused(right),
    }
}

impl Choice {
    /// Whether more than one says that it is right.
    pub fn is_conflict(&self) -> bool {
        match self {
            Choice::Refused(_) => true,
            Choice::Serves { others, .. } => !others.is_empty(),
            Choice::None | Choice::WaitsFor(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `+` right, `-` wrong, `?` not known yet, `o` right but out; a star behind it: it served before.
    fn claims(text: &str) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for letter in text.chars() {
            match (letter, claims.last_mut()) {
                ('*', Some(last)) => last.served = true,
                _ => claims.push(Claim {
                    is_right: "+o".contains(letter),
                    is_unknown: letter == '?',
                    is_out: letter == 'o',
                    served: false,
                }),
            }
        }
        claims
    }

    fn serves(index: usize, others: &[usize]) -> Choice {
        Choice::Serves { index, others: others.to_vec() }
    }

    #[test]
    fn the_one_that_is_right_serves_whoever_served_before() {
        for single in [Single::Keep, Single::Refuse] {
            assert_eq!(choose(single, &claims("+-")), serves(0, &[]));
            assert_eq!(choose(single, &claims("-*+")), serves(1, &[]));
            assert_eq!(choose(single, &claims("o*+")), serves(1, &[]), "the one by hand is out");
            assert_eq!(choose(single, &claims("-*-")), Choice::None);
            assert_eq!(choose(single, &[]), Choice::None);
        }
    }

    #[test]
    fn of_two_that_are_right_the_one_that_served_goes_on_or_none() {
        assert_eq!(choose(Single::Keep, &claims("++*-+")), serves(1, &[0, 3]));
        assert_eq!(choose(Single::Keep, &claims("++")), Choice::Refused(vec![0, 1]));
        assert_eq!(choose(Single::Keep, &claims("++-*")), Choice::Refused(vec![0, 1]));
        assert_eq!(choose(Single::Refuse, &claims("++*")), Choice::Refused(vec![0, 1]));
        assert_eq!(choose(Single::Keep, &claims("o*++")), Choice::Refused(vec![1, 2]));
    }

    #[test]
    fn at_the_start_one_waits_for_what_the_others_say() {
        assert_eq!(choose(Single::Keep, &claims("+?")), Choice::WaitsFor(1));
        assert_eq!(choose(Single::Keep, &claims("+-*?")), Choice::WaitsFor(2));
        assert_eq!(choose(Single::Keep, &claims("+*?")), serves(0, &[]), "it serves already");
        assert_eq!(choose(Single::Keep, &claims("??")), Choice::None);
    }

    fn any_claim() -> impl Strategy<Value = Claim> {
        (0..3, any::<bool>()).prop_map(|(kind, is_out)| Claim {
            is_right: kind == 0,
            is_unknown: kind == 1,
            is_out,
            served: false,
        })
    }

    proptest! {
        /// Whoever serves is right and not out; if exactly one is right and nothing is unknown, it serves; two that are
        /// right are always a conflict, and one alone never is.
        #[test]
        fn no_choice_is_wrong(
            mut claims in prop::collection::vec(any_claim(), 0..8),
            served in any::<prop::sample::Index>(),
            has_served in any::<bool>(),
            keeps in any::<bool>(),
        ) {
            if has_served && !claims.is_empty() {
                let served = served.index(claims.len());
                claims[served].served = true;
            }
            let single = if keeps { Single::Keep } else { Single::Refuse };
            let choice = choose(single, &claims);
            let right = claims.iter().filter(|it| it.is_right && !it.is_out).count();
            prop_assert_eq!(choice.is_conflict(), right > 1);
            let is_unknown = claims.iter().any(|it| it.is_unknown && !it.is_out);
            match &choice {
                Choice::Serves { index, others } => {
                    prop_assert!(claims[*index].is_right && !claims[*index].is_out);
                    prop_assert!(others.is_empty() || keeps && claims[*index].served);
                }
                Choice::Refused(_) => prop_assert!(right > 1),
                Choice::None => prop_assert_eq!(right, 0),
                Choice::WaitsFor(index) => {
                    prop_assert!(right == 1 && claims[*index].is_unknown);
                }
            }
            if right == 1 && !is_unknown {
                let is_served = matches!(choice, Choice::Serves { .. });
                prop_assert!(is_served);
            }
        }
    }
}
