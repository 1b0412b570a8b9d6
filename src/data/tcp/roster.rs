//! The open sessions of a worker, by seat.

use std::rc::Rc;

use super::session::Session;
use crate::border::plane::SEATS;

/// The open sessions of a worker: eight bytes each, in rows that never move, because there may be very many.
#[derive(Default)]
pub struct Roster {
    // Boxed although a Vec is on the heap: a growing Vec would copy, and leave its old memory behind.
    #[allow(clippy::vec_box)]
    rows: Vec<Box<[Option<Rc<Session>>; ROW]>>,
    free: Vec<u32>,
}

/// Seats of one row of the roster.
const ROW: usize = SEATS;

impl Roster {
    /// Returns the seat, which `leave` gives up.
    pub fn enter(&mut self, session: Rc<Session>) -> u32 {
        if self.free.is_empty() {
            let first = self.rows.len() * ROW;
            self.rows.push(Box::new(std::array::from_fn(|_| None)));
            let seats = first..first + ROW;
            // The lowest on top, so that the roster stays as short as it can.
            self.free.extend(seats.rev().map(|seat| {
                u32::try_from(seat).expect("descriptors run out long before 2^32 sessions")
            }));
        }
        let seat = self.free.pop().expect("a row was added if there was none");
        *self.at(seat) = Some(session);
        seat
    }

    pub fn leave(&mut self, seat: u32) {
        *self.at(seat) = None;
        self.free.push(seat);
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.rows.len() * ROW
    }

    /// Some of them, those of one row; `None`: there are no seats from this one on.
    pub fn row(&self, from: usize) -> Option<impl Iterator<Item = &Rc<Session>>> {
        Some(self.rows.get(from / ROW)?.iter().flatten())
    }

    pub fn present(&self) -> impl Iterator<Item = &Rc<Session>> {
        self.rows.iter().flat_map(|row| row.iter()).flatten()
    }

    fn at(&mut self, seat: u32) -> &mut Option<Rc<Session>> {
        let seat = seat as usize;
        &mut self.rows[seat / ROW][seat % ROW]
    }
}
