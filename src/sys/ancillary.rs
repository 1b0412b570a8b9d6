//! Control messages and socket addresses as the bytes that the kernel exchanges: built and read without unsafe code.
//! Layouts: cmsg(3), ip(7), ipv6(7), udp(7); all integers in the machine's byte order, except ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `UDP_SEGMENT` of <linux/udp.h>: the kernel splits one send into datagrams of this size.
const UDP_SEGMENT: i32 = 103;
/// `UDP_GRO`: the size of the datagrams that the kernel combined into one receive.
const UDP_GRO: i32 = 104;

/// Of `struct cmsghdr`: length, level, type.
const HEADER: usize = size_of::<usize>() + 8;
const ALIGN: usize = size_of::<usize>();

/// A socket address, IPv4 or IPv6, exactly as the kernel gave it; sending back to it needs no conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct RawAddr {
    pub(super) bytes: [u8; RawAddr::ROOM],
    pub(super) length: u32,
}

impl RawAddr {
    /// `struct sockaddr_in6`, the longer one.
    pub(super) const ROOM: usize = 28;
    pub(super) const EMPTY: RawAddr = RawAddr { bytes: [0; RawAddr::ROOM], length: 0 };

    pub fn new(address: SocketAddr) -> RawAddr {
        let mut raw = RawAddr::EMPTY;
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                raw.bytes[..2].copy_from_slice(&family(libc::AF_INET));
                raw.bytes[4..8].copy_from_slice(&address.ip().octets());
                raw.length = 16;
            }
            SocketAddr::V6(address) => {
                raw.bytes[..2].copy_from_slice(&family(libc::AF_INET6));
                raw.bytes[8..24].copy_from_slice(&address.ip().octets());
                raw.bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                raw.length = 28;
            }
        }
        raw
    }

    /// `None` if it is neither IPv4 nor IPv6. Not canonical: a client of a socket for both families is mapped.
    pub fn address(&self) -> Option<SocketAddr> {
        let bytes = self.bytes.get(..usize::try_from(self.length).ok()?)?;
        let port = u16::from_be_bytes(array(bytes, 2)?);
        match i32::from(u16::from_ne_bytes(array(bytes, 0)?)) {
            libc::AF_INET => Some((Ipv4Addr::from(array::<4>(bytes, 4)?), port).into()),
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(array(bytes, 24)?);
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }
}

fn family(family: i32) -> [u8; 2] {
    u16::try_from(family).unwrap_or(0).to_ne_bytes()
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// What the kernel reports with a received message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The message is several datagrams of this size; the last may be shorter.
    pub segment: Option<usize>,
    /// Our address to which it was sent; for a broadcast, the address that answers for it.
    pub to: Option<IpAddr>,
    /// Every socket on the port has one.
    pub is_broadcast: bool,
    /// The interface on which it came in, if the address is valid on that one alone (link-local); else 0.
    pub interface: u32,
    /// Datagrams for which this socket had no room since it was opened, modulo 2^32.
    pub overflow: Option<u32>,
}

impl Received {
    pub(super) fn read(mut control: &[u8]) -> Received {
        let mut received = Received::default();
        while let Some((level, kind, data, rest)) = next(control) {
            match (level, kind) {
                (libc::SOL_UDP, UDP_GRO) => {
                    let size = array(data, 0).map(i32::from_ne_bytes);
                    received.segment = size.and_then(|size| usize::try_from(size).ok());
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // Interface, then our address, then the one in the packet (which may be a broadcast).
                    let (ours, dialled) = (array::<4>(data, 4), array::<4>(data, 8));
                    received.to = ours.map(|ip| Ipv4Addr::from(ip).into());
                    received.is_broadcast = ours != dialled;
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let ip = array::<16>(data, 0).map(Ipv6Addr::from);
                    // On a socket for both families IPv4 has the other one, too, which handles broadcasts.
                    received.to = received.to.filter(IpAddr::is_ipv4).or(ip.map(IpAddr::from));
                    if ip.is_some_and(|ip| ip.is_unicast_link_local()) {
                        received.interface = array(data, 16).map_or(0, u32::from_ne_bytes);
                    }
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    received.overflow = array(data, 0).map(u32::from_ne_bytes);
                }
                _ => {}
            }
            control = rest;
        }
        received
    }
}

/// The first control message: level, type, data, and what follows.
fn next(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let length = usize::from_ne_bytes(array(control, 0)?);
    let level = i32::from_ne_bytes(array(control, ALIGN)?);
    let kind = i32::from_ne_bytes(array(control, ALIGN + 4)?);
    let data = control.get(HEADER..length)?;
    let rest = control.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
    Some((level, kind, data, rest))
}

/// What to pass to the kernel with a message to send.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct Sent {
    pub(super) bytes: [u8; Sent::ROOM],
    pub(super) length: usize,
}

impl Sent {
    /// A segment size and an IPv6 address.
    const ROOM: usize = 72;

    pub(super) fn new(from: Option<(IpAddr, u32)>, segment: Option<u16>) -> Sent {
        let mut sent = Sent { bytes: [0; Sent::ROOM], length: 0 };
        if let Some(segment) = segment {
            sent.push(libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        match from {
            Some((IpAddr::V4(ip), _)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                sent.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some((IpAddr::V6(ip), interface)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                sent.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        sent
    }

    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let at = self.length;
        let length = HEADER + data.len();
        self.bytes[at..at + ALIGN].copy_from_slice(&length.to_ne_bytes());
        self.bytes[at + ALIGN..at + ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + ALIGN + 4..at + HEADER].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + HEADER..at + length].copy_from_slice(data);
        self.length = at + length.next_multiple_of(ALIGN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The kernel is trusted; still, no bytes at all make the reader panic or loop.
        #[test]
        fn any_bytes_can_be_read(control in proptest::collection::vec(any::<u8>(), 0..128)) {
            Received::read(&control);
        }

        #[test]
        fn an_address_survives(ip in any::<[u8; 16]>(), v4 in any::<bool>(), port in any::<u16>(), scope in any::<u32>()) {
            let address: SocketAddr = if v4 {
                (Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]), port).into()
            } else {
                SocketAddrV6::new(ip.into(), port, 0, scope).into()
            };
            prop_assert_eq!(RawAddr::new(address).address(), Some(address));
        }
    }

    #[test]
    fn what_is_sent_reads_back() {
        for (from, interface) in
            [("192.0.2.1", 0), ("2001:db8::1", 0), ("::ffff:192.0.2.1", 0), ("fe80::1", 7)]
        {
            let from: IpAddr = from.parse().unwrap();
            let sent = Sent::new(Some((from, interface)), Some(1200));
            let received = Received::read(&sent.bytes[..sent.length]);
            assert_eq!((received.to, received.interface), (Some(from), interface));
        }
        assert_eq!(Sent::new(None, None).length, 0);
    }

    #[test]
    fn a_length_of_nothing_ends_the_reading() {
        let control = [0; 64];
        assert_eq!(Received::read(&control), Received::default());
    }
}
