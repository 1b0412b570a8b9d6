//! The clients: round trips (closed loop, or so many a second whatever comes back), bulk, and idle sessions. Every byte
//! is checked. Run in a thread by `compare`, or by hand; it ends by itself or when told.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::pattern::{BULK, LONGEST, Pattern, message};
use super::stream::{Ready, connected};
use crate::sys;

/// A client looks at least so often whether it is to stop.
pub const LOOK: Duration = Duration::from_millis(20);
/// How often a paced bulk stream sends.
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    Backend,
    Client,
}

/// Read by others while the client runs.
#[derive(Default)]
pub struct Counts {
    /// Round trips, connections, or bytes.
    pub done: AtomicU64,
    /// Connections that failed; only churn goes on after one.
    pub failed: AtomicU64,
    /// Latencies are kept while this is true.
    pub is_recording: AtomicBool,
    pub stop: AtomicBool,
}

/// Nanoseconds, from when a message should have left to the last byte of its answer.
pub type Latencies = Histogram<u64>;

pub struct Client<'a> {
    pub address: SocketAddr,
    pub counts: &'a Counts,
    pub pattern: Pattern,
    pub latencies: Latencies,
    pub end: Instant,
}

/// One stream of round trips.
struct Stream {
    socket: OwnedFd,
    /// Of the message under way.
    number: u64,
    sent: usize,
    got: usize,
    /// When the messages should have left; the first is under way.
    due: VecDeque<Instant>,
}

impl Client<'_> {
    pub fn goes_on(&self) -> bool {
        !self.counts.stop.load(Relaxed) && Instant::now() < self.end
    }

    pub fn record(&mut self, since: Instant) {
        if self.counts.is_recording.load(Relaxed) {
            let nanoseconds = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanoseconds);
        }
    }

    pub fn round_trips(
        &mut self,
        count: usize,
        size: usize,
        per_second: Option<u64>,
    ) -> io::Result<()> {
        let ready = Ready::new()?;
        let mut streams = Vec::with_capacity(count);
        for seat in 0..count {
            let socket = connected(self.address)?;
            ready.add(&socket, seat as u64, EventFlags::IN)?;
            streams.push(Stream { socket, number: 0, sent: 0, got: 0, due: VecDeque::new() });
        }
        let mut scratch = vec![0; LONGEST];
        let start = Instant::now();
        if per_second.is_none() {
            for (seat, stream) in streams.iter_mut().enumerate() {
                stream.due.push_back(start);
                stream.send(seat, size, &self.pattern, &ready)?;
            }
        }
        let mut released = 0_u64;
        let mut events = Vec::new();
        while self.goes_on() {
            let mut wait = LOOK;
            if let Some(per_second) = per_second {
                let due =
                    |number: u64| start + Duration::from_nanos(number * 1_000_000_000 / per_second);
                let now = Instant::now();
                while due(released) <= now {
                    let seat = (released % count as u64) as usize;
                    streams[seat].due.push_back(due(released));
                    if streams[seat].due.len() == 1 {
                        streams[seat].send(seat, size, &self.pattern, &ready)?;
                    }
                    released += 1;
                }
                wait = wait.min(due(released).saturating_duration_since(Instant::now()));
            }
            ready.wait(&mut events, Some(wait))?;
            for (data, flags) in events.drain(..) {
                let seat = data as usize;
                let stream = &mut streams[seat];
                if flags.contains(EventFlags::OUT) {
                    stream.send(seat, size, &self.pattern, &ready)?;
                }
                if let Some(since) = stream.receive(seat, size, &self.pattern, &mut scratch)? {
                    self.record(since);
                    self.counts.done.fetch_add(1, Relaxed);
                    if per_second.is_none() {
                        stream.due.push_back(Instant::now());
                    }
                    if !stream.due.is_empty() {
                        stream.send(seat, size, &self.pattern, &ready)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub fn bulk(&mut self, count: usize, towards: Towards) -> io::Result<()> {
        let ready = Ready::new()?;
        let mut streams = Vec::with_capacity(count);
        for seat in 0..count {
            let socket = connected(self.address)?;
            let interest = match towards {
                Towards::Backend => EventFlags::OUT | EventFlags::RDHUP,
                Towards::Client => EventFlags::IN,
            };
            ready.add(&socket, seat as u64, interest)?;
            streams.push((socket, 0_u64));
        }
        let mut scratch = vec![0; LONGEST];
        let mut events = Vec::new();
        while self.goes_on() {
            ready.wait(&mut events, Some(LOOK))?;
            for (data, flags) in events.drain(..) {
                let (socket, at) = &mut streams[data as usize];
                let count = match towards {
                    Towards::Client => receive(socket, &mut scratch, *at, &self.pattern)?,
                    Towards::Backend if flags.contains(EventFlags::RDHUP) => return Err(ended()),
                    Towards::Backend => {
                        let piece = self.pattern.at(*at, LONGEST);
                        would_block(rustix::net::send(&*socket, piece, SendFlags::NOSIGNAL))?
                    }
                };
                *at += count as u64;
                self.counts.done.fetch_add(count as u64, Relaxed);
            }
        }
        Ok(())
    }

    pub fn paced(&mut self, bytes_per_second: Option<u64>) -> io::Result<()> {
        // What is measured beside it must wait for the product, not for this thread's processor.
        sys::give_way()?;
        let socket = connected(self.address)?;
        rustix::net::send(&socket, &[BULK], SendFlags::NOSIGNAL)?;
        let ready = Ready::new()?;
        ready.add(&socket, 0, EventFlags::OUT | EventFlags::RDHUP)?;
        let (start, mut at) = (Instant::now(), 0_u64);
        let mut events = Vec::new();
        while self.goes_on() {
            if let Some(rate) = bytes_per_second {
                let due = start.elapsed().as_micros() as u64 * rate / 1_000_000;
                if at >= due {
                    // The pace itself.
                    std::thread::sleep(TICK);
                    continue;
                }
            }
            ready.wait(&mut events, Some(LOOK))?;
            for (_, flags) in events.drain(..) {
                if flags.contains(EventFlags::RDHUP) {
                    return Err(ended());
                }
                let most =
                    bytes_per_second.map_or(LONGEST, |rate| (rate / 1000) as usize).min(LONGEST);
                let piece = self.pattern.at(at, most);
                let count = would_block(rustix::net::send(&socket, piece, SendFlags::NOSIGNAL))?;
                at += count as u64;
                self.counts.done.fetch_add(count as u64, Relaxed);
            }
        }
        Ok(())
    }

    pub fn idle(&mut self, sessions: usize) -> io::Result<()> {
        const SIZE: usize = 64;
        let ready = Ready::new()?;
        let mut scratch = vec![0; LONGEST];
        let mut streams = Vec::with_capacity(sessions);
        for seat in 0..sessions {
            let socket = connected(self.address)?;
            let mut due = VecDeque::new();
            due.push_back(Instant::now());
            let mut stream = Stream { socket, number: 0, sent: 0, got: 0, due };
            ready.add(&stream.socket, seat as u64, EventFlags::IN)?;
            stream.send(seat, SIZE, &self.pattern, &ready)?;
            let mut events = Vec::new();
            while stream.receive(seat, SIZE, &self.pattern, &mut scratch)?.is_none() {
                if !self.goes_on() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                ready.wait(&mut events, Some(LOOK))?;
                events.clear();
            }
            self.counts.done.fetch_add(1, Relaxed);
            streams.push(stream);
        }
        while self.goes_on() {
            // Nothing is what these do.
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

impl Stream {
    /// Sends what is left of the message under way; waits for room only if there was none.
    fn send(
        &mut self,
        seat: usize,
        size: usize,
        pattern: &Pattern,
        ready: &Ready,
    ) -> io::Result<()> {
        let had_room = self.sent == 0;
        let message = pattern.at(message(seat, self.number), size);
        let rest = &message[self.sent..];
        self.sent += would_block(rustix::net::send(&self.socket, rest, SendFlags::NOSIGNAL))?;
        match self.sent < size {
            true => ready.change(&self.socket, seat as u64, EventFlags::IN | EventFlags::OUT),
            false if had_room => Ok(()),
            false => ready.change(&self.socket, seat as u64, EventFlags::IN),
        }
    }

    /// When the message should have left, once its answer is whole.
    fn receive(
        &mut self,
        seat: usize,
        size: usize,
        pattern: &Pattern,
        scratch: &mut [u8],
    ) -> io::Result<Option<Instant>> {
        let from = message(seat, self.number);
        // The pattern is longer than a message, not than any offset in it.
        let offset = from + self.got as u64;
        self.got += receive(&self.socket, &mut scratch[..size - self.got], offset, pattern)?;
        if self.got < size {
            return Ok(None);
        }
        (self.sent, self.got) = (0, 0);
        self.number += 1;
        Ok(self.due.pop_front())
    }
}

/// Bytes that came, all of them right; 0 if there were none.
pub fn receive(
    socket: &OwnedFd,
    scratch: &mut [u8],
    offset: u64,
    pattern: &Pattern,
) -> io::Result<usize> {
    let count = match rustix::net::recv(socket, &mut *scratch, RecvFlags::DONTWAIT) {
        Ok((0, _)) => return Err(ended()),
        Ok((count, _)) => count,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    if pattern.is_at(offset, &scratch[..count]) {
        return Ok(count);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "wrong bytes"))
}

fn would_block(sent: rustix::io::Result<usize>) -> io::Result<usize> {
    match sent {
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
        sent => Ok(sent?),
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "ended by the far side")
}
