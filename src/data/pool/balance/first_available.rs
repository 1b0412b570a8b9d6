//! First available: the first in listing order that is up and below `max_sessions`. Weights only say whether a member
//! takes sessions at all.

use super::super::members::{Ask, Members};

pub struct FirstAvailable;

impl FirstAvailable {
    pub fn pick(&self, members: &Members, ask: &Ask) -> Option<usize> {
        members.take_first(0, ask).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::backend::BackendState;
    use super::super::super::tests::{build, config_of, pick, set_state};
    use crate::config::Balance::FirstAvailable;

    #[test]
    fn the_first_with_room_serves() {
        let mut config = config_of(FirstAvailable, &[1, 0, 1, 9]);
        config.backends.iter_mut().for_each(|backend| backend.max_sessions = Some(2));
        let pool = build(config);
        let mut permits: Vec<_> = (0..5).map(|number| pick(&pool, number).unwrap()).collect();
        let order: Vec<u32> = permits.iter().map(|picked| picked.index).collect();
        assert_eq!(order, [0, 0, 2, 2, 3]);
        permits.swap_remove(0);
        assert_eq!(pick(&pool, 1).unwrap().index, 0);
        set_state(&pool, 0, BackendState::Drain);
        assert_eq!(pick(&pool, 1).unwrap().index, 3);
    }
}
