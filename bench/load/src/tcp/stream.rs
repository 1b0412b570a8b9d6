//! Sockets and their readiness, for clients, servers and relays alike.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use socket2::{Domain, Socket, Type};

/// Connections that may wait to be accepted; the kernel takes less if it allows less.
const BACKLOG: i32 = 4096;
/// Events taken at once.
const EVENTS: usize = 256;

/// An epoll descriptor.
pub struct Ready(OwnedFd);

impl Ready {
    pub fn new() -> io::Result<Ready> {
        Ok(Ready(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub fn add(&self, socket: impl AsFd, data: u64, interest: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, epoll::EventData::new_u64(data), interest)?)
    }

    pub fn change(
        &self,
        socket: impl AsFd,
        data: u64,
        interest: epoll::EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, epoll::EventData::new_u64(data), interest)?)
    }

    pub fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.0, socket)?)
    }

    /// What is ready, at the latest after `timeout`; none: as long as it takes.
    pub fn wait(
        &self,
        into: &mut Vec<(u64, epoll::EventFlags)>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        let mut timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().cast_signed(),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        if let Some(precise) = timeout.filter(|timeout| timeout.tv_sec == 0 && timeout.tv_nsec > 0)
        {
            // epoll_wait knows milliseconds only; that would be the latency of a client that keeps time.
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut ready, Some(&precise)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            timeout = Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        let none =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; EVENTS];
        match epoll::wait(&self.0, &mut events[..], timeout.as_ref()) {
            Ok(count) => {
                into.extend(events[..count].iter().map(|event| (event.data.u64(), event.flags)));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

pub fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection that is being made, from that port if one is given; where it was used a moment ago, too.
pub fn connecting(address: SocketAddr, port: Option<u16>) -> io::Result<OwnedFd> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(port) = port {
        socket.set_reuse_address(true)?;
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        };
        socket.bind(&any.into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// A connection that is made, not blocking from now on.
pub fn connected(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&address.into(), Duration::from_secs(5))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
