//! The servers behind the products: echo, echo and close, take in, give out. One thread, level-triggered: its own time
//! is not what is measured. Only `mixed` has a thread more for a stream that it takes in, which gives way to the others'
//! round trips. Whatever is not the pattern resets its connection, which the client sees.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use socket2::SockRef;

use super::pattern::{BULK, LONGEST, Pattern};
use super::stream::{Ready, listener};
use crate::sys;

/// Connections taken from the queue before the others' turn comes.
const BATCH: usize = 64;
/// The listener's number; connections count from 0.
const LISTENER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Echo,
    /// Echoes so many bytes, then is the first to close.
    Close(usize),
    /// By the first byte: takes in, or echoes.
    Mixed,
    Sink,
    Source,
}

pub struct Settings {
    pub listen: SocketAddr,
    pub mode: Mode,
    pub seconds: u64,
}

struct Connection {
    socket: OwnedFd,
    mode: Mode,
    /// Bytes of the stream so far: taken in, or given out.
    at: u64,
    owed: Vec<u8>,
}

struct Server {
    mode: Mode,
    pattern: Pattern,
    ready: Ready,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
    end: Instant,
}

pub fn run(settings: &Settings) -> io::Result<()> {
    let listening = listener(settings.listen)?;
    let ready = Ready::new()?;
    ready.add(&listening, LISTENER, epoll::EventFlags::IN)?;
    let mut server = Server {
        mode: settings.mode,
        pattern: Pattern::new(),
        ready,
        connections: Vec::new(),
        free: Vec::new(),
        scratch: vec![0; LONGEST].into_boxed_slice(),
        end: Instant::now() + Duration::from_secs(settings.seconds),
    };
    let mut events = Vec::new();
    while let Some(left) = server.end.checked_duration_since(Instant::now()) {
        server.ready.wait(&mut events, Some(left))?;
        for (data, _) in events.drain(..) {
            if data == LISTENER {
                server.accept(&listening)?;
            } else {
                server.turn(data as usize);
            }
        }
    }
    Ok(())
}

impl Server {
    fn accept(&mut self, listening: &TcpListener) -> io::Result<()> {
        for _ in 0..BATCH {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let Ok(socket) = rustix::net::accept_with(listening, flags) else { break };
            let _ = SockRef::from(&socket).set_tcp_nodelay(true);
            let seat = self.free.pop().unwrap_or(self.connections.len());
            let interest = match self.mode {
                Mode::Source => epoll::EventFlags::OUT,
                _ => epoll::EventFlags::IN,
            };
            self.ready.add(&socket, seat as u64, interest)?;
            let connection = Connection { socket, mode: self.mode, at: 0, owed: Vec::new() };
            match self.connections.get_mut(seat) {
                Some(free) => *free = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
        Ok(())
    }

    fn turn(&mut self, seat: usize) {
        let Some(connection) = self.connections.get_mut(seat).and_then(Option::as_mut) else {
            return;
        };
        if connection.mode == Mode::Mixed {
            connection.mode = connection.wanted();
            if connection.mode == Mode::Sink {
                self.apart(seat);
                return;
            }
        }
        let goes_on = connection.turn(seat, &self.pattern, &self.ready, &mut self.scratch);
        if !matches!(goes_on, Ok(true)) {
            self.connections[seat] = None;
            self.free.push(seat);
        }
    }

    /// Takes in what this connection sends, in a thread of its own.
    fn apart(&mut self, seat: usize) {
        let Some(connection) = self.connections[seat].take() else { return };
        self.free.push(seat);
        let end = self.end;
        if self.ready.remove(&connection.socket).is_ok() {
            std::thread::spawn(move || connection.take_in(end));
        }
    }
}

impl Connection {
    /// By the first byte, which is not taken.
    fn wanted(&self) -> Mode {
        let mut first = [0];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        match rustix::net::recv(&self.socket, &mut first, flags) {
            Ok(_) if first[0] == BULK => Mode::Sink,
            _ => Mode::Echo,
        }
    }

    fn take_in(mut self, end: Instant) -> io::Result<()> {
        sys::give_way()?;
        rustix::net::recv(&self.socket, &mut [0], RecvFlags::DONTWAIT)?;
        let (pattern, ready) = (Pattern::new(), Ready::new()?);
        let mut scratch = vec![0; LONGEST];
        ready.add(&self.socket, 0, epoll::EventFlags::IN)?;
        let mut events = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            ready.wait(&mut events, Some(left))?;
            for _ in events.drain(..) {
                match self.turn(0, &pattern, &ready, &mut scratch) {
                    Ok(true) => {}
                    _ => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// Says whether it goes on.
    fn turn(
        &mut self,
        seat: usize,
        pattern: &Pattern,
        ready: &Ready,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        if self.mode == Mode::Source {
            let piece = pattern.at(self.at, LONGEST);
            self.at += rustix::net::send(&self.socket, piece, SendFlags::NOSIGNAL)? as u64;
            return Ok(true);
        }
        if !self.owed.is_empty() {
            let sent = rustix::net::send(&self.socket, &self.owed, SendFlags::NOSIGNAL)?;
            self.owed.drain(..sent);
            if self.owed.is_empty() {
                ready.change(&self.socket, seat as u64, epoll::EventFlags::IN)?;
            }
            return Ok(true);
        }
        let (count, _) = rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::DONTWAIT)?;
        let bytes = &scratch[..count];
        if bytes.is_empty() {
            return Ok(false);
        }
        if self.mode == Mode::Sink {
            if !pattern.is_at(self.at, bytes) {
                SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            self.at += bytes.len() as u64;
            return Ok(true);
        }
        let sent = rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL).unwrap_or(0);
        if sent < bytes.len() {
            self.owed.extend_from_slice(&bytes[sent..]);
            ready.change(&self.socket, seat as u64, epoll::EventFlags::OUT)?;
        }
        self.at += bytes.len() as u64;
        Ok(!matches!(self.mode, Mode::Close(size) if self.at >= size as u64))
    }
}
