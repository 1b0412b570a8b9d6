//! Datagrams on their way: from a flow's client to its backend, and the replies back.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::time::Instant;

use bytes::Bytes;

use super::door::overflowed;
use super::flow_table::FlowId;
use super::flows::{Flows, widen};
use super::link::{Header, Link, Load, Sent, attempt, send_all, why};
use crate::border::datagrams::{DatagramCounters, Direction, Dropped};
use crate::border::record::{CloseReason, Stage};
use crate::data::pool::backend::CONNECT_BOUNDS;
use crate::data::pool::ejection;
use crate::sys::datagram::{BATCH, Inbox, Parcel};

/// Replies per read, and in the first read of a turn.
const REPLIES: usize = 16;
const FIRST_REPLIES: usize = 2;

/// Reads per turn, including errors: the other flows get their turn before the rest.
const READS: usize = 4;

/// A first datagram larger than this is not kept for another try: it costs memory, and requests that expect an answer
/// are smaller.
const AGAIN: usize = 1500;

impl Flows {
    /// Takes what a client sent, and sends it to the flow's backend.
    pub fn dispatch(&mut self, id: FlowId, loads: &mut [Load<'_>]) {
        let Some(link) = self.table.get_mut(id) else { return };
        let Some(door) = self.doors.get(widen(link.key.door)) else { return };
        let received: u64 = loads.iter().map(|(bytes, _)| bytes.len() as u64).sum();
        link.bytes.client_received += received;
        door.listener.live.counters.of(self.thread).received_bytes.add(received);
        if link.sent == 0 && is_one_datagram(loads) && loads[0].0.len() <= AGAIN {
            link.again = Some(Bytes::copy_from_slice(loads[0].0));
        } else {
            link.again = None;
        }
        self.send_on(id, loads);
    }

    /// Sends datagrams to the flow's backend. A datagram that this backend refuses, and that another backend may
    /// still get, is not counted here.
    pub fn send_on(&mut self, id: FlowId, mut loads: &mut [Load<'_>]) {
        let Some(link) = self.table.get_mut(id) else { return };
        let Some(door) = self.doors.get(widen(link.key.door)) else { return };
        // The listener at which the datagrams arrived; the flow may be older than that listener's name.
        let counters = door.listener.live.datagrams.of(self.thread);
        let mut trouble = None;
        let mut is_told = |error: &io::Error| {
            trouble = error.raw_os_error();
            true
        };
        // A backend that comes back may be another process, which was not sent the header.
        let comebacks = link.slot.backend.live.down.ends();
        if std::mem::replace(&mut link.comebacks, comebacks) != comebacks {
            link.header.set_said(false);
        }
        let (is_only_one, mut refused) = (link.again.is_some(), 0);
        let mut drop_it = |reason, count| {
            if is_only_one && reason == Dropped::BackendError {
                refused += count;
            } else {
                counters.dropped(reason).add(count);
            }
        };
        let headed =
            send_headed(&link.socket, &mut link.header, &mut loads, &mut drop_it, &mut is_told);
        let sent = send_all(
            &link.socket,
            &Parcel::default(),
            loads,
            &mut link.trains.to_backend,
            &mut drop_it,
            &mut is_told,
        );
        let sent = headed + sent;
        counters.passed(Direction::ToBackend).add(sent.datagrams);
        link.sent += sent.datagrams;
        link.bytes.backend_sent += sent.bytes;
        link.slot.backend.live.counters.of(self.thread).sent_bytes.add(sent.bytes);
        self.plane.workers[self.worker].udp_bytes.add(sent.bytes);
        match trouble {
            // The second try succeeded.
            Some(_) if is_only_one && refused == 0 => {}
            Some(error) => self.trouble(id, &io::Error::from_raw_os_error(error)),
            None => counters.dropped(Dropped::BackendError).add(refused),
        }
    }

    /// Reads what a flow's backend sent; returns whether more may be waiting.
    pub fn from_backend(&mut self, inbox: &mut Inbox, id: FlowId) -> bool {
        if !self.may_stay(id) {
            return false;
        }
        for read in 0..READS {
            let Some((_, link)) = self.table.get(id) else { return false };
            // Most flows have one reply waiting, and each slot for another costs a little.
            let most = if read == 0 { FIRST_REPLIES } else { REPLIES };
            match inbox.receive(&link.socket, most) {
                Ok(0) => return false,
                Ok(count) => {
                    self.deliver(inbox, id, count);
                    if count < most {
                        return false;
                    }
                }
                // Reported once: what is queued behind it comes with the next read.
                Err(error) => self.trouble(id, &error),
            }
        }
        true
    }

    fn deliver(&mut self, inbox: &Inbox, id: FlowId, count: usize) {
        let Some(link) = self.table.get_mut(id) else { return };
        let Some(door) = self.doors.get(widen(link.key.door)) else { return };
        let mut loads: [Load<'_>; BATCH] = [(&[], 0); BATCH];
        // Counted at the listener where the client's datagrams are; the flow may be older than that listener's name.
        let live = &door.listener.live;
        let counters = live.datagrams.of(self.thread);
        let (whole, datagrams, received) = link.take_replies(inbox, count, counters, &mut loads);
        link.heard(self.thread, received);
        let from = link.key.dialled.map(|ip| (ip, link.key.interface));
        let parcel = Parcel { to: Some(&link.key.client), from, segment: None };
        let mut drop_it = |reason, count| {
            // An error of a send to a client concerns the client.
            let reason =
                if reason == Dropped::BackendError { Dropped::ClientError } else { reason };
            counters.dropped(reason).add(count);
        };
        let trains = &mut link.trains.to_client;
        let sent = send_all(
            &door.socket,
            &parcel,
            &loads[..whole],
            trains,
            &mut drop_it,
            &mut |_: &io::Error| false,
        );
        counters.passed(Direction::ToClient).add(sent.datagrams);
        link.bytes.client_sent += sent.bytes;
        live.counters.of(self.thread).sent_bytes.add(sent.bytes);
        self.plane.workers[self.worker].udp_bytes.add(sent.bytes);
        if self.table.reply(id, datagrams, self.now_ms) {
            self.end(id, Stage::Relay, CloseReason::FlowComplete);
        }
    }
}

fn is_one_datagram(loads: &[Load<'_>]) -> bool {
    matches!(loads, [(bytes, segment)] if bytes.len() <= *segment)
}

impl Link {
    /// Attempts that failed before its present backend.
    pub fn failed_attempts(&self) -> u32 {
        u32::try_from(self.tried.len().saturating_sub(1)).unwrap_or(0)
    }

    /// Counts what the backend sent, and puts what may go on into `loads`. Returns the number of messages, and the
    /// number of datagrams and bytes in all.
    fn take_replies<'a>(
        &mut self,
        inbox: &'a Inbox,
        count: usize,
        counters: &DatagramCounters,
        loads: &mut [Load<'a>; BATCH],
    ) -> (usize, u64, u64) {
        let (mut whole, mut datagrams, mut received) = (0, 0, 0);
        for message in inbox.messages().take(count) {
            let overflow = overflowed(&mut self.overflow, &message.beside);
            counters.dropped(Dropped::ReceiveBuffer).add(u64::from(overflow));
            datagrams += message.datagrams() as u64;
            if message.is_truncated {
                counters.dropped(Dropped::Truncated).add(message.datagrams() as u64);
                continue;
            }
            received += message.payload.len() as u64;
            loads[whole] = (message.payload, message.segment());
            whole += 1;
        }
        counters.passed(Direction::FromBackend).add(datagrams);
        (whole, datagrams, received)
    }

    /// The backend answered.
    fn heard(&mut self, thread: usize, bytes: u64) {
        let backend = &self.slot.backend;
        ejection::succeeded(backend);
        self.again = None;
        self.bytes.backend_received += bytes;
        let counters = backend.live.counters.of(thread);
        counters.received_bytes.add(bytes);
        if self.first_reply.is_none() {
            let took = self.started.elapsed();
            self.first_reply = Some(took);
            counters.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            let of_pool = backend.shared.counters.of(thread);
            of_pool.first_byte_duration.observe(&CONNECT_BOUNDS, took);
            backend.observe_latency(took, Instant::now());
        }
    }
}

/// Sends those datagrams that must carry the PROXY header; the others stay in `loads`.
fn send_headed(
    socket: &OwnedFd,
    header: &mut Header,
    loads: &mut &mut [Load<'_>],
    dropped: &mut impl FnMut(Dropped, u64),
    trouble: &mut impl FnMut(&io::Error) -> bool,
) -> Sent {
    let mut sent = Sent::default();
    while let Some(bytes) = header.due() {
        let Some((load, segment)) = loads.first_mut() else { break };
        let (datagram, rest) = load.split_at((*segment).min(load.len()));
        let pieces = [IoSlice::new(bytes), IoSlice::new(datagram)];
        let outcome = attempt(socket, &Parcel::default(), &pieces, trouble);
        *load = rest;
        if rest.is_empty() {
            *loads = &mut std::mem::take(loads)[1..];
        }
        match outcome {
            Ok(()) => {
                sent.datagrams += 1;
                sent.bytes += datagram.len() as u64;
                header.set_said(true);
            }
            Err(error) => dropped(why(&error), 1),
        }
    }
    sent
}
