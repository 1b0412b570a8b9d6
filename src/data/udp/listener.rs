//! The door of a UDP listener: one bound socket of this worker. A batch of datagrams comes in, each finds its flow
//! (or begins one), and each flow's share leaves for its backend with as few calls as possible.

use std::sync::Arc;

use super::door::{Share, overflowed};
use super::flows::{Flows, widen};
use super::link::{Key, Load};
use crate::border::addr::canonical;
use crate::border::datagrams::{Direction, Dropped};
use crate::border::snapshot::Listener;
use crate::data::limits::ClientNet;
use crate::sys::datagram::{BATCH, Inbox, Message};

impl Flows {
    /// One batch; returns whether more may be waiting.
    pub fn from_clients(&mut self, inbox: &mut Inbox, door: u32) -> bool {
        let Some(open) = self.doors.get(widen(door)) else { return false };
        let count = match inbox.receive(&open.socket, BATCH) {
            Ok(count) => count,
            Err(error) => {
                // An error that belongs to no datagram: an unconnected socket does not get errors of others.
                tracing::debug!(listener = &*open.listener.config.name, %error, "cannot receive");
                return false;
            }
        };
        let mut shares = std::mem::take(&mut self.shares);
        for index in 0..count {
            self.arrive(inbox, door, index, &mut shares);
        }
        // The datagrams of a flow stay in order; between flows there is no order.
        shares.sort_by_key(|share| share.flow.index);
        for of_one in shares.chunk_by(|a, b| a.flow == b.flow) {
            self.forward(inbox, door, of_one);
        }
        shares.clear();
        self.shares = shares;
        count == BATCH
    }

    /// Finds the flow of each datagram of a message.
    fn arrive(&mut self, inbox: &Inbox, door: u32, index: usize, shares: &mut Vec<Share>) {
        let message = inbox.message(index);
        let Some((key, let_in)) = self.look_at(&message, door) else { return };
        let (segment, length) = (message.segment(), message.payload.len());
        let cut = |datagram: u64| {
            let end = usize::try_from(datagram).unwrap_or(usize::MAX).saturating_mul(segment);
            end.min(length)
        };
        let mut done = 0;
        while done < let_in {
            let Some(flow) = self.flow_of(&key, let_in - done) else { return };
            let taken = self.table.request(flow, let_in - done, self.now_ms);
            debug_assert!(taken > 0, "a flow that takes nothing is not found any more");
            let (start, end) = (cut(done), cut(done + taken));
            shares.push(Share { flow, message: index, start, end, segment });
            done += taken.max(1);
        }
    }

    /// Counts a message, and returns its client and how many of its datagrams may go on.
    fn look_at(&mut self, message: &Message<'_>, door: u32) -> Option<(Key, u64)> {
        if message.beside.is_broadcast && self.worker > 0 {
            // The first worker gets it, too.
            return None;
        }
        let open = self.doors.get_mut(widen(door))?;
        let datagrams = message.datagrams() as u64;
        let counters = open.listener.live.datagrams.of(self.thread);
        let overflow = overflowed(&mut open.overflow, &message.beside);
        counters.dropped(Dropped::ReceiveBuffer).add(u64::from(overflow));
        counters.passed(Direction::FromClient).add(datagrams);
        if message.is_truncated {
            counters.dropped(Dropped::Truncated).add(datagrams);
            return None;
        }
        if message.from.address().is_none_or(|source| source.port() == 0) {
            counters.dropped(Dropped::InvalidSource).add(datagrams);
            return None;
        }
        let key = open.key(door, message);
        let limits = &open.listener.config.limits;
        if limits.datagram_rate.is_none() && limits.datagram_rate_per_client.is_none() {
            return Some((key, datagrams));
        }
        let listener = Arc::clone(&open.listener);
        let let_in = self.within_rates(&listener, &key, datagrams);
        self.counters(&listener).dropped(Dropped::DatagramRate).add(datagrams - let_in);
        Some((key, let_in))
    }

    /// How many of these datagrams the rates allow. Those beyond are dropped whole; the first ones go on.
    fn within_rates(&mut self, listener: &Listener, key: &Key, count: u64) -> u64 {
        let (limits, quotas) = (&listener.config.limits, &listener.live.quotas);
        let mut let_in = count;
        if let Some(rate) = limits.datagram_rate_per_client {
            let known = self.table.find(key).and_then(|id| self.table.get(id));
            let bucket = match known.and_then(|(_, link)| link.rate.as_ref()) {
                Some(bucket) => Some(Arc::clone(bucket)),
                None => key.client.address().and_then(|client| {
                    let net = ClientNet::of(canonical(client).ip());
                    quotas.datagram_rates.bucket(net, self.now_ns)
                }),
            };
            if let Some(bucket) = bucket {
                let_in = bucket.take(rate, let_in, self.now_ns);
            }
        }
        match limits.datagram_rate {
            Some(rate) => quotas.datagrams.take(rate, let_in, self.now_ns),
            None => let_in,
        }
    }

    /// Sends one flow's share of the batch to its backend.
    fn forward(&mut self, inbox: &Inbox, door: u32, shares: &[Share]) {
        if self.table.get(shares[0].flow).is_none() {
            // It was evicted by another flow of the batch.
            let Some(open) = self.doors.get(widen(door)) else { return };
            let lost = shares.iter().map(Share::datagrams).sum();
            return self.counters(&open.listener).dropped(Dropped::OverLimit).add(lost);
        }
        // A message has one share for a flow, so there are no more than messages.
        let mut loads: [Load<'_>; BATCH] = [(&[], 0); BATCH];
        let mut count = 0;
        for (load, share) in loads.iter_mut().zip(shares) {
            let payload = inbox.payload(share.message);
            *load = (&payload[share.start..share.end], share.segment);
            count += 1;
        }
        debug_assert_eq!(count, shares.len());
        self.dispatch(shares[0].flow, &mut loads[..count]);
    }
}
