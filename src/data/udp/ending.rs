//! How flows end, each with one record: expired, cut, their door closed, the process stopped; and clients that got none.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::flow_table::{Ended, FlowId};
use super::flows::{Flows, widen};
use super::link::{Key, Link};
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::datagrams::Dropped;
use crate::border::plane::Cut;
use crate::border::record::{CloseReason, Record, Stage, can_occur};
use crate::config::Protocol;
use crate::data::pool::SESSION_BOUNDS;

impl Flows {
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
        self.doomed.extend(ids.into_iter().map(|id| (id, cut.reason)));
    }

    /// Ends the flows that were cut, at most `most` of them.
    pub fn end_doomed(&mut self, most: usize) {
        for _ in 0..most {
            let Some((id, reason)) = self.doomed.pop_front() else { return };
            self.end(id, Stage::Relay, reason);
        }
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
