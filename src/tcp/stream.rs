//! One connected stream, TCP or unix, registered with this worker's event loop. tokio's TcpStream only issues
//! recv, send and shutdown on its descriptor, which act alike on both families, so one type serves both.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::sys::pipe::Pipe;
use crate::sys::socket;

pub struct Stream(TcpStream);

impl Stream {
    /// `socket` is non-blocking already.
    pub fn new(socket: OwnedFd) -> io::Result<Stream> {
        TcpStream::from_std(socket.into()).map(Stream)
    }

    /// Reads once; a short read also tells the event loop that the socket is dry.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes once; a short write also tells the event loop that the socket is full.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    /// This socket → `pipe`, which is empty: WouldBlock can only mean that the socket is dry.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_io(Interest::READABLE, || pipe.fill(&self.0, most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// `pipe`, which holds bytes, → this socket: WouldBlock can only mean that the socket is full.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match self.0.try_io(Interest::WRITABLE, || pipe.drain(&self.0)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready once a connect() has an outcome; the outcome is the result.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.0.poll_write_ready(cx))?;
        // One that failed comes with an error or a hang-up, and so closed for writing: the kernel need not be asked
        // about the others.
        let ready = pin!(self.0.ready(Interest::WRITABLE));
        if let Poll::Ready(Ok(ready)) = ready.poll(&mut Context::from_waker(Waker::noop()))
            && !ready.is_write_closed()
        {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match self.0.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        })
    }

    /// Ready when anything arrived: bytes, an end, a reset.
    pub fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read_ready(cx)
    }

    /// Forgets the arrival just seen, so that the next `poll_arrival` waits for another one. Only for looking
    /// without taking: `Relay` reads until the kernel itself says there is no more.
    pub fn forget_arrival(&self) {
        let _ = self.0.try_io(Interest::READABLE, || -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        });
    }

    /// After `forget_arrival`, what was seen has to be announced again to whoever reads next.
    pub fn into_fresh(self) -> io::Result<Stream> {
        let socket: std::net::TcpStream = self.0.into_std()?;
        Stream::new(socket.into())
    }

    /// Sends the FIN. A socket that is gone already needs none.
    pub fn finish(&self) {
        let _ = socket2::SockRef::from(&self.0).shutdown(std::net::Shutdown::Write);
    }

    pub fn reset_on_close(&self) {
        socket::reset_on_close(&self.0);
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
