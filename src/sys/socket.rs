//! Sockets: listening ones with their options, outgoing ones, and the questions only the kernel can answer.

use std::fs::Permissions;
use std::io;
use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::net::{RecvFlags, SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::border::addr::{BackendAddr, ClientAddr, ListenAddr, LocalAddr};

/// Whether another program must not hold the address already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The first socket of an address: fails if any program listens there, even with SO_REUSEPORT.
    First,
    /// A further socket of our own group.
    Further,
}

/// Binds a socket for `address`, not yet listening: the caller can still back out without a trace.
pub fn bind(address: &ListenAddr, claim: Claim) -> io::Result<OwnedFd> {
    let socket = match address {
        ListenAddr::DualStack(port) => match inet_listener(Domain::IPV6, claim) {
            Ok(socket) => {
                socket.set_only_v6(false)?;
                let any = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, *port));
                match socket.bind(&any.into()) {
                    Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
                        any_v4(*port, claim)?
                    }
                    bound => bound.map(|()| socket)?,
                }
            }
            // A host without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => any_v4(*port, claim)?,
            Err(error) => return Err(error),
        },
        ListenAddr::Inet(address) => {
            let socket = inet_listener(Domain::for_address(*address), claim)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&(*address).into())?;
            socket
        }
        ListenAddr::Unix(path) => bind_unix(path, Permissions::from_mode(0o660))?,
    };
    if claim == Claim::First && !matches!(address, ListenAddr::Unix(_)) {
        // Only now, so that the bind above could not join another program's group.
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

fn inet_listener(domain: Domain, claim: Claim) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    // A restart must not wait for the TIME_WAIT sockets of its predecessor.
    socket.set_reuse_address(true)?;
    if claim == Claim::Further {
        socket.set_reuse_port(true)?;
    }
    Ok(socket)
}

fn any_v4(port: u16, claim: Claim) -> io::Result<Socket> {
    let socket = inet_listener(Domain::IPV4, claim)?;
    socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
    Ok(socket)
}

/// A socket file on which nothing answers is left over from a crash and is replaced; one that answers is an error.
pub fn bind_unix(path: &Path, mode: Permissions) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
        match probe.connect(&address) {
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => {
                std::fs::remove_file(path)?;
            }
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&address)?;
    std::fs::set_permissions(path, mode)?;
    Ok(socket)
}

/// The options for listening, and those that accepted sockets inherit.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// `None`: off.
    pub keepalive: Option<TcpKeepalive>,
    /// `None`: the kernel tunes them.
    pub buffer: Option<u64>,
    /// `None`: as long as the kernel retransmits.
    pub user_timeout: Option<Duration>,
    pub backlog: u32,
}

/// Starts or restarts listening, with the options that accepted sockets inherit.
pub fn listen(socket: &OwnedFd, options: &Listening) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        set_keepalive(&socket, options.keepalive.as_ref())?;
        socket.set_tcp_user_timeout(options.user_timeout)?;
    }
    if let Some(size) = options.buffer {
        set_buffers(&socket, size)?;
    }
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

/// Gives a socket the default buffers again, which the kernel tunes.
pub fn free_buffers(socket: &OwnedFd) -> io::Result<()> {
    // Neither libc nor a crate in use has it (Linux 5.14).
    const SO_BUF_LOCK: libc::c_int = 72;
    let socket = SockRef::from(socket);
    let new = Socket::new(socket.domain()?, Type::STREAM.cloexec(), None)?;
    // The kernel doubles the given value.
    socket.set_recv_buffer_size(new.recv_buffer_size()? / 2)?;
    socket.set_send_buffer_size(new.send_buffer_size()? / 2)?;
    // An older kernel then does not tune them.
    let _ = set_int(&*socket, libc::SOL_SOCKET, SO_BUF_LOCK, 0);
    Ok(())
}

/// From here on no new connection finds this listening socket, although it still has its port; handshakes that began
/// before go on. It is bound to an interface that does not exist.
pub fn leave_lookup(socket: &OwnedFd) -> io::Result<()> {
    set_int(socket, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, libc::c_int::MAX)
}

fn set_keepalive(socket: &SockRef<'_>, keepalive: Option<&TcpKeepalive>) -> io::Result<()> {
    match keepalive {
        None => socket.set_keepalive(false),
        Some(keepalive) => socket.set_tcp_keepalive(keepalive),
    }
}

/// Both buffers, as large as the kernel allows.
fn set_buffers(socket: &SockRef<'_>, size: u64) -> io::Result<()> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    socket.set_recv_buffer_size(size)?;
    socket.set_send_buffer_size(size)
}

/// Registers a listening socket with the event loop of this thread.
pub fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Why not safe code: tokio made registering an arbitrary descriptor for reads alone unsafe. SAFETY: `socket` is
    // an OwnedFd, which the AsyncFd takes over whole: it stays open and the same descriptor until the AsyncFd itself
    // is dropped, because nothing here takes it out or replaces it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

/// Accepts one connection, non-blocking.
pub fn accept(listener: impl AsFd) -> io::Result<(OwnedFd, ClientAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, address) = acceptfrom_with(listener, flags)?;
    Ok((socket, address.and_then(inet).map_or(ClientAddr::Unix, ClientAddr::new)))
}

fn inet(address: SocketAddrAny) -> Option<SocketAddr> {
    SocketAddr::try_from(address).ok()
}

/// Our address of this connected or listening socket.
pub fn local_addr(socket: impl AsFd) -> LocalAddr {
    rustix::net::getsockname(socket).ok().and_then(inet).map_or(LocalAddr::Unix, LocalAddr::new)
}

/// The options of an outgoing connection.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub keepalive: Option<TcpKeepalive>,
    pub buffer: Option<u64>,
    pub user_timeout: Option<Duration>,
    /// There is something to send at once: the handshake's ACK waits for it and goes with it, one packet less. After
    /// that the kernel acknowledges at once again.
    pub sends_first: bool,
}

/// A non-blocking socket for a backend, options set, not yet bound or connected.
pub fn outgoing(address: &SockAddr, options: &Outgoing) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        if options.keepalive.is_some() {
            set_keepalive(&SockRef::from(&socket), options.keepalive.as_ref())?;
        }
        if let Some(timeout) = options.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        if options.sends_first {
            socket.set_tcp_quickack(false)?;
        }
    }
    if let Some(size) = options.buffer {
        set_buffers(&SockRef::from(&socket), size)?;
    }
    Ok(socket)
}

/// The address for connect(): `None` for a portless backend behind a unix listener.
pub fn backend_sockaddr(address: &BackendAddr, dialled: LocalAddr) -> io::Result<Option<SockAddr>> {
    match address {
        BackendAddr::Unix(path) => SockAddr::unix(path).map(Some),
        inet => Ok(inet.resolve(dialled).map(SockAddr::from)),
    }
}

/// The result of peeking at a connected socket and its poll flags, without reading anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// Bytes wait, and whether a FIN follows them.
    Bytes {
        fin: bool,
    },
    /// The stream ended before any byte.
    Ended,
    Nothing,
    Reset,
}

/// Checks what a client did while nothing reads from it. A reset is seen even behind unread bytes.
pub fn peek(socket: impl AsFd) -> Peeked {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(&socket, PollFlags::IN | PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut fds, Some(&now)).is_err() {
        return Peeked::Nothing;
    }
    let flags = fds[0].revents();
    // HUP alone is not a reset: a unix client that closed has it, too.
    if flags.contains(PollFlags::ERR) {
        return Peeked::Reset;
    }
    if !flags.intersects(PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP) {
        return Peeked::Nothing;
    }
    let fin = flags.intersects(PollFlags::RDHUP | PollFlags::HUP);
    let mut byte = [0u8; 1];
    match rustix::net::recv(&socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Peeked::Ended,
        Ok(_) => Peeked::Bytes { fin },
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Peeked::Nothing,
        Err(_) => Peeked::Reset,
    }
}

/// Whether bytes can be read at once.
pub fn has_bytes(socket: impl AsFd) -> bool {
    let mut byte = [0u8; 1];
    let looked = rustix::net::recv(&socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT);
    matches!(looked, Ok((1, _)))
}

/// Bytes given to the kernel that the far side has not acknowledged (TCP) or read (unix).
pub fn unsent_bytes(socket: impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // Why not safe code: no crate in use wraps SIOCOUTQ (TIOCOUTQ by another name).
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes one c_int to `bytes`,
    // which lives on this stack frame.
    let result = unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, std::ptr::from_mut(&mut bytes))
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

/// Bind to an address alone: the kernel chooses the port at connect(), per destination.
pub fn set_bind_address_no_port(socket: impl AsFd) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

pub(super) fn set_int(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // Why not safe code: neither socket2 nor rustix has these options. SAFETY: the descriptor is open for the length
    // of the borrow; the kernel reads `length` bytes from `value`, which lives on this stack frame.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How much of what a refused client may have sent is read before the close.
const POLITE: usize = 256 * 1024;

/// Sends the FIN and reads what can be read without waiting: closing with unread bytes would reset.
pub fn end_politely(socket: impl AsFd, scratch: &mut [u8]) {
    // A socket that is gone already needs no FIN.
    let _ = SockRef::from(&socket).shutdown(std::net::Shutdown::Write);
    let mut taken = 0;
    while taken < POLITE {
        match rustix::net::recv(&socket, &mut *scratch, RecvFlags::DONTWAIT) {
            Ok((0, _)) | Err(_) => return,
            Ok((count, _)) => taken += count,
        }
    }
}

/// From now on, closing this socket resets the connection and discards what is unsent.
pub fn reset_on_close(socket: impl AsFd) {
    // Fails only if this is not a socket; then there is nothing to reset.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    fn loopback_zero() -> ListenAddr {
        ListenAddr::Inet("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn a_first_claim_fails_on_a_foreign_reuseport_group_and_a_further_one_joins_ours() {
        let first = bind(&loopback_zero(), Claim::First).unwrap();
        let LocalAddr::Inet(address) = local_addr(&first) else { panic!("an inet socket") };
        listen(&first, &Listening::default()).unwrap();
        let again = ListenAddr::Inet(address);
        assert_eq!(bind(&again, Claim::First).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let further = bind(&again, Claim::Further).unwrap();
        listen(&further, &Listening::default()).unwrap();
    }

    #[test]
    fn buffers_that_are_fixed_no_longer_are_those_of_a_new_socket() {
        let accepted = |prepare: &dyn Fn(&OwnedFd)| {
            let listener = bind(&loopback_zero(), Claim::First).unwrap();
            prepare(&listener);
            let LocalAddr::Inet(address) = local_addr(&listener) else { panic!("an inet socket") };
            let _client = TcpStream::connect(address).unwrap();
            let mut taken = None;
            wait_for(|| {
                taken = accept(&listener).ok();
                taken.is_some()
            });
            let socket = Socket::from(taken.unwrap().0);
            (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap())
        };
        let usual = Listening { backlog: 64, ..Listening::default() };
        let fixed = Listening { buffer: Some(8192), ..usual.clone() };
        let fresh = accepted(&|it| listen(it, &usual).unwrap());
        let freed = accepted(&|it| {
            listen(it, &fixed).unwrap();
            free_buffers(it).unwrap();
            listen(it, &usual).unwrap();
        });
        assert_eq!(freed, fresh);
        assert_ne!(accepted(&|it| listen(it, &fixed).unwrap()), fresh);
    }

    #[test]
    fn peek_tells_bytes_fin_and_reset_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        let (mut client, server) = open();
        assert_eq!(peek(&server), Peeked::Nothing);
        client.write_all(b"x").unwrap();
        wait_for(|| peek(&server) == Peeked::Bytes { fin: false });
        client.shutdown(std::net::Shutdown::Write).unwrap();
        wait_for(|| peek(&server) == Peeked::Bytes { fin: true });
        reset_on_close(&client);
        drop(client);
        wait_for(|| peek(&server) == Peeked::Reset);
        let (client, server) = open();
        drop(client);
        wait_for(|| peek(&server) == Peeked::Ended);
    }

    fn wait_for(mut condition: impl FnMut() -> bool) {
        let start = std::time::Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(5), "the condition never held");
            std::thread::yield_now();
        }
    }
}
