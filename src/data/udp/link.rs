//! What a flow holds besides its place in the table: its own socket, connected to its backend, and its places in
//! every limit, given back on drop. Here datagrams leave for the backend.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_utils::CachePadded;

use super::source_ports::Lease;
use super::train::{self, Piece, Train};
use crate::border::datagrams::Dropped;
use crate::border::plane::{Plane, WorkerLoad};
use crate::border::record::{self, CloseReason};
use crate::config::{ProxyDatagrams, ProxyVersion};
use crate::data::admit::ListenerPermit;
use crate::data::limits::{Bucket, ClientPermit, GatePermit};
use crate::data::pool::{BackendPermit, Pool, Tried};
use crate::data::wire::proxy_protocol::datagram::{MAX_HEADER, header};
use crate::sys::ancillary::RawAddr;
use crate::sys::clock::Moment;
use crate::sys::datagram::{self, BATCH, Parcel};

/// The client of a flow, and the address that it sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The socket it arrives on.
    pub door: u32,
    pub client: RawAddr,
    /// Our address that it dialled, if the socket has several: replies leave from there.
    pub dialled: Option<IpAddr>,
    /// The interface of that address if it is link-local, else 0.
    pub interface: u32,
}

pub struct Link {
    pub id: u64,
    pub key: Key,
    /// The addresses in `key`, canonical: for picks, log and API.
    pub client: SocketAddr,
    pub dialled: SocketAddr,
    pub socket: OwnedFd,
    /// After the socket, so that the port is given back when no socket uses it.
    pub port: Option<Lease>,
    pub slot: BackendPermit,
    pub places: Places,
    pub started: Moment,
    pub bytes: record::Bytes,
    /// From the first datagram to the first reply.
    pub first_reply: Option<Duration>,
    /// The backends that it had so far, so that another attempt goes elsewhere.
    pub tried: Tried,
    /// Datagrams sent to its present backend.
    pub sent: u64,
    /// Its listener has another pool now: since when the flow knows, on the coarse clock.
    pub moved_since_ms: Option<u64>,
    /// It only waits for replies that are under way, and then ends with this reason.
    pub retired: Option<CloseReason>,
    /// The only datagram so far; it goes to another backend if this one refuses it.
    pub again: Option<Bytes>,
    /// The PROXY header for its backend.
    pub header: Header,
    /// How often its backend had been down when the header was last sent.
    pub comebacks: u32,
    /// Whether the kernel takes whole trains on the path to the backend and to the client.
    pub trains: Trains,
    /// `limits.datagram_rate_per_client`.
    pub rate: Option<Arc<Bucket>>,
    /// The kernel's last count of datagrams that did not fit in the queue.
    pub overflow: u32,
}

/// A flow's places in every limit; they move with it to another backend.
pub struct Places {
    pub listener: ListenerPermit,
    /// The version of the listener that admitted it, or let it stay.
    pub judged_by: u64,
    pub client: Option<ClientPermit>,
    pub process: GatePermit,
    pub worker: WorkerPlace,
}

/// One flow in a worker's load.
pub struct WorkerPlace(Arc<CachePadded<WorkerLoad>>);

/// The PROXY header, as the pool configures it.
#[derive(Clone, Debug, Default)]
pub enum Header {
    #[default]
    None,
    Every(Box<[u8]>),
    /// Sent once, and again when another process may be at the backend's address by now.
    First {
        bytes: Box<[u8]>,
        is_said: bool,
    },
}

impl Header {
    /// What the pool tells its backends about this client.
    pub fn new(pool: &Pool, client: SocketAddr, dialled: SocketAddr) -> Header {
        let Some(ProxyVersion::V2) = pool.config.send_proxy_protocol else { return Header::None };
        let mut bytes = [0; MAX_HEADER];
        let length = header(client, dialled, &mut bytes);
        let bytes = bytes[..length].into();
        match pool.config.send_proxy_datagrams {
            ProxyDatagrams::Every => Header::Every(bytes),
            ProxyDatagrams::First => Header::First { bytes, is_said: false },
        }
    }

    /// The header for the next datagram.
    pub fn due(&self) -> Option<&[u8]> {
        match self {
            Header::None | Header::First { is_said: true, .. } => None,
            Header::Every(bytes) | Header::First { bytes, is_said: false } => Some(bytes),
        }
    }

    /// The header must be sent, or was sent.
    pub fn set_said(&mut self, now: bool) {
        if let Header::First { is_said, .. } = self {
            *is_said = now;
        }
    }
}

/// For each direction: an error ended it for good.
#[derive(Clone, Copy, Debug)]
pub struct Trains {
    pub to_backend: bool,
    pub to_client: bool,
}

impl WorkerPlace {
    pub fn enter(plane: &Plane, worker: usize) -> WorkerPlace {
        let load = Arc::clone(&plane.workers[worker]);
        load.flows.fetch_add(1, Relaxed);
        WorkerPlace(load)
    }
}

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        self.0.flows.fetch_sub(1, Relaxed);
    }
}

impl Link {
    /// Whether `connect.attempts` allows another attempt.
    pub fn may_try_another(&self, pool: &Pool) -> bool {
        self.tried.len() < usize::try_from(pool.config.connect.attempts).unwrap_or(usize::MAX)
    }
}

/// What happened to some datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
}

impl std::ops::Add for Sent {
    type Output = Sent;

    fn add(self, more: Sent) -> Sent {
        Sent { datagrams: self.datagrams + more.datagrams, bytes: self.bytes + more.bytes }
    }
}

/// A message and its structure.
pub type Load<'a> = (&'a [u8], usize);

/// Sends messages to one destination with as few calls as possible. `dropped` gets those that were not sent, and why.
/// An error about the destination ends a try; it is passed to `trouble`, which decides whether to try once more.
pub fn send_all(
    socket: &OwnedFd,
    parcel: &Parcel<'_>,
    loads: &[Load<'_>],
    trains: &mut bool,
    dropped: &mut impl FnMut(Dropped, u64),
    trouble: &mut impl FnMut(&io::Error) -> bool,
) -> Sent {
    let mut sent = Sent::default();
    let mut rest = loads;
    while !rest.is_empty() {
        let pieces = rest.iter().take(BATCH);
        let train = if *trains {
            train::couple(pieces.map(|(bytes, segment)| piece(bytes, *segment)))
        } else {
            Train { pieces: 1, datagrams: 1, segment: None }
        };
        let (now, later) = rest.split_at(train.pieces);
        rest = later;
        if !*trains && now[0].0.len() > now[0].1 {
            for datagram in now[0].0.chunks(now[0].1) {
                one(socket, parcel, datagram, &mut sent, dropped, trouble);
            }
            continue;
        }
        if train.segment.is_none() {
            one(socket, parcel, now[0].0, &mut sent, dropped, trouble);
            continue;
        }
        let mut slices = [IoSlice::new(&[]); BATCH];
        let mut bytes = 0;
        for (slice, (load, _)) in slices.iter_mut().zip(now) {
            *slice = IoSlice::new(load);
            bytes += load.len() as u64;
        }
        let slices = &slices[..now.len()];
        let whole = Parcel { segment: train.segment, ..*parcel };
        let datagrams = train.datagrams as u64;
        match attempt(socket, &whole, slices, trouble) {
            Ok(()) => {
                sent.datagrams += datagrams;
                sent.bytes += bytes;
            }
            Err(error) if refuses_trains(&error) => {
                // Some devices and paths cannot split a train. From now on this flow's datagrams go one by one.
                *trains = false;
                for datagram in now.iter().flat_map(|(load, segment)| load.chunks(*segment)) {
                    one(socket, parcel, datagram, &mut sent, dropped, trouble);
                }
            }
            Err(error) => dropped(why(&error), datagrams),
        }
    }
    sent
}

fn piece(bytes: &[u8], segment: usize) -> Piece {
    Piece { length: bytes.len(), segment }
}

/// One datagram.
fn one(
    socket: &OwnedFd,
    parcel: &Parcel<'_>,
    datagram: &[u8],
    sent: &mut Sent,
    dropped: &mut impl FnMut(Dropped, u64),
    trouble: &mut impl FnMut(&io::Error) -> bool,
) {
    match attempt(socket, parcel, &[IoSlice::new(datagram)], trouble) {
        Ok(()) => {
            sent.datagrams += 1;
            sent.bytes += datagram.len() as u64;
        }
        Err(error) => dropped(why(&error), 1),
    }
}

/// The error that a send reports may belong to an earlier datagram, and is reported once: the next try gives the
/// answer.
pub fn attempt(
    socket: &OwnedFd,
    parcel: &Parcel<'_>,
    pieces: &[IoSlice<'_>],
    trouble: &mut impl FnMut(&io::Error) -> bool,
) -> io::Result<()> {
    match datagram::send(socket, pieces, parcel) {
        Err(error) if is_trouble(&error) && trouble(&error) => {
            datagram::send(socket, pieces, parcel)
        }
        // It may be the report that the path's MTU has become smaller, which also comes once.
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
            datagram::send(socket, pieces, parcel)
        }
        other => other,
    }
}

/// Whether an error says something about the receiver of the datagrams.
pub fn is_trouble(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::EACCES
                | libc::EPERM
        )
    )
}

fn refuses_trains(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EMSGSIZE)
    )
}

pub fn why(error: &io::Error) -> Dropped {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => Dropped::TooLarge,
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Dropped::SendBuffer,
        _ => Dropped::BackendError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn where_the_kernel_refuses_trains_datagrams_go_one_by_one() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = datagram::connect(server.local_addr().unwrap(), None, None).unwrap();
        datagram::refuse_trains(&socket);
        let whole: Vec<u8> = (0..=99).collect();
        let loads: [Load<'_>; 3] = [(&whole, 30), (&[7; 30], 30), (&[8; 30], 30)];
        let mut trains = true;
        for _ in 0..2 {
            let dropped = &mut |reason, count| panic!("{count} dropped: {reason:?}");
            let parcel = Parcel::default();
            let sent = send_all(&socket, &parcel, &loads, &mut trains, dropped, &mut |_| false);
            assert_eq!((sent.datagrams, sent.bytes), (6, 160));
            assert!(!trains, "it is not tried again");
            let mut buffer = [0; 100];
            for expected in whole.chunks(30).chain([&[7; 30][..], &[8; 30][..]]) {
                let count = server.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..count], expected);
            }
        }
    }
}
