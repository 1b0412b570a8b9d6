//! One tier of a pool: its members and the algorithm that picks among them.

use std::sync::Arc;

use super::backend::Backend;
use super::balance::Picker;
use super::members::{Ask, Members};
use super::pick::PickError;
use super::slots::Weights;
use crate::config;

pub struct Tier {
    pub number: u32,
    members: Members,
    pub(super) picker: Picker,
}

impl Tier {
    pub fn build(
        number: u32,
        config: &config::Pool,
        backends: &[Arc<Backend>],
        indices: Vec<u32>,
        previous: Option<&Tier>,
    ) -> Tier {
        let members = Members::new(backends, indices);
        let picker = Picker::build(config, &members, previous.map(|tier| &tier.picker));
        Tier { number, members, picker }
    }

    /// How many sessions its roomiest member could take now; `None`: nobody in it is up. A member that failed may be dead
    /// until it serves.
    pub fn room(&self, weights: Weights) -> Option<u32> {
        let up = (0..self.members.len()).filter(|it| self.members.hot(*it).weight(weights) > 0);
        let room = |position| match self.members.backend(position).live.rest.is_lifted() {
            true => self.members.hot(position).room(),
            false => 0,
        };
        up.map(room).max()
    }

    /// Takes a slot; returns the backend's index in the pool, or why no backend of the tier serves.
    pub fn pick(&self, ask: &Ask) -> Result<u32, PickError> {
        let position = match self.picker.pick(&self.members, ask) {
            Some(position) => position,
            // The algorithm found no backend within its bounds: any free one, or why there is none.
            None => self.members.take_first(0, ask)?,
        };
        Ok(self.members.index(position))
    }
}
