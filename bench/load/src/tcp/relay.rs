//! The practical floor: what a relay costs on this machine that does nothing but relay, to one backend, in one thread.
//! No limits, no times, no counting, no logs, no refusals. By copy through one shared buffer, or by splice.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;

use super::stream::{Ready, connecting, listener};

const BUFFER: usize = 64 * 1024;
const PIPE: usize = 256 * 1024;
const BATCH: usize = 4;
/// What one direction moves before the others' turn comes.
const QUOTA: usize = 1024 * 1024;
const LISTENER: u64 = u64::MAX;

pub struct Settings {
    pub listen: SocketAddr,
    pub to: SocketAddr,
    pub is_splicing: bool,
    pub seconds: u64,
}

/// Client 0, backend 1. Direction `i` takes from side `i`.
struct Pair {
    sides: [OwnedFd; 2],
    halves: [Half; 2],
}

#[derive(Default)]
struct Half {
    owed: Vec<u8>,
    pipe: Option<(OwnedFd, OwnedFd)>,
    in_pipe: usize,
    /// Its end is somewhere behind what can be read: it will not be announced again.
    is_ending: bool,
    has_ended: bool,
    is_done: bool,
}

struct Relay {
    ready: Ready,
    pairs: Vec<Option<Box<Pair>>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    is_splicing: bool,
}

pub fn run(settings: &Settings) -> io::Result<()> {
    let listening = listener(settings.listen)?;
    SockRef::from(&listening).set_tcp_nodelay(true)?;
    let mut relay = Relay {
        ready: Ready::new()?,
        pairs: Vec::new(),
        free: Vec::new(),
        scratch: vec![0; BUFFER].into_boxed_slice(),
        is_splicing: settings.is_splicing,
    };
    relay.ready.add(&listening, LISTENER, EventFlags::IN)?;
    let end = Instant::now() + Duration::from_secs(settings.seconds);
    let (mut events, mut again) = (Vec::new(), Vec::new());
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let wait = if again.is_empty() { left } else { Duration::ZERO };
        relay.ready.wait(&mut events, Some(wait))?;
        events.extend(again.drain(..).map(|data| (data, EventFlags::IN)));
        for (data, flags) in events.drain(..) {
            if data == LISTENER {
                relay.accept(&listening, settings.to)?;
                continue;
            }
            let (seat, side) = (data as usize / 2, data as usize % 2);
            match relay.turn(seat, side, flags) {
                Ok(Turn::Waits) => {}
                Ok(Turn::Again) => again.push(data),
                Ok(Turn::Over) | Err(_) => {
                    relay.pairs[seat] = None;
                    relay.free.push(seat);
                }
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Again,
    Over,
    Waits,
}

impl Relay {
    fn accept(&mut self, listening: &TcpListener, to: SocketAddr) -> io::Result<()> {
        for _ in 0..BATCH {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let Ok(client) = rustix::net::accept_with(listening, flags) else { return Ok(()) };
            // Nobody to give it to: it is closed.
            let Ok(backend) = connecting(to, None) else { continue };
            let seat = self.free.pop().unwrap_or(self.pairs.len());
            let both = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            self.ready.add(&client, seat as u64 * 2, both)?;
            self.ready.add(&backend, seat as u64 * 2 + 1, both)?;
            let pair = Box::new(Pair { sides: [client, backend], halves: Default::default() });
            match self.pairs.get_mut(seat) {
                Some(free) => *free = Some(pair),
                None => self.pairs.push(Some(pair)),
            }
        }
        Ok(())
    }

    fn turn(&mut self, seat: usize, side: usize, flags: EventFlags) -> io::Result<Turn> {
        // Its other side's event of the same batch may come after its end.
        let Some(pair) = self.pairs.get_mut(seat).and_then(Option::as_mut) else {
            return Ok(Turn::Waits);
        };
        pair.halves[side].is_ending |= flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        let mut outcome = Turn::Waits;
        for from in 0..2 {
            let Pair { sides, halves } = &mut **pair;
            let (source, sink) = (&sides[from], &sides[1 - from]);
            let half = &mut halves[from];
            let moved = match self.is_splicing {
                true => half.splice(source, sink)?,
                false => half.copy(source, sink, &mut self.scratch)?,
            };
            if moved == Turn::Again {
                outcome = Turn::Again;
            }
        }
        if pair.halves.iter().all(|half| half.is_done) { Ok(Turn::Over) } else { Ok(outcome) }
    }
}

impl Half {
    fn copy(&mut self, source: &OwnedFd, sink: &OwnedFd, scratch: &mut [u8]) -> io::Result<Turn> {
        let mut moved = 0;
        while !self.is_done {
            if !self.owed.is_empty() {
                let Some(sent) =
                    unless_full(rustix::net::send(sink, &self.owed, SendFlags::NOSIGNAL))?
                else {
                    return Ok(Turn::Waits);
                };
                self.owed.drain(..sent);
                continue;
            }
            if self.finish(sink) {
                break;
            }
            if moved >= QUOTA {
                return Ok(Turn::Again);
            }
            let received = rustix::net::recv(source, &mut *scratch, RecvFlags::DONTWAIT);
            let Some((count, _)) = unless_full(received)? else { return Ok(Turn::Waits) };
            self.has_ended = count == 0;
            let bytes = &scratch[..count];
            let sent =
                unless_full(rustix::net::send(sink, bytes, SendFlags::NOSIGNAL))?.unwrap_or(0);
            self.owed.extend_from_slice(&bytes[sent..]);
            moved += count;
            if 0 < count && count < scratch.len() && self.owed.is_empty() && !self.is_ending {
                // A short read is the proof that the source is dry.
                return Ok(Turn::Waits);
            }
        }
        Ok(Turn::Waits)
    }

    fn splice(&mut self, source: &OwnedFd, sink: &OwnedFd) -> io::Result<Turn> {
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let mut moved = 0;
        while !self.is_done {
            if self.in_pipe == 0 && self.finish(sink) {
                break;
            }
            if self.pipe.is_none() {
                let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                fcntl_setpipe_size(&pipe.0, PIPE)?;
                self.pipe = Some(pipe);
            }
            let Some((out, into)) = &self.pipe else { break };
            if self.in_pipe > 0 {
                let drained = splice(out, None, sink, None, self.in_pipe, flags);
                let Some(count) = unless_full(drained)? else { return Ok(Turn::Waits) };
                self.in_pipe -= count;
                continue;
            }
            if moved >= QUOTA {
                return Ok(Turn::Again);
            }
            let filled = splice(source, None, into, None, QUOTA, flags);
            let Some(count) = unless_full(filled)? else { return Ok(Turn::Waits) };
            self.has_ended = count == 0;
            self.in_pipe = count;
            moved += count;
        }
        Ok(Turn::Waits)
    }

    /// Passes the end on, if that is what is left to do.
    fn finish(&mut self, sink: &OwnedFd) -> bool {
        if self.has_ended {
            let _ = rustix::net::shutdown(sink, Shutdown::Write);
            self.is_done = true;
        }
        self.is_done
    }
}

/// None: not now, an event will tell.
fn unless_full<T>(result: rustix::io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOTCONN) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
