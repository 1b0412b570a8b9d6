//! One worker: its resources, its sessions, and the way to the other workers. A session lives and dies here.

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::mailbox::{Arrival, Mailbox};
use super::resources::Resources;
use super::roster::Roster;
use crate::border::plane::{Cut, Part, SEATS, SessionFilter};
use crate::border::record::CloseReason;
use crate::border::snapshot::Listener;

pub struct Worker {
    pub resources: Rc<Resources>,
    pub sessions: RefCell<Roster>,
    all: Box<[Mailbox]>,
}

impl Deref for Worker {
    type Target = Resources;

    fn deref(&self) -> &Resources {
        &self.resources
    }
}

impl Worker {
    pub fn new(resources: Resources, all: Box<[Mailbox]>) -> Rc<Worker> {
        Rc::new(Worker { resources: Rc::new(resources), sessions: RefCell::default(), all })
    }

    pub fn cut(&self, cut: &Cut) {
        // Cutting wakes the session, it does not run it: the table does not change under the iterator.
        let mut count = 0;
        for session in self.sessions.borrow().present() {
            if session.matches(&cut.filter) {
                session.cut(cut.reason);
                count += 1;
            }
        }
        cut.counted(count);
    }

    pub fn list(&self, filter: &SessionFilter, from: usize) -> Part {
        let sessions = self.sessions.borrow();
        let Some(row) = sessions.row(from) else { return Part::default() };
        let wanted = row.filter(|session| session.matches(filter));
        Part { rows: wanted.map(|session| session.row()).collect(), next: Some(from + SEATS) }
    }

    /// Cuts those sessions in some seats whose clients are denied now; returns whether there are more seats.
    pub fn look_again(&self, listeners: &[Arc<Listener>], from: usize) -> bool {
        let sessions = self.sessions.borrow();
        let Some(row) = sessions.row(from) else { return false };
        for session in row {
            let is_now = |now: &&Arc<Listener>| *now.config.name == *session.listener_name();
            if let Some(now) = listeners.iter().find(is_now)
                && !session.may_stay(now)
            {
                session.cut(CloseReason::Denied);
            }
        }
        true
    }

    /// The worker for a new session: this one, unless it is clearly busier than the least busy one. The kernel
    /// spreads by hash, which is even for many sessions and uneven for a few long ones.
    pub fn least_busy(&self) -> usize {
        let load = |id: usize| self.plane.workers[id].sessions.load(Relaxed);
        let Some(least) = (0..self.all.len()).min_by_key(|id| load(*id)) else { return self.id };
        let (mine, theirs) = (load(self.id), load(least));
        if mine > theirs + 1 + theirs / 4 { least } else { self.id }
    }

    /// Passes an accepted session to another worker, or returns it if that worker's queue is full.
    pub fn hand_over(&self, to: usize, arrival: Arrival) -> Result<(), Arrival> {
        self.all[to].arrivals.try_send(arrival).map_err(|error| error.into_inner())
    }
}
