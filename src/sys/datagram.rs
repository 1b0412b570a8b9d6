//! UDP sockets: bound without receiving yet, connected to a backend, read many messages at a time with the kernel's
//! coalescing (`UDP_GRO`), written one super-datagram at a time (`UDP_SEGMENT`).

use std::io::{self, IoSlice};
use std::mem::zeroed;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;

use rustix::net::RecvFlags;
use socket2::{Domain, SockFilter, Socket, Type};

use super::ancillary::{RawAddr, Received, Sent};
use super::socket::{Claim, set_int};
use crate::border::addr::{ListenAddr, ZonedIp};

/// Messages per read.
pub const BATCH: usize = 32;

/// Room for each: a coalesced message has up to 64 KiB, and what does not fit is lost.
pub const ROOM: usize = 65_536;

/// For the control messages of each.
const CONTROL: usize = 128;

/// The kernel's queue for a listening socket and for a flow's. A limit, not an allocation.
pub const LISTENER_BUFFER: usize = 8 << 20;
pub const FLOW_BUFFER: usize = 2 << 20;

/// Binds a socket for `address` that receives nothing until `open`: the caller can still back out without having
/// received anything.
pub fn bind(address: &ListenAddr, claim: Claim) -> io::Result<OwnedFd> {
    let socket = match address {
        ListenAddr::DualStack(port) => match dual_stack(*port, claim) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
                ) =>
            {
                // A host without IPv6.
                bound((Ipv4Addr::UNSPECIFIED, *port).into(), claim)?
            }
            socket => socket?,
        },
        ListenAddr::Inet(address) => bound(*address, claim)?,
        ListenAddr::Unix(_) => return Err(io::ErrorKind::Unsupported.into()),
    };
    if claim == Claim::First {
        // Only now, so that the bind above could not join another program's group.
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

fn dual_stack(port: u16, claim: Claim) -> io::Result<Socket> {
    let socket = unbound(Domain::IPV6, claim)?;
    tell_dialled(&socket, Domain::IPV6)?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    Ok(socket)
}

fn bound(address: SocketAddr, claim: Claim) -> io::Result<Socket> {
    let socket = unbound(Domain::for_address(address), claim)?;
    if address.ip().is_unspecified() {
        tell_dialled(&socket, Domain::for_address(address))?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Not SO_REUSEADDR: for UDP it would let a second program take the port.
fn unbound(domain: Domain, claim: Claim) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None)?;
    if claim == Claim::Further {
        socket.set_reuse_port(true)?;
    }
    set_buffers(&socket, LISTENER_BUFFER);
    let fd = socket.as_fd();
    // A kernel without it delivers datagrams one by one.
    let _ = set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    set_int(fd, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // BPF_RET|BPF_K 0: let nothing in. A socket that is bound but not in force yet would collect datagrams, and while
    // its group grows the kernel would spread the same client over different members.
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    Ok(socket)
}

/// Each datagram comes with our address to which it was sent. This has a cost, so it is used only if there are
/// several addresses.
fn tell_dialled(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain == Domain::IPV6 {
        // On a socket for both families, only this option says which address of ours answers for an IPv4 broadcast.
        let _ = set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1);
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// From here on the socket receives, if it did not before.
pub fn open(socket: impl AsFd) -> io::Result<()> {
    match socket2::SockRef::from(&socket).detach_filter() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// From here on it receives nothing; what is queued stays.
pub fn shut(socket: impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(&socket).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
}

/// A socket on which only `backend` can answer, and which gets its ICMP errors. If a port is given, other sockets of
/// ours on it may be connected to other backends; without one the kernel chooses.
pub fn connect(
    backend: SocketAddr,
    source: Option<ZonedIp>,
    port: Option<u16>,
) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(backend);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking().cloexec(), None)?;
    set_buffers(&socket, FLOW_BUFFER);
    // A kernel without it delivers datagrams one by one.
    let _ = set_int(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1);
    set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    hear_of_icmp(&socket, domain)?;
    if let Some(port) = port {
        socket.set_reuse_address(true)?;
        let any = if backend.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        socket.bind(&source.unwrap_or(any.into()).at(port).into())?;
    } else if let Some(source) = source {
        socket.bind(&source.at(0).into())?;
    }
    socket.connect(&backend.into())?;
    // No process listens there, and the kernel happened to choose the same port as ours: the socket would answer
    // itself.
    if socket.local_addr()?.as_socket() == Some(backend) {
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok(socket.into())
}

/// Whether an address belongs to this host: only such an address is reached from itself. Nothing is sent.
pub fn is_ours(ip: IpAddr) -> bool {
    let address = SocketAddr::new(ip, 9);
    let from = || {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), None)?;
        socket.connect(&address.into())?;
        socket.local_addr()
    };
    // Without a route, a descriptor or a port, it cannot be answered either.
    from().is_ok_and(|from| from.as_socket().map(|from| from.ip()) == Some(ip))
}

/// Whether no connection can come from this address, because this machine does not have it.
pub fn is_absent(ip: ZonedIp) -> bool {
    let address = ip.at(0);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.cloexec(), None);
    // Without a descriptor or the address family, this is not known.
    let bound = socket.and_then(|socket| socket.bind(&address.into()));
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// A connected socket gets errors about closed ports by default; with this also about hosts and networks that cannot
/// be reached.
pub fn hear_of_icmp(socket: &Socket, domain: Domain) -> io::Result<()> {
    if domain == Domain::IPV6 {
        set_int(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)
    } else {
        set_int(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)
    }
}

/// Discards the details of ICMP errors, which the kernel keeps in the room for datagrams.
pub fn forget_icmp(socket: impl AsFd) {
    const MOST: usize = 256;
    let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
    for _ in 0..MOST {
        // The datagram that was refused is not needed.
        if rustix::net::recv(&socket, &mut [0_u8; 1][..], flags).is_err() {
            return;
        }
    }
}

/// As large as wanted if we have the privilege, else as large as `net.core.rmem_max` and `wmem_max` allow.
fn set_buffers(socket: &Socket, size: usize) {
    set_buffers_as(socket, size, true);
}

fn set_buffers_as(socket: &Socket, size: usize, may_force: bool) {
    let wanted = libc::c_int::try_from(size).unwrap_or(libc::c_int::MAX);
    let fd = socket.as_fd();
    for (forced, plain) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if !may_force || set_int(fd, libc::SOL_SOCKET, forced, wanted).is_err() {
            // Never refused: the kernel takes as much as is allowed.
            let _ = set_int(fd, libc::SOL_SOCKET, plain, wanted);
        }
    }
}

/// The receive and the send buffer, in bytes, that the kernel grants if `LISTENER_BUFFER` is asked for. It keeps as
/// much again for its own use. `may_force`: with this process's capabilities, if it has any.
pub fn granted_buffers(may_force: bool) -> io::Result<(usize, usize)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), None)?;
    set_buffers_as(&socket, LISTENER_BUFFER, may_force);
    Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
}

/// Room for one batch of messages, and the result of the last read.
pub struct Inbox {
    payload: Box<[u8]>,
    names: Box<[RawAddr]>,
    controls: Box<[[u64; CONTROL / 8]]>,
    pieces: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    count: usize,
}

/// One received message: a datagram, or several of one size that the kernel combined.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub payload: &'a [u8],
    pub from: RawAddr,
    pub beside: Received,
    /// It was longer than the room for it: the rest is lost.
    pub is_truncated: bool,
}

impl Message<'_> {
    /// The size of each of its datagrams; the last may be shorter.
    pub fn segment(&self) -> usize {
        let size = self.payload.len();
        self.beside.segment.filter(|segment| *segment > 0).map_or(size, |segment| segment.min(size))
    }

    /// How many datagrams it is; an empty one counts, too.
    pub fn datagrams(&self) -> usize {
        self.payload.len().div_ceil(self.segment().max(1)).max(1)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        let piece = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all zeroes are a valid mmsghdr: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { zeroed() };
        Inbox {
            payload: vec![0; BATCH * ROOM].into_boxed_slice(),
            names: vec![RawAddr::EMPTY; BATCH].into_boxed_slice(),
            controls: vec![[0; CONTROL / 8]; BATCH].into_boxed_slice(),
            pieces: vec![piece; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            count: 0,
        }
    }
}

impl Inbox {
    /// Reads up to `most` messages without waiting. Fewer than that means that the queue was empty then. An error is
    /// one of the socket (an ICMP error, for a connected one), and takes nothing from the queue.
    pub fn receive(&mut self, socket: impl AsFd, most: usize) -> io::Result<usize> {
        let most = most.min(BATCH);
        self.count = 0;
        let rooms = self.payload.chunks_exact_mut(ROOM);
        let places = rooms.zip(&mut self.names).zip(&mut self.controls).zip(&mut self.pieces);
        let places = places.zip(&mut self.headers).take(most);
        for ((((room, name), control), piece), header) in places {
            piece.iov_base = room.as_mut_ptr().cast();
            piece.iov_len = ROOM;
            let header = &mut header.msg_hdr;
            header.msg_name = name.bytes.as_mut_ptr().cast();
            header.msg_namelen = libc::socklen_t::try_from(RawAddr::ROOM).unwrap_or(0);
            header.msg_iov = piece;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
            header.msg_flags = 0;
        }
        // Why not safe code: no crate in use wraps recvmmsg with control messages. By its number, because the C
        // library's function is a cancellation point, which costs as much as some of the work. SAFETY: each of the
        // first `most` headers was just pointed at buffers of the lengths it states, which `self` owns and lends to
        // nothing else until this call returns; no timeout is passed.
        let result = unsafe {
            libc::syscall(
                libc::SYS_recvmmsg,
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                libc::c_uint::try_from(most).unwrap_or(0),
                libc::MSG_DONTWAIT,
                ptr::null_mut::<libc::timespec>(),
            )
        };
        match usize::try_from(result) {
            Ok(count) => self.count = count,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(error);
                }
            }
        }
        for (name, header) in self.names.iter_mut().zip(&self.headers).take(self.count) {
            name.length = header.msg_hdr.msg_namelen;
            // A shorter address would leave the end of an earlier, longer one there, and equal addresses must compare
            // equal.
            let length = usize::try_from(name.length).unwrap_or(RawAddr::ROOM).min(RawAddr::ROOM);
            name.bytes[length..].fill(0);
        }
        Ok(self.count)
    }

    /// One of the messages that were read.
    pub fn message(&self, index: usize) -> Message<'_> {
        debug_assert!(index < self.count, "only what was read is there");
        let header = &self.headers[index];
        let control = &self.controls[index];
        // SAFETY: the words are initialized and lie in one array; bytes have no alignment and no invalid values.
        let control = unsafe { std::slice::from_raw_parts(control.as_ptr().cast::<u8>(), CONTROL) };
        let used = header.msg_hdr.msg_controllen.min(CONTROL);
        Message {
            payload: self.payload(index),
            from: self.names[index],
            beside: Received::read(&control[..used]),
            is_truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        }
    }

    pub fn payload(&self, index: usize) -> &[u8] {
        let length = usize::try_from(self.headers[index].msg_len).unwrap_or(0).min(ROOM);
        &self.payload[index * ROOM..index * ROOM + length]
    }

    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        (0..self.count).map(|index| self.message(index))
    }
}

/// Where a message goes, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parcel<'a> {
    /// `None` on a connected socket.
    pub to: Option<&'a RawAddr>,
    /// Our address from which it leaves, and the interface, as `Received` had them; `None`: the socket's own.
    pub from: Option<(IpAddr, u32)>,
    /// It is several datagrams of this size; the last may be shorter.
    pub segment: Option<u16>,
}

/// Sends the pieces as one message, without waiting.
pub fn send(socket: impl AsFd, pieces: &[IoSlice<'_>], parcel: &Parcel<'_>) -> io::Result<()> {
    let beside = Sent::new(parcel.from, parcel.segment);
    // SAFETY: all zeroes are a valid msghdr: null pointers, zero lengths.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if let Some(to) = parcel.to {
        header.msg_name = to.bytes.as_ptr().cast_mut().cast();
        header.msg_namelen = to.length;
    }
    header.msg_iov = pieces.as_ptr().cast_mut().cast();
    header.msg_iovlen = pieces.len();
    if beside.length > 0 {
        header.msg_control = beside.bytes.as_ptr().cast_mut().cast();
        header.msg_controllen = beside.length;
    }
    let (fd, header, flags) = (socket.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT);
    // Why not safe code: rustix's sendmsg supports neither UDP_SEGMENT nor the addresses of PKTINFO. By its number
    // for the reason above. SAFETY: name, pieces and control are borrowed for the length of this call, with the
    // lengths stated; sendmsg only reads them. IoSlice is guaranteed to have the layout of iovec.
    let result = unsafe { libc::syscall(libc::SYS_sendmsg, fd, header, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel refuse trains on this socket, as some devices and paths do: it splits none without checksums.
#[cfg(test)]
pub fn refuse_trains(socket: impl AsFd) {
    set_int(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn local() -> ListenAddr {
        ListenAddr::Inet("127.0.0.1:0".parse().unwrap())
    }

    fn address(socket: &OwnedFd) -> SocketAddr {
        socket2::SockRef::from(socket).local_addr().unwrap().as_socket().unwrap()
    }

    #[test]
    fn a_bound_socket_receives_nothing_before_it_is_opened() {
        let socket = bind(&local(), Claim::First).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"early", address(&socket)).unwrap();
        open(&socket).unwrap();
        client.send_to(b"late", address(&socket)).unwrap();
        let mut inbox = Inbox::default();
        assert_eq!(inbox.receive(&socket, BATCH).unwrap(), 1);
        let message = inbox.message(0);
        assert_eq!(message.payload, b"late");
        assert_eq!(message.from.address(), Some(client.local_addr().unwrap()));
        assert_eq!(message.beside.to, None, "there is but one");
    }

    #[test]
    fn an_address_of_this_host_is_known_from_others() {
        assert!(is_ours("127.0.0.1".parse().unwrap()));
        assert!(!is_ours("192.0.2.77".parse().unwrap()));
    }

    #[test]
    fn a_first_claim_fails_on_a_taken_address_and_a_further_one_joins_ours() {
        let first = bind(&local(), Claim::First).unwrap();
        let again = ListenAddr::Inet(address(&first));
        let error = bind(&again, Claim::First).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        bind(&again, Claim::Further).unwrap();
    }

    #[test]
    fn a_super_datagram_keeps_its_parts() {
        let server = bind(&local(), Claim::First).unwrap();
        open(&server).unwrap();
        let client = connect(address(&server), None, None).unwrap();
        let payload: Vec<u8> = (0..12_100_u32).map(|it| it.to_le_bytes()[0]).collect();
        let parcel = Parcel { segment: Some(1200), ..Parcel::default() };
        let (head, tail) = payload.split_at(5000);
        send(&client, &[IoSlice::new(head), IoSlice::new(tail)], &parcel).unwrap();
        let mut inbox = Inbox::default();
        assert_eq!(inbox.receive(&server, BATCH).unwrap(), 1);
        let message = inbox.message(0);
        assert_eq!((message.segment(), message.datagrams()), (1200, 11));
        assert_eq!(message.payload, payload);
    }

    #[test]
    fn empty_datagrams_and_the_largest_are_whole() {
        let server = bind(&local(), Claim::First).unwrap();
        open(&server).unwrap();
        let client = connect(address(&server), None, None).unwrap();
        send(&client, &[], &Parcel::default()).unwrap();
        send(&client, &[IoSlice::new(&[7; 65_507])], &Parcel::default()).unwrap();
        let mut inbox = Inbox::default();
        assert_eq!(inbox.receive(&server, BATCH).unwrap(), 2);
        let sizes: Vec<_> = inbox.messages().map(|it| (it.payload.len(), it.datagrams())).collect();
        assert_eq!(sizes, [(0, 1), (65_507, 1)]);
        assert!(inbox.messages().all(|it| !it.is_truncated));
        assert!(send(&client, &[IoSlice::new(&[7; 65_508])], &Parcel::default()).is_err());
    }

    #[test]
    fn an_icmp_error_is_an_error_and_no_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = connect(server.local_addr().unwrap(), None, None).unwrap();
        drop(server);
        send(&client, &[IoSlice::new(b"x")], &Parcel::default()).unwrap();
        let mut inbox = Inbox::default();
        let error = inbox.receive(&client, BATCH).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(inbox.receive(&client, BATCH).unwrap(), 0);
        let kept = || rustix::net::recv(&client, &mut [0_u8; 1][..], RecvFlags::ERRQUEUE);
        forget_icmp(&client);
        assert!(kept().is_err());
    }

    #[test]
    fn a_reply_leaves_from_the_address_it_is_told() {
        let any = ListenAddr::Inet("0.0.0.0:0".parse().unwrap());
        let server = bind(&any, Claim::First).unwrap();
        open(&server).unwrap();
        let port = address(&server).port();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"x", ("127.0.0.7", port)).unwrap();
        let mut inbox = Inbox::default();
        assert_eq!(inbox.receive(&server, BATCH).unwrap(), 1);
        let (from, to) = (inbox.message(0).beside.to.map(|ip| (ip, 0)), inbox.message(0).from);
        let parcel = Parcel { to: Some(&to), from, segment: None };
        send(&server, &[IoSlice::new(b"y")], &parcel).unwrap();
        let mut buffer = [0; 8];
        let (_, sender) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(sender, SocketAddr::from(([127, 0, 0, 7], port)));
    }
}
