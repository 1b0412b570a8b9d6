//! What a worker has for its sessions: scratch buffer, pipes, source ports, the plane it belongs to. A session knows this
//! much of its worker and no more.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::source_ports::SourcePorts;
use super::spin::Spin;
use crate::border::plane::{Plane, WorkerLoad};
use crate::sys::pipe::PipeStock;

/// The buffer for small messages; stays in the cache because all sessions of the worker share it.
pub const SCRATCH: usize = 64 * 1024;

/// A worker's share of the process's resources.
#[derive(Clone)]
pub struct Share {
    /// Pipes that it may have lent out at once.
    pub pipes: usize,
    /// Common to all workers.
    pub source_ports: Arc<SourcePorts>,
}

pub struct Resources {
    /// Of the worker.
    pub id: usize,
    pub plane: Arc<Plane>,
    pub source_ports: Arc<SourcePorts>,
    pub scratch: RefCell<Box<[u8]>>,
    pub pipes: RefCell<PipeStock>,
    /// Used for a moment when no descriptors are left, to refuse a client instead of letting it hang.
    pub reserve: RefCell<Reserve>,
    pub spin: Spin,
}

impl Resources {
    pub fn new(id: usize, plane: Arc<Plane>, share: Share) -> Resources {
        Resources {
            id,
            plane,
            source_ports: share.source_ports,
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            pipes: RefCell::new(PipeStock::new(share.pipes)),
            reserve: RefCell::new(Reserve::new()),
            spin: Spin::default(),
        }
    }

    pub fn load(&self) -> &WorkerLoad {
        &self.plane.workers[self.id]
    }
}

/// A descriptor kept for when none is left.
pub struct Reserve(Option<OwnedFd>);

impl Reserve {
    fn new() -> Reserve {
        let mut reserve = Reserve(None);
        reserve.renew();
        reserve
    }

    /// Frees the descriptor; returns whether there was one.
    pub fn spend(&mut self) -> bool {
        self.0.take().is_some()
    }

    pub fn renew(&mut self) {
        self.0 = std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
    }
}
