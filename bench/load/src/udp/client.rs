//! The client: flows with a socket each, either so many datagrams out at once (closed loop) or so many a second
//! (open loop). Checks every answer. Run by `compare` in a thread, or by hand; it ends by itself or when told.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::flow::{Answer, Flow, PATIENCE_MS};
use super::payload;
use crate::sys::{self, Batch};

const BATCH: usize = 32;
const EVENTS: usize = 256;
const QUEUE: usize = 4 << 20;
/// How often flows are looked at that hear nothing.
const LOOK_MS: u64 = 50;

#[derive(Clone, Debug)]
pub struct Load {
    pub address: SocketAddr,
    pub flows: u32,
    /// Bytes of a datagram.
    pub size: usize,
    /// Datagrams of one send: above one they go out as one buffer that the kernel takes apart.
    pub segments: u32,
    pub pace: Pace,
}

#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many out at once, of each flow and of all.
    Window { of_each: u32, of_all: u32 },
    /// So many a second, whatever comes back.
    PerSecond(u64),
}

/// Read by others while the client runs.
#[derive(Default)]
pub struct Counts {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// Given up, not counting what a full queue of our own refused.
    pub lost: AtomicU64,
    /// Damaged, of another flow, or never asked for.
    pub wrong: AtomicU64,
    pub late_or_twice: AtomicU64,
    /// The kernel took no more, or said that nobody is there.
    pub refused: AtomicU64,
}

impl Counts {
    pub fn json(&self) -> String {
        format!(
            "{{\"sent\": {}, \"received\": {}, \"lost\": {}, \"wrong\": {}, \"late_or_twice\": {}, \"refused\": {}}}",
            self.sent.load(Relaxed),
            self.received.load(Relaxed),
            self.lost.load(Relaxed),
            self.wrong.load(Relaxed),
            self.late_or_twice.load(Relaxed),
            self.refused.load(Relaxed),
        )
    }
}

struct Client<'a> {
    load: &'a Load,
    counts: &'a Counts,
    sockets: Vec<UdpSocket>,
    flows: Vec<Flow>,
    /// Flows that may send, each once.
    queue: VecDeque<u32>,
    outstanding: u32,
    batch: Batch,
    epoll: OwnedFd,
    begun: Instant,
}

/// Sends for that long, or until told to stop; then waits for what is still out, if only for a moment.
pub fn run(load: &Load, seconds: u64, counts: &Counts, stop: &AtomicBool) -> io::Result<()> {
    let mut client = Client::new(load, counts)?;
    let length = Duration::from_secs(seconds);
    let mut looked_ms = 0;
    while client.begun.elapsed() < length && !stop.load(Relaxed) {
        match load.pace {
            Pace::Window { of_all, .. } => client.fill(of_all),
            Pace::PerSecond(rate) => client.keep_up(rate),
        }
        client.hear(if matches!(load.pace, Pace::PerSecond(_)) { 1 } else { LOOK_MS })?;
        if client.now_ms() >= looked_ms + LOOK_MS {
            looked_ms = client.now_ms();
            client.look_for_losses();
        }
    }
    let end = Instant::now() + Duration::from_millis(PATIENCE_MS);
    while client.outstanding > 0 && Instant::now() < end {
        client.hear(10)?;
    }
    counts.lost.fetch_add(u64::from(client.outstanding), Relaxed);
    Ok(())
}

impl Client<'_> {
    fn new<'a>(load: &'a Load, counts: &'a Counts) -> io::Result<Client<'a>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Twice what can be out at once: a power of two, so that places follow each other.
        let remembered = match load.pace {
            Pace::Window { of_each, .. } => (2 * of_each as usize).next_power_of_two().max(64),
            Pace::PerSecond(_) => 16_384,
        };
        let any = SocketAddr::from(match load.address {
            SocketAddr::V4(_) => (std::net::IpAddr::from([0; 4]), 0),
            SocketAddr::V6(_) => (std::net::IpAddr::from([0; 16]), 0),
        });
        let mut sockets = Vec::new();
        for flow in 0..load.flows {
            let socket = UdpSocket::bind(any)?;
            socket.connect(load.address)?;
            sys::make_room(socket.as_fd(), QUEUE)?;
            if load.segments > 1 {
                sys::take_apart(socket.as_fd(), load.size)?;
                sys::put_together(socket.as_fd())?;
            }
            let data = epoll::EventData::new_u64(u64::from(flow));
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            sockets.push(socket);
        }
        let flows = (0..load.flows).map(|_| Flow::new(remembered));
        Ok(Client {
            load,
            counts,
            sockets,
            flows: flows.collect(),
            queue: (0..load.flows).collect(),
            outstanding: 0,
            batch: Batch::new(BATCH),
            epoll,
            begun: Instant::now(),
        })
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// Lets flows send, each in its turn, until so many are out.
    fn fill(&mut self, of_all: u32) {
        let Pace::Window { of_each, .. } = self.load.pace else { return };
        // A flow that the kernel refuses goes to the end: one turn each, or this would not end.
        for _ in 0..self.queue.len() {
            let least = self.load.segments;
            if self.outstanding + least > of_all {
                return;
            }
            let Some(flow) = self.queue.pop_front() else { return };
            let room = of_each.saturating_sub(self.flows[flow as usize].outstanding());
            let count = room.min(of_all - self.outstanding);
            self.flows[flow as usize].is_queued = false;
            if count >= least {
                self.send(flow, count);
            }
            self.enqueue(flow, of_each);
        }
    }

    fn enqueue(&mut self, flow: u32, of_each: u32) {
        let it = &mut self.flows[flow as usize];
        if !it.is_queued && it.outstanding() + self.load.segments <= of_each {
            it.is_queued = true;
            self.queue.push_back(flow);
        }
    }

    /// Sends what is due by now; at most a batch of each flow before answers are looked at.
    fn keep_up(&mut self, rate: u64) {
        let due = (self.begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let done = |counts: &Counts| counts.sent.load(Relaxed) + counts.refused.load(Relaxed);
        for _ in 0..BATCH {
            let missing = due.saturating_sub(done(self.counts));
            if missing < u64::from(self.load.segments) {
                return;
            }
            let Some(flow) = self.queue.pop_front() else { return };
            self.queue.push_back(flow);
            // Few of one flow after the other: senders are not in step, but neither do they send alone.
            self.send(flow, missing.min(8).max(u64::from(self.load.segments)) as u32);
        }
    }

    /// At most so many datagrams of this flow, fewer if they do not fit in one batch.
    fn send(&mut self, flow: u32, most: u32) {
        let (size, segments) = (self.load.size, self.load.segments as usize);
        let sends = (most as usize / segments).min(self.batch.count());
        let first = self.flows[flow as usize].next();
        for index in 0..sends {
            let bytes = self.batch.place(index, segments * size);
            let from = first + (index * segments) as u64;
            for (number, bytes) in (from..).zip(bytes.chunks_exact_mut(size)) {
                payload::write(bytes, flow, number);
            }
        }
        let socket = self.sockets[flow as usize].as_fd();
        let taken = self.batch.send(socket, sends).unwrap_or(0);
        if taken < sends {
            // All that were offered in this mode; a closed loop tries again in the flow's next turn.
            self.counts.refused.fetch_add(((sends - taken) * segments) as u64, Relaxed);
        }
        let count = (taken * segments) as u64;
        let now_ms = self.now_ms();
        let lost = self.flows[flow as usize].sent(count, now_ms);
        self.outstanding += (count - lost) as u32;
        self.counts.sent.fetch_add(count, Relaxed);
        self.counts.lost.fetch_add(lost, Relaxed);
    }

    /// Waits for answers, and takes what is there.
    fn hear(&mut self, longest_ms: u64) -> io::Result<()> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: longest_ms as i64 * 1_000_000 };
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout))
        {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in events {
            let flow = event.data.u64() as u32;
            self.take(flow);
            if let Pace::Window { of_each, .. } = self.load.pace {
                self.enqueue(flow, of_each);
            }
        }
        Ok(())
    }

    fn take(&mut self, flow: u32) {
        // As many as can be there: a flow with one out needs no more than one buffer prepared.
        let most = (self.flows[flow as usize].outstanding() as usize / self.load.segments as usize)
            .clamp(1, BATCH);
        let socket = self.sockets[flow as usize].as_fd();
        let Ok(taken) = self.batch.receive(socket, most) else {
            // What an ICMP message said; read, so that it is not said again.
            self.counts.refused.fetch_add(1, Relaxed);
            return;
        };
        let now_ms = self.now_ms();
        let it = &mut self.flows[flow as usize];
        let before = it.outstanding();
        let (mut received, mut wrong, mut late) = (0, 0, 0);
        for index in 0..taken {
            let message = self.batch.received(index);
            wrong += u64::from(message.is_cut || message.bytes.is_empty());
            for bytes in message.bytes.chunks(message.segment.max(1)) {
                let number = payload::read(bytes, flow, self.load.size);
                match number.map_or(Answer::Wrong, |number| it.answered(number, now_ms)) {
                    Answer::Expected => received += 1,
                    Answer::LateOrTwice => late += 1,
                    Answer::Wrong => wrong += 1,
                }
            }
        }
        self.outstanding -= before - it.outstanding();
        self.counts.received.fetch_add(received, Relaxed);
        self.counts.wrong.fetch_add(wrong, Relaxed);
        self.counts.late_or_twice.fetch_add(late, Relaxed);
    }

    fn look_for_losses(&mut self) {
        let now_ms = self.now_ms();
        let Pace::Window { of_each, .. } = self.load.pace else { return };
        for flow in 0..self.load.flows {
            let lost = self.flows[flow as usize].give_up(now_ms);
            if lost > 0 {
                self.outstanding -= lost as u32;
                self.counts.lost.fetch_add(lost, Relaxed);
                self.enqueue(flow, of_each);
            }
        }
    }
}
