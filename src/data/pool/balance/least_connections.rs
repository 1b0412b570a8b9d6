//! Least connections by weight: the member with the smallest (sessions + 1) / weight. A session counts from the
//! moment it was placed, also while it connects. Exact over all workers: the slot is taken by compare-exchange on the
//! very count that was compared. Among equals, the first after the member picked last.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::super::members::{Ask, Members};

#[derive(Default)]
pub struct LeastConnections {
    rotation: Rotation,
}

/// Where the search begins, so that equals take turns: one past the position picked last. A random beginning would
/// favour the first after a row of members that are down.
#[derive(Default)]
pub struct Rotation(AtomicUsize);

impl LeastConnections {
    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        let position = members.take_lightest(self.rotation.start(members), ask)?;
        self.rotation.picked(position);
        Some(position)
    }
}

impl Rotation {
    pub fn start(&self, members: &Members) -> usize {
        let start = self.0.load(Relaxed);
        if start < members.len() { start } else { 0 }
    }

    pub fn picked(&self, position: usize) {
        self.0.store(position + 1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{counts, pick, pool_of, sessions, set_state};
    use crate::config::Balance::LeastConnections;
    use proptest::prelude::*;

    #[test]
    fn equals_take_turns() {
        let pool = pool_of(LeastConnections, &[1; 5]);
        set_state(&pool, 3, BackendState::Down);
        assert_eq!(counts(&pool, 40), [10, 10, 10, 0, 10]);
    }

    #[test]
    fn the_lightest_is_picked() {
        let pool = pool_of(LeastConnections, &[1; 200]);
        let mut permits: Vec<_> = (0..600).map(|number| pick(&pool, number).unwrap()).collect();
        assert_eq!(sessions(&pool), [3; 200]);
        let light = permits.swap_remove(77).index;
        assert_eq!(pick(&pool, 1).unwrap().index, light);
    }

    #[test]
    fn it_is_exact_over_threads() {
        let pool = pool_of(LeastConnections, &[1; 7]);
        let permits: Vec<_> = std::thread::scope(|scope| {
            let fill = || (0..250).map(|number| pick(&pool, number).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(fill)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let counts = sessions(&pool);
        assert_eq!(counts.iter().sum::<u32>(), 1_000);
        // 142 or 143 each; one more if the quicker threads outran a slow one's scans.
        assert!(counts.iter().all(|count| (141..=144).contains(count)), "{counts:?}");
        drop(permits);
        assert_eq!(sessions(&pool), [0; 7]);
    }

    proptest! {
        #[test]
        fn held_sessions_are_shared_by_weight(weights in prop::collection::vec(1..=20_u32, 1..20)) {
            let pool = pool_of(LeastConnections, &weights);
            let total: u32 = weights.iter().sum();
            let permits: Vec<_> = (0..total * 3).map(|number| pick(&pool, number).unwrap()).collect();
            let expected: Vec<u32> = weights.iter().map(|weight| weight * 3).collect();
            prop_assert_eq!(sessions(&pool), expected);
            drop(permits);
        }
    }
}
