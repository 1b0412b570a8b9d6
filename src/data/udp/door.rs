//! The door of a UDP listener, one bound socket of this worker, and the share that one flow has of a message.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::flow_table::FlowId;
use super::link::Key;
use crate::border::addr::{ListenAddr, ZonedIp, canonical};
use crate::border::snapshot::Listener;
use crate::sys::ancillary::Received;
use crate::sys::datagram::Message;

/// Bound, and open.
pub struct Door {
    pub socket: OwnedFd,
    pub address: ListenAddr,
    /// As the kernel has it, canonical.
    pub local: SocketAddr,
    /// The listener as it is in the snapshot in force.
    pub listener: Arc<Listener>,
    /// The kernel's last count of datagrams that did not fit in the queue.
    pub(super) overflow: u32,
}

/// Datagrams of one message that one flow takes.
pub struct Share {
    pub(super) flow: FlowId,
    /// In the inbox.
    pub(super) message: usize,
    /// Of its payload.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) segment: usize,
}

impl Share {
    pub(super) fn datagrams(&self) -> u64 {
        (self.end - self.start).div_ceil(self.segment.max(1)).max(1) as u64
    }
}

impl Door {
    pub fn new(
        socket: OwnedFd,
        address: ListenAddr,
        local: SocketAddr,
        listener: Arc<Listener>,
    ) -> Door {
        Door { socket, address, local, listener, overflow: 0 }
    }

    /// Client and dialled address of a key, canonical.
    pub fn addresses(&self, key: &Key) -> (SocketAddr, SocketAddr) {
        let client = key.client.address().map(canonical);
        let nobody = SocketAddr::from(([0; 4], 0));
        let dialled = match key.dialled {
            Some(ip) => ZonedIp::new(ip, key.interface).at(self.local.port()),
            None => self.local,
        };
        (client.unwrap_or(nobody), dialled)
    }

    pub(super) fn key(&self, index: u32, message: &Message<'_>) -> Key {
        // A socket with one address needs no information about the source address of replies.
        let dialled = message.beside.to.filter(|_| self.local.ip().is_unspecified());
        let interface = message.beside.interface;
        Key { door: index, client: message.from, dialled, interface }
    }
}

/// How many more datagrams did not fit since the last count of the kernel, which wraps around.
pub fn overflowed(seen: &mut u32, received: &Received) -> u32 {
    let Some(now) = received.overflow else { return 0 };
    now.wrapping_sub(std::mem::replace(seen, now))
}
