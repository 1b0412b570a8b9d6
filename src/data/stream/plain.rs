//! A connected socket, TCP or unix, registered with this worker's event loop: plain bytes.
//!
//! The loop reports each change once. A short read means that the socket is empty, which saves the read that would
//! say so; unless it ended at an urgent mark, behind which more bytes may wait. The loop announces such a mark.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::task::{Context, Poll, Waker, ready};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::sys::connection;
use crate::sys::pipe::Pipe;

pub struct Plain(AsyncFd<OwnedFd>);

impl Plain {
    /// `socket` is non-blocking already.
    pub fn new(socket: OwnedFd) -> io::Result<Plain> {
        connection::watch(socket).map(Plain)
    }

    pub fn into_inner(self) -> OwnedFd {
        self.0.into_inner()
    }

    /// Reads once.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty()) {
                Ok((count, _)) => {
                    if count > 0 && count < buffer.len() && !self.is_urgent() {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    self.forget(Interest::PRIORITY);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes once; a short write also tells the event loop that the socket is full.
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::NOSIGNAL;
        self.poll_send(cx, bytes.len(), || rustix::net::send(&self.0, bytes, flags))
    }

    pub fn poll_write_vectored(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.poll_send(cx, length, || {
            let nothing = &mut SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.0, parts, nothing, SendFlags::NOSIGNAL)
        })
    }

    /// Writes a byte of urgent data.
    pub fn poll_write_urgent(&self, cx: &mut Context<'_>, byte: u8) -> Poll<io::Result<usize>> {
        let flags = SendFlags::NOSIGNAL | SendFlags::OOB;
        self.poll_send(cx, 1, || rustix::net::send(&self.0, &[byte], flags))
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        send: impl Fn() -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match send() {
                Ok(count) => {
                    if count < length {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Urgent data was announced, and not everything that was there has been read since.
    pub fn is_urgent(&self) -> bool {
        // Cheap, and also true of a stream that ended.
        self.0.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
            && self.readiness(Interest::PRIORITY).is_some_and(|ready| ready.is_priority())
    }

    /// What the event loop knows already.
    fn readiness(&self, interest: Interest) -> Option<Ready> {
        match pin!(self.0.ready(interest)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(ready)) => Some(ready.ready()),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }

    /// Takes the byte of urgent data, if everything before it has been read.
    pub fn take_urgent(&self) -> Option<u8> {
        if !connection::is_at_mark(&self.0) {
            return None;
        }
        let mut byte = [0];
        let flags = RecvFlags::OOB | RecvFlags::DONTWAIT;
        // It was taken before, or has not arrived yet: the mark comes before its byte.
        let (count, _) = rustix::net::recv(&self.0, &mut byte[..], flags).ok()?;
        (count == 1).then_some(byte[0])
    }

    /// This socket → `pipe`, which is empty: WouldBlock can only mean that the socket is empty, or at a mark.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match pipe.fill(&self.0, most) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// `pipe`, which holds bytes, → this socket: WouldBlock can only mean that the socket is full.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match pipe.drain(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready once a connect() has an outcome, which is the result.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        drop(ready!(self.0.poll_write_ready(cx))?);
        // A failed connect comes with an error or a hang-up, and so closed for writing: for the others the kernel
        // need not be asked.
        if self.readiness(Interest::WRITABLE).is_some_and(|ready| !ready.is_write_closed()) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match socket2::SockRef::from(&self.0).take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        })
    }

    /// Ready when anything arrived: bytes, an end, a reset.
    pub fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx).map_ok(drop)
    }

    pub fn forget_arrival(&self) {
        self.forget(Interest::READABLE);
    }

    fn forget(&self, interest: Interest) {
        let _ = self
            .0
            .try_io(interest, |_| -> io::Result<()> { Err(io::ErrorKind::WouldBlock.into()) });
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
