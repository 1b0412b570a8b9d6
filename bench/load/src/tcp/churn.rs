//! Connect, one exchange, close: so many at once, each followed by the next one.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;

use super::client::{Client, LOOK, receive};
use super::pattern::{LONGEST, message};
use super::stream::{Ready, connecting};

/// Ports that are taken in turn: the client's own must not be what collapses. None is tried twice within less than
/// the whole round.
const PORTS: std::ops::Range<u16> = 10_000..60_000;

/// A connection that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
pub struct Churn {
    pub at_once: usize,
    pub size: usize,
    pub ending: Ending,
}

/// How a connection ends once it has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server closes first; the client reads the end.
    BackendFirst,
    ClientFirst,
    Reset,
}

struct Connection {
    socket: OwnedFd,
    number: u64,
    since: Instant,
    got: usize,
    is_sent: bool,
}

struct Seats<'a, 'b> {
    client: &'a mut Client<'b>,
    churn: Churn,
    ready: Ready,
    /// With the seat in an event's data, so that one of a connection now gone is known.
    seats: Vec<Option<Connection>>,
    begun: u64,
    scratch: Vec<u8>,
}

pub fn run(client: &mut Client<'_>, churn: Churn) -> io::Result<()> {
    let mut seats = Seats {
        client,
        churn,
        ready: Ready::new()?,
        seats: (0..churn.at_once).map(|_| None).collect(),
        begun: 0,
        scratch: vec![0; LONGEST],
    };
    let mut events = Vec::new();
    let mut looked = Instant::now();
    while seats.client.goes_on() {
        for seat in 0..seats.seats.len() {
            if seats.seats[seat].is_none() {
                seats.begin(seat)?;
            }
        }
        seats.ready.wait(&mut events, Some(LOOK))?;
        for (data, flags) in events.drain(..) {
            seats.turn(data, flags);
        }
        if looked.elapsed() > PATIENCE / 5 {
            looked = Instant::now();
            seats.give_up_the_silent();
        }
    }
    Ok(())
}

impl Seats<'_, '_> {
    fn begin(&mut self, seat: usize) -> io::Result<()> {
        let ports = u64::from(PORTS.end - PORTS.start);
        for _ in 0..100 {
            let number = self.begun;
            self.begun += 1;
            let port = PORTS.start + (number % ports) as u16;
            match connecting(self.client.address, Some(port)) {
                Ok(socket) => {
                    let data = seat as u64 | number << 32;
                    self.ready.add(&socket, data, EventFlags::OUT)?;
                    let since = Instant::now();
                    let connection = Connection { socket, number, since, got: 0, is_sent: false };
                    self.seats[seat] = Some(connection);
                    return Ok(());
                }
                // Somebody else's port, or the far side has not forgotten its last connection.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL)
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        // Later, when other connections have ended.
        Ok(())
    }

    fn turn(&mut self, data: u64, flags: EventFlags) {
        let seat = (data & 0xFFFF_FFFF) as usize;
        let Some(connection) = &mut self.seats[seat] else { return };
        if connection.number << 32 != data - seat as u64 {
            return;
        }
        let is_done =
            connection.turn(data, flags, self.churn, self.client, &self.ready, &mut self.scratch);
        match is_done {
            Ok(false) => return,
            Ok(true) => {
                let since = connection.since;
                self.client.record(since);
                self.client.counts.done.fetch_add(1, Relaxed);
            }
            Err(_) => {
                self.client.counts.failed.fetch_add(1, Relaxed);
            }
        }
        self.seats[seat] = None;
    }

    fn give_up_the_silent(&mut self) {
        for seat in &mut self.seats {
            if seat.as_ref().is_some_and(|connection| connection.since.elapsed() > PATIENCE) {
                *seat = None;
                self.client.counts.failed.fetch_add(1, Relaxed);
            }
        }
    }
}

impl Connection {
    /// Says whether it is over, and well.
    fn turn(
        &mut self,
        data: u64,
        flags: EventFlags,
        churn: Churn,
        client: &Client<'_>,
        ready: &Ready,
        scratch: &mut [u8],
    ) -> io::Result<bool> {
        let offset = message(0, self.number);
        if !self.is_sent {
            if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            rustix::net::send(
                &self.socket,
                client.pattern.at(offset, churn.size),
                SendFlags::NOSIGNAL,
            )?;
            self.is_sent = true;
            ready.change(&self.socket, data, EventFlags::IN)?;
            return Ok(false);
        }
        if self.got < churn.size {
            let room = &mut scratch[..churn.size - self.got];
            self.got += receive(&self.socket, room, offset + self.got as u64, &client.pattern)?;
            if self.got < churn.size {
                return Ok(false);
            }
        }
        match churn.ending {
            Ending::ClientFirst => Ok(true),
            Ending::Reset => {
                SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))?;
                Ok(true)
            }
            Ending::BackendFirst => {
                match rustix::net::recv(&self.socket, &mut scratch[..1], RecvFlags::DONTWAIT) {
                    Ok((0, _)) => Ok(true),
                    Ok(_) => Err(io::ErrorKind::InvalidData.into()),
                    Err(rustix::io::Errno::AGAIN) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}
