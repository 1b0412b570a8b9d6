//! A session's place in the process's limit and in a worker's load, given back on drop.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_utils::CachePadded;

use super::resources::Resources;
use crate::border::plane::{Plane, WorkerLoad};
use crate::data::limits::GatePermit;

/// One session's place in the process's limit and in a worker's load, from the moment the worker is chosen. `None`:
/// it became a `Home`.
pub struct Place(Option<Arc<CachePadded<WorkerLoad>>>);

/// The worker of a session, and the session's place there.
pub struct Home(Rc<Resources>);

impl Place {
    /// `process` is the place in the process's limit.
    pub fn new(process: GatePermit, plane: &Plane, worker: usize) -> Place {
        process.keep();
        let load = Arc::clone(&plane.workers[worker]);
        load.sessions.fetch_add(1, Relaxed);
        Place(Some(load))
    }

    pub fn move_to(&mut self, plane: &Plane, worker: usize) {
        let load = Arc::clone(&plane.workers[worker]);
        load.sessions.fetch_add(1, Relaxed);
        if let Some(before) = self.0.replace(load) {
            before.sessions.fetch_sub(1, Relaxed);
        }
    }

    /// On the worker for which the place was taken, so that it need not be stored twice.
    pub fn settle(mut self, worker: &Rc<Resources>) -> Home {
        self.0 = None;
        Home(Rc::clone(worker))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(load) = &self.0 {
            leave(load);
        }
    }
}

impl Deref for Home {
    type Target = Resources;

    fn deref(&self) -> &Resources {
        &self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        leave(self.0.load());
    }
}

fn leave(load: &WorkerLoad) {
    load.gate.leave();
    load.sessions.fetch_sub(1, Relaxed);
}
