//! The flows of one worker: by client for its datagrams, by idleness for expiry and eviction. Pure: time is passed
//! in, and what else a flow holds (`T`: its socket, its permits) is the caller's. Nothing here waits, and each
//! operation takes a constant number of steps.
//!
//! ```text
//! by_key ──▶ slots[i] ── Entry {flow, item} ◀── earlier / later ── Queue of its (group, timeout), longest idle first
//! ```
//!
//! All flows of a queue have the same timeout and move to its end whenever a datagram passes, so the first one
//! expires first. Neither a heap nor a timer wheel is needed, and nothing stale is left when flows end early.

use std::collections::HashMap;
use std::hash::Hash;

use super::flow::{Flow, Rules};
use crate::sys::keyed::Keyed;

/// A flow's place, valid until the flow ends: another flow in the same place has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowId {
    pub index: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

pub struct FlowTable<K, T> {
    slots: Vec<Slot<K, T>>,
    free: Vec<u32>,
    /// Flows that take their client's datagrams. A flow that has had all its `requests` is no longer here.
    by_key: HashMap<K, u32, Keyed>,
    queues: Vec<Queue>,
    /// The latest time that was passed in: a clock that seems to go back must not break the queues' order.
    now_ms: u64,
}

struct Slot<K, T> {
    generation: u32,
    entry: Option<Entry<K, T>>,
}

struct Entry<K, T> {
    key: K,
    flow: Flow,
    is_current: bool,
    queue: usize,
    earlier: u32,
    later: u32,
    item: T,
}

/// Flows that expire after the same idleness and may make room for each other, longest idle first.
#[derive(Clone, Copy)]
struct Queue {
    group: u64,
    timeout_ms: u64,
    first: u32,
    last: u32,
}

/// What is left of a flow that ended.
#[derive(Debug)]
pub struct Ended<K, T> {
    pub key: K,
    pub flow: Flow,
    pub item: T,
}

impl<K, T> Default for FlowTable<K, T> {
    fn default() -> Self {
        FlowTable {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            queues: Vec::new(),
            now_ms: 0,
        }
    }
}

impl<K: Copy + Eq + Hash, T> FlowTable<K, T> {
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The flow that takes this client's next datagram.
    pub fn find(&self, key: &K) -> Option<FlowId> {
        self.by_key.get(key).map(|index| self.id(*index))
    }

    /// Begins a flow, which gets the client's next datagram. A flow that had this key before only takes replies from
    /// now on. Flows of one `group` make room for each other.
    pub fn begin(&mut self, key: K, group: u64, rules: Rules, now_ms: u64, item: T) -> FlowId {
        let now_ms = self.at(now_ms);
        if let Some(before) = self.find(&key) {
            self.detach(before);
        }
        let queue = self.queue(group, rules.timeout_ms);
        let flow = Flow::new(rules, now_ms);
        let entry = Entry { key, flow, is_current: true, queue, earlier: NONE, later: NONE, item };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|index| *index != NONE);
                let index = index.expect("descriptors run out long before 2^32 flows");
                self.slots.push(Slot { generation: 0, entry: None });
                index
            }
        };
        self.slot(index).entry = Some(entry);
        self.append(index);
        self.by_key.insert(key, index);
        self.id(index)
    }

    /// The flow and what it holds; `None` if it ended.
    pub fn get(&self, id: FlowId) -> Option<(&Flow, &T)> {
        let slot = self.slots.get(widen(id.index)).filter(|it| it.generation == id.generation)?;
        slot.entry.as_ref().map(|entry| (&entry.flow, &entry.item))
    }

    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut T> {
        self.entry(id).map(|entry| &mut entry.item)
    }

    /// The number of places, taken and free.
    pub fn seats(&self) -> usize {
        self.slots.len()
    }

    /// The flow in a place, if there is one now.
    pub fn at_index(&self, index: u32) -> Option<FlowId> {
        let slot = self.slots.get(widen(index))?;
        slot.entry.is_some().then_some(FlowId { index, generation: slot.generation })
    }

    /// The client sent `count` datagrams: how many of them the flow takes. After its last one it makes way for the
    /// client's next flow, and lives on for the replies.
    pub fn request(&mut self, id: FlowId, count: u64, now_ms: u64) -> u64 {
        let now_ms = self.at(now_ms);
        let Some(entry) = self.entry(id) else { return 0 };
        let taken = entry.flow.request(count, now_ms);
        let is_full = entry.flow.is_full();
        self.append_anew(id.index);
        if is_full {
            self.detach(id);
        }
        taken
    }

    /// The backend sent `count` datagrams: whether the flow is complete.
    pub fn reply(&mut self, id: FlowId, count: u64, now_ms: u64) -> bool {
        let now_ms = self.at(now_ms);
        let Some(entry) = self.entry(id) else { return false };
        let is_complete = entry.flow.reply(count, now_ms);
        if !entry.flow.is_retired {
            self.append_anew(id.index);
        }
        is_complete
    }

    /// The client's next datagram begins another flow. This one only waits for replies that are under way, at most
    /// `timeout_ms` in all: a backend that never stops sending must not keep it alive.
    pub fn retire(&mut self, id: FlowId, timeout_ms: u64, now_ms: u64) {
        let now_ms = self.at(now_ms);
        self.detach(id);
        let Some(entry) = self.entry(id) else { return };
        entry.flow.rules.timeout_ms = timeout_ms.min(entry.flow.rules.timeout_ms);
        entry.flow.last_ms = now_ms;
        entry.flow.is_retired = true;
        let (queue, timeout_ms) = (entry.queue, entry.flow.rules.timeout_ms);
        let group = self.queues[queue].group;
        self.unlink(id.index);
        let queue = self.queue(group, timeout_ms);
        if let Some(entry) = self.entry(id) {
            entry.queue = queue;
        }
        self.append(id.index);
    }

    /// A flow that has expired.
    pub fn expired(&self, now_ms: u64) -> Option<FlowId> {
        self.heads().find(|(deadline, _)| *deadline <= now_ms).map(|(_, index)| self.id(index))
    }

    /// When the next flow expires.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.heads().map(|(deadline, _)| deadline).min()
    }

    /// The flow of the group that was idle longest.
    pub fn longest_idle(&self, group: u64) -> Option<FlowId> {
        let queues = self.queues.iter().filter(|queue| queue.group == group);
        let heads = queues.filter_map(|queue| Some((self.peek(queue.first)?.flow.last_ms, queue)));
        heads.min_by_key(|(last, _)| *last).map(|(_, queue)| self.id(queue.first))
    }

    /// Removes a flow; `None` if it ended before.
    pub fn end(&mut self, id: FlowId) -> Option<Ended<K, T>> {
        self.entry(id)?;
        self.detach(id);
        self.unlink(id.index);
        let slot = self.slot(id.index);
        slot.generation = slot.generation.wrapping_add(1);
        let Entry { key, flow, item, .. } = slot.entry.take()?;
        self.free.push(id.index);
        Some(Ended { key, flow, item })
    }

    /// All flows, in no particular order.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> {
        let indices = 0..u32::try_from(self.slots.len()).unwrap_or(NONE);
        indices.filter_map(|index| self.at_index(index))
    }

    fn at(&mut self, now_ms: u64) -> u64 {
        self.now_ms = self.now_ms.max(now_ms);
        self.now_ms
    }

    fn id(&self, index: u32) -> FlowId {
        FlowId { index, generation: self.slots[widen(index)].generation }
    }

    fn slot(&mut self, index: u32) -> &mut Slot<K, T> {
        &mut self.slots[widen(index)]
    }

    fn peek(&self, index: u32) -> Option<&Entry<K, T>> {
        self.slots.get(widen(index))?.entry.as_ref()
    }

    fn entry(&mut self, id: FlowId) -> Option<&mut Entry<K, T>> {
        let slot = self.slots.get_mut(widen(id.index))?;
        slot.entry.as_mut().filter(|_| slot.generation == id.generation)
    }

    fn neighbour(&mut self, index: u32) -> Option<&mut Entry<K, T>> {
        self.slots.get_mut(widen(index))?.entry.as_mut()
    }

    /// The client's next datagram does not go to this flow.
    fn detach(&mut self, id: FlowId) {
        let Some(entry) = self.entry(id) else { return };
        if std::mem::take(&mut entry.is_current) {
            let key = entry.key;
            self.by_key.remove(&key);
        }
    }

    fn heads(&self) -> impl Iterator<Item = (u64, u32)> {
        self.queues
            .iter()
            .filter_map(|queue| Some((self.peek(queue.first)?.flow.deadline_ms(), queue.first)))
    }

    /// There are few: one for each listener, and for each timeout that it had since its oldest flow began.
    fn queue(&mut self, group: u64, timeout_ms: u64) -> usize {
        let same = |it: &Queue| it.group == group && it.timeout_ms == timeout_ms;
        if let Some(queue) = self.queues.iter().position(same) {
            return queue;
        }
        let fresh = Queue { group, timeout_ms, first: NONE, last: NONE };
        if let Some(queue) = self.queues.iter().position(|it| it.first == NONE) {
            self.queues[queue] = fresh;
            return queue;
        }
        self.queues.push(fresh);
        self.queues.len() - 1
    }

    fn append_anew(&mut self, index: u32) {
        let Some(entry) = self.peek(index) else { return };
        // The busiest flow is often the last already.
        if entry.later != NONE {
            self.unlink(index);
            self.append(index);
        }
    }

    fn append(&mut self, index: u32) {
        let Some(queue) = self.peek(index).map(|entry| entry.queue) else { return };
        let last = std::mem::replace(&mut self.queues[queue].last, index);
        match self.neighbour(last) {
            Some(last) => last.later = index,
            None => self.queues[queue].first = index,
        }
        if let Some(entry) = self.neighbour(index) {
            entry.earlier = last;
            entry.later = NONE;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Some(entry) = self.peek(index) else { return };
        let (queue, earlier, later) = (entry.queue, entry.earlier, entry.later);
        match self.neighbour(earlier) {
            Some(entry) => entry.later = later,
            None => self.queues[queue].first = later,
        }
        match self.neighbour(later) {
            Some(entry) => entry.earlier = earlier,
            None => self.queues[queue].last = earlier,
        }
    }
}

/// An index as a `usize`, which has at least 32 bits on every system with sockets.
fn widen(index: u32) -> usize {
    index as usize
}
