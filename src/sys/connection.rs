//! What only the kernel knows of a connection: how many bytes arrived, where its urgent data is, whether it is
//! connected to itself.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::socket::unsent_bytes;

/// Registers a connection with the event loop of this thread: for bytes both ways, and for urgent data, which
/// readiness for bytes alone would not distinguish from an empty socket.
pub fn watch(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    // Why not safe code: tokio made registering an arbitrary descriptor unsafe, and its TcpStream asks for no priority.
    // SAFETY: `socket` is an OwnedFd, which the AsyncFd takes over whole: it stays open and the same
    // descriptor until the AsyncFd itself is dropped or gives it back.
    let watched = unsafe { AsyncFd::register_with_interest(socket, interest) };
    watched.map_err(io::Error::from)
}

/// Whether the next byte to be read is urgent data.
pub fn is_at_mark(socket: impl AsFd) -> bool {
    let mut at_mark: libc::c_int = 0;
    // Why not safe code: no crate in use wraps SIOCATMARK.
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes one c_int to `at_mark`,
    // which lives on this stack frame.
    let result = unsafe {
        libc::ioctl(socket.as_fd().as_raw_fd(), SIOCATMARK, std::ptr::from_mut(&mut at_mark))
    };
    result == 0 && at_mark != 0
}

/// From linux/sockios.h; the same on all architectures on which this runs.
const SIOCATMARK: libc::Ioctl = 0x8905;

/// How much of what the kernel was given the far side has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes that have not arrived yet.
    pub is_pending: bool,
    /// Grows whenever something arrives.
    pub mark: u64,
}

pub fn delivery(socket: impl AsFd) -> Delivery {
    let unsent = unsent_bytes(&socket).unwrap_or(0);
    // For a unix socket: nothing else is given to it between two relevant checks, so fewer unsent bytes means that
    // more arrived.
    let mark = info(&socket).map_or(u64::MAX - u64::from(unsent), |info| info.tcpi_bytes_acked);
    Delivery { is_pending: unsent > 0, mark }
}

/// Whether the kernel has bytes that were never sent; can still be asked after a reset. One of them may be the FIN.
pub fn has_bytes_never_sent(socket: impl AsFd) -> bool {
    info(&socket).is_ok_and(|info| info.tcpi_notsent_bytes > 1)
}

/// No process listens at an address of this machine, and the kernel happened to choose the same port as ours: the
/// socket connected to itself, and connect() reports success.
pub fn is_with_itself(socket: impl AsFd) -> bool {
    let near = rustix::net::getsockname(&socket).ok().map(SocketAddr::try_from);
    let far = rustix::net::getpeername(&socket).ok().flatten().map(SocketAddr::try_from);
    matches!((near, far), (Some(Ok(near)), Some(Ok(far))) if near == far)
}

/// Whether both ends agreed on TCP timestamps: only then can a port in TIME_WAIT be reused at once.
pub fn timestamps_agreed(socket: impl AsFd) -> io::Result<bool> {
    const TCPI_OPT_TIMESTAMPS: u8 = 1;
    Ok(info(&socket)?.tcpi_options & TCPI_OPT_TIMESTAMPS != 0)
}

fn info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap_or(0);
    // Why not safe code: neither socket2 nor rustix wraps TCP_INFO.
    // SAFETY: the descriptor is open for the length of the borrow; the kernel writes at most `length` bytes,
    // the size of the buffer it is given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every field of tcp_info is an integer, for which the zeroes written above are valid.
    Ok(unsafe { info.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Socket, Type};

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn fill(mut writer: impl Write) {
        while writer.write(&[0; 65_536]).is_ok() {}
    }

    #[test]
    fn what_a_slow_reader_takes_is_seen_and_what_it_leaves_is_pending() {
        let (client, mut server) = pair();
        client.set_nonblocking(true).unwrap();
        assert!(!delivery(&client).is_pending);
        fill(&client);
        let before = delivery(&client);
        assert!(before.is_pending);
        assert_eq!(delivery(&client), before, "nobody reads");
        let mut rest = vec![0; 4 << 20];
        server.read_exact(&mut rest[..1 << 20]).unwrap();
        let start = std::time::Instant::now();
        while delivery(&client).mark <= before.mark {
            assert!(start.elapsed().as_secs() < 5, "it was read");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_same_of_a_unix_socket() {
        let (client, mut server) = UnixStream::pair().unwrap();
        client.set_nonblocking(true).unwrap();
        fill(&client);
        let before = delivery(&client);
        assert!(before.is_pending);
        server.read_exact(&mut [0; 65_536]).unwrap();
        assert!(delivery(&client).mark > before.mark);
    }

    #[test]
    fn a_socket_that_reached_itself_is_known() {
        let (client, server) = pair();
        assert!(!is_with_itself(&client) && !is_with_itself(&server));
        let own = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        own.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        own.connect(&own.local_addr().unwrap()).unwrap();
        assert!(is_with_itself(&own));
    }
}
