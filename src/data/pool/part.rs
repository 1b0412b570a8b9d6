//! What a backend's pool makes of it, besides what its probes say: whether it may serve (`single`), is held down (`flap`),
//! or waits (`failback`). Written by `order`; a pick sees only the weight that follows.

use std::time::SystemTime;

use super::flap::{Changes, HoldDown};
use crate::border::quantities::moment;

#[derive(Clone, Debug, Default)]
pub struct Part {
    pub seat: Seat,
    pub changes: Changes,
    pub hold: Option<HoldDown>,
    /// The hold was told.
    pub is_told: bool,
    /// It is up, and another tier serves.
    pub waits: Option<Waits>,
    /// An operator said that its tier may serve again.
    pub is_let: bool,
}

/// With `single`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seat {
    /// There is no such rule.
    #[default]
    Free,
    /// It gets no sessions; why.
    LeftOut(String),
    /// The only one that may get sessions.
    Serves,
}

/// What a tier waits for that is up and does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    ForAHand,
    Until(SystemTime),
}

impl Part {
    /// Continues after why it is up.
    pub fn wait_in_words(&self) -> String {
        match self.waits {
            None => String::new(),
            Some(Waits::ForAHand) => "; waits for failback: by hand".to_owned(),
            Some(Waits::Until(until)) => format!("; waits for failback until {}", moment(until)),
        }
    }

    pub fn is_kept_from_serving(&self) -> bool {
        self.hold.is_some() || matches!(self.seat, Seat::LeftOut(_))
    }
}
