//! Kernel pipes for splice(2), and a worker's small stock of them. A pipe is borrowed only while bytes are in flight:
//! `fs.pipe-user-pages-soft` is a budget per user, and beyond it new pipes are two pages long.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};

/// The size of a pipe that is asked of the kernel; more did not help, and the bytes should stay within the cache.
pub const WANTED: usize = 256 * 1024;
/// A smaller pipe costs more calls than it saves copies.
const LEAST: usize = 64 * 1024;
/// Empty pipes that a worker keeps for later.
const STOCK: usize = 32;

/// A pipe and how many bytes are in it. The kernel may hold more than the nominal size.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    bytes: usize,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // A refusal is noticed by the size that is read back.
        let _ = fcntl_setpipe_size(&write, WANTED);
        if fcntl_getpipe_size(&write)? < LEAST {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Pipe { read, write, bytes: 0 })
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Socket → pipe. `Ok(0)` is the end of the stream; WouldBlock means that the source is empty, because the caller
    /// fills an empty pipe only.
    pub fn fill(&mut self, source: impl AsFd, most: usize) -> io::Result<usize> {
        debug_assert_eq!(self.bytes, 0, "EAGAIN is unambiguous only with an empty pipe");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(source, None, &self.write, None, most, flags)?;
        self.bytes += moved;
        Ok(moved)
    }

    /// Pipe → socket. WouldBlock means that the sink is full, because the pipe is not empty.
    pub fn drain(&mut self, sink: impl AsFd) -> io::Result<usize> {
        debug_assert!(self.bytes > 0, "EAGAIN is unambiguous only with bytes in the pipe");
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = splice(&self.read, None, sink, None, self.bytes, flags)?;
        self.bytes -= moved.min(self.bytes);
        Ok(moved)
    }

    /// Reads everything out of the pipe, if it cannot be spliced on.
    pub fn take_all(&mut self) -> io::Result<Vec<u8>> {
        let mut all = vec![0; self.bytes];
        let mut taken = 0;
        while taken < all.len() {
            match rustix::io::read(&self.read, &mut all[taken..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => taken += count,
            }
        }
        self.bytes = 0;
        Ok(all)
    }
}

/// The pipes of one worker.
#[derive(Debug)]
pub struct PipeStock {
    idle: Vec<Pipe>,
    lent: usize,
    /// Two descriptors each; at the limit a direction copies instead.
    limit: usize,
    /// Set for good when the kernel forbids splice or pipes (ENOSYS, EPERM, EINVAL on any socket).
    forbidden: bool,
}

impl PipeStock {
    pub fn new(limit: usize) -> Self {
        PipeStock { idle: Vec::new(), lent: 0, limit, forbidden: false }
    }

    /// An empty pipe, or `None`: copy instead.
    pub fn borrow(&mut self) -> Option<Pipe> {
        if self.forbidden || self.lent >= self.limit {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => match Pipe::new() {
                Ok(pipe) => pipe,
                Err(error) => {
                    self.forbidden = matches!(
                        error.raw_os_error(),
                        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL)
                    );
                    return None;
                }
            },
        };
        self.lent += 1;
        Some(pipe)
    }

    /// Takes a pipe back; one with bytes left is closed, because they belong to a session that is over.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.lent -= 1;
        if pipe.bytes == 0 && self.idle.len() < STOCK {
            self.idle.push(pipe);
        }
    }

    /// Closes the unused pipes: an idle process holds no descriptors for them.
    pub fn close_idle(&mut self) {
        self.idle.clear();
    }

    pub fn forbid(&mut self) {
        self.forbidden = true;
        self.idle.clear();
    }

    pub fn lent(&self) -> usize {
        self.lent
    }
}

/// Whether this error of splice means "not here" rather than "not now" or "broken connection".
pub fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pipe_with_bytes_left_is_closed_not_kept() {
        let mut stock = PipeStock::new(2);
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"left over").unwrap();
        let mut pipe = stock.borrow().unwrap();
        assert_eq!(pipe.fill(&far, 1 << 20).unwrap(), 9);
        stock.give_back(pipe);
        let mut fresh = stock.borrow().unwrap();
        near.write_all(b"new").unwrap();
        assert_eq!(fresh.fill(&far, 1 << 20).unwrap(), 3);
        let (sink, mut reader) = UnixStream::pair().unwrap();
        assert_eq!(fresh.drain(&sink).unwrap(), 3);
        let mut got = [0; 3];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"new");
        stock.give_back(fresh);
    }

    #[test]
    fn at_its_limit_the_stock_lends_nothing() {
        let mut stock = PipeStock::new(1);
        let pipe = stock.borrow().unwrap();
        assert!(stock.borrow().is_none());
        stock.give_back(pipe);
        assert!(stock.borrow().is_some());
    }
}
