//! Everything that a worker's UDP thread knows: its doors, its flows, and the time. Ends flows, each with one record.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use slab::Slab;

use super::door::{Door, Share};
use super::flow_table::{Ended, FlowId, FlowTable};
use super::link::{Key, Link};
use super::loops::Answerers;
use super::source_ports::SourcePorts;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::datagrams::{DatagramCounters, Dropped};
use crate::border::plane::{Cut, Part, Plane, SEATS, SessionFilter, SessionRow};
use crate::border::record::{CloseReason, Record, Stage, can_occur};
use crate::border::snapshot::Terms;
use crate::config::Protocol;
use crate::data::pool::SESSION_BOUNDS;
use crate::sys::clock;
use crate::sys::datagram::BATCH;

/// Log lines about refused datagrams that one worker writes in a second; anybody can send any number of them.
const REFUSALS: u32 = 100;

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
    /// No new client is admitted.
    pub is_draining: bool,
    refusals: Refusals,
}

/// How many lines about refused datagrams were written in which second.
#[derive(Default)]
struct Refusals {
    second: u64,
    count: u32,
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
            is_draining: false,
            refusals: Refusals::default(),
        }
    }

    pub fn counters<'a>(&self, listener: &'a Terms) -> &'a DatagramCounters {
        listener.live.datagrams.of(self.thread)
    }

    /// Ends a flow and records it; what it held is given back.
    pub fn end(&mut self, id: FlowId, stage: Stage, reason: CloseReason) {
        if let Some(ended) = self.table.end(id) {
            self.record(&ended, stage, reason);
        }
    }

    pub fn record(&self, ended: &Ended<Key, Link>, stage: Stage, reason: CloseReason) {
        debug_assert!(can_occur(Protocol::Udp, stage, reason), "{stage:?} and {reason:?}");
        let link = &ended.item;
        let listener = &link.places.listener;
        listener.live.counters.of(self.thread).closed(stage, reason).add(1);
        let backend = &link.slot.backend;
        let duration = link.started.elapsed();
        let of_pool = backend.shared.counters.of(self.thread);
        of_pool.session_duration.observe(&SESSION_BOUNDS, duration);
        if self.plane.session_log.wants(reason) {
            self.plane.session_log.write(Record {
                id: link.id,
                listener: Arc::clone(&listener.config.name),
                protocol: Protocol::Udp,
                client: ClientAddr::Inet(link.client),
                sender: None,
                local: LocalAddr::Inet(link.dialled),
                server_name: None,
                cause: None,
                pool: Some(Arc::clone(&backend.pool)),
                backend: Some(Arc::clone(&backend.name)),
                tried: link.failed_attempts(),
                stage,
                reason,
                bytes: link.bytes,
                connect: None,
                first_byte: link.first_reply,
                duration,
            });
        }
    }

    /// Datagrams of a client that got no flow: one refused flow, recorded here.
    pub fn refuse(
        &mut self,
        door: u32,
        key: &Key,
        stage: Stage,
        reason: CloseReason,
        dropped: (Dropped, u64),
    ) {
        debug_assert!(can_occur(Protocol::Udp, stage, reason), "{stage:?} and {reason:?}");
        let Some(door) = self.doors.get(widen(door)) else { return };
        let listener = Arc::clone(&door.listener);
        self.counters(&listener).dropped(dropped.0).add(dropped.1);
        let counters = listener.live.counters.of(self.thread);
        counters.sessions.add(1);
        counters.closed(stage, reason).add(1);
        if !self.plane.session_log.wants(reason) {
            return;
        }
        if !self.refusals.may_write(self.now_ms) {
            self.plane.session_log.dropped.add(1);
            return;
        }
        let (client, dialled) = door.addresses(key);
        let ends = (ClientAddr::Inet(client), LocalAddr::Inet(dialled));
        let id = self.plane.next_session_id();
        self.plane.session_log.write(Record::refusal(id, &listener.config, ends, stage, reason));
    }

    /// Ends the flows that have expired, at most `most` of them; returns whether there are more.
    pub fn expire(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(id) = self.table.expired(self.now_ms) else { return false };
            let retired = self.table.get(id).and_then(|(_, link)| link.retired);
            self.end(id, Stage::Relay, retired.unwrap_or(CloseReason::FlowExpired));
        }
        self.table.expired(self.now_ms).is_some()
    }

    pub fn cut(&mut self, cut: &Cut) {
        let ids: Vec<FlowId> = self.matching(&cut.filter).collect();
        cut.counted(ids.len());
        for id in ids {
            self.end(id, Stage::Relay, cut.reason);
        }
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

    /// Closes a door: its flows can no longer be reached.
    pub fn close(&mut self, doors: &[usize]) {
        let closed: HashSet<usize> = doors.iter().copied().collect();
        let of_door = |id: &FlowId| {
            let flow = self.table.get(*id);
            flow.is_some_and(|(_, link)| closed.contains(&widen(link.key.door)))
        };
        let ids: Vec<FlowId> = self.table.ids().filter(of_door).collect();
        for id in ids {
            self.end(id, Stage::Relay, CloseReason::Drained);
        }
        for door in doors {
            self.doors.try_remove(*door);
        }
    }

    /// Ends everything: the process stops.
    pub fn stop(&mut self) {
        let ids: Vec<FlowId> = self.table.ids().collect();
        for id in ids {
            self.end(id, Stage::Relay, CloseReason::Drained);
        }
        let busy = self.plane.workers[self.worker].flows.load(Relaxed);
        debug_assert_eq!(busy, 0, "every flow gave its place back");
    }
}

impl Refusals {
    fn may_write(&mut self, now_ms: u64) -> bool {
        let second = now_ms / 1000;
        if second != self.second {
            *self = Refusals { second, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count <= REFUSALS
    }
}

/// An index as a `usize`, which has at least 32 bits on every system with sockets.
pub fn widen(index: u32) -> usize {
    index as usize
}
