//! Everything that a worker's UDP thread knows: its doors, its flows, and the time. Ends flows, each with one record.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::door::{Door, Share};
use super::flow_table::{FlowId, FlowTable};
use super::link::{Key, Link};
use super::loops::Answerers;
use super::refusals::Refusals;
use super::source_ports::SourcePorts;
use crate::border::datagrams::DatagramCounters;
use crate::border::plane::{Part, Plane, SEATS, SessionFilter, SessionRow};
use crate::border::record::{CloseReason, Stage};
use crate::border::snapshot::Terms;
use crate::sys::clock;
use crate::sys::datagram::BATCH;

pub struct Flows {
    pub worker: usize,
    /// Its cell of statistics.
    pub thread: usize,
    pub plane: Arc<Plane>,
    pub source_ports: Arc<SourcePorts>,
    pub table: FlowTable<Key, Link>,
    pub doors: Slab<Door>,
    pub answerers: Arc<Answerers>,
    /// The time of the turn, on the coarse clock.
    pub now_ms: u64,
    /// The same in nanoseconds, for rates.
    pub now_ns: u64,
    /// Flows that began and must be watched.
    pub fresh: Vec<FlowId>,
    /// Memory for the shares of a batch, kept for the next one.
    pub shares: Vec<Share>,
    /// Flows that must end, when it is their turn.
    pub doomed: VecDeque<(FlowId, CloseReason)>,
    /// No new client is admitted.
    pub is_draining: bool,
    pub(super) refusals: Refusals,
}

impl Flows {
    pub fn new(worker: usize, plane: Arc<Plane>, source_ports: Arc<SourcePorts>) -> Flows {
        Flows {
            worker,
            thread: plane.udp_thread(worker),
            plane,
            source_ports,
            table: FlowTable::default(),
            doors: Slab::new(),
            answerers: Arc::default(),
            now_ms: clock::coarse_ms(),
            now_ns: 0,
            fresh: Vec::new(),
            shares: Vec::with_capacity(BATCH),
            doomed: VecDeque::new(),
            is_draining: false,
            refusals: Refusals::default(),
        }
    }

    pub fn counters<'a>(&self, listener: &'a Terms) -> &'a DatagramCounters {
        listener.live.datagrams.of(self.thread)
    }

    pub fn list(&self, filter: &SessionFilter, from: usize) -> Part {
        let end = from + SEATS;
        let wanted = (from..end).filter_map(|seat| self.table.at_index(u32::try_from(seat).ok()?));
        let wanted = wanted.filter(|id| self.matches(*id, filter));
        let next = (end < self.table.seats()).then_some(end);
        Part { rows: wanted.filter_map(|id| self.row(id)).collect(), next }
    }

    pub fn matching(&self, filter: &SessionFilter) -> impl Iterator<Item = FlowId> {
        self.table.ids().filter(move |id| self.matches(*id, filter))
    }

    fn matches(&self, id: FlowId, filter: &SessionFilter) -> bool {
        self.table.get(id).is_some_and(|(_, link)| {
            let backend = &link.slot.backend;
            filter.id.is_none_or(|id| id == link.id)
                && filter.client.is_none_or(|ip| ip == link.client.ip())
                && filter.pool.as_deref().is_none_or(|pool| *pool == *backend.pool)
                && filter.backend.as_deref().is_none_or(|name| *name == *backend.name)
                && filter.address.as_ref().is_none_or(|address| *address == backend.address)
                && filter.stage.is_none_or(|stage| stage == Stage::Relay)
        })
    }

    fn row(&self, id: FlowId) -> Option<SessionRow> {
        let (flow, link) = self.table.get(id)?;
        let backend = &link.slot.backend;
        Some(SessionRow {
            id: link.id,
            listener: Arc::clone(&link.places.listener.config.name),
            pool: Some(Arc::clone(&backend.pool)),
            backend: Some(Arc::clone(&backend.name)),
            client: link.client.to_string(),
            age: link.started.elapsed(),
            idle: Duration::from_millis(clock::coarse_ms().saturating_sub(flow.last_ms)),
            received_bytes: link.bytes.client_received,
            sent_bytes: link.bytes.client_sent,
            stage: Stage::Relay,
            worker: self.worker,
        })
    }

    /// The connect failures of a backend, by the kernel's error.
    pub fn count_failure(&self, link: &Link, error: &std::io::Error) {
        let failures = &link.slot.backend.live.connect_failures;
        let counter = match error.raw_os_error() {
            Some(libc::ECONNREFUSED) => &failures.refused,
            _ => &failures.unreachable,
        };
        counter.add(1);
    }
}

/// An index as a `usize`, which has at least 32 bits on every system with sockets.
pub fn widen(index: u32) -> usize {
    index as usize
}
