//! One connected stream, TCP or unix, plain or in TLS, registered with this worker's event loop.

mod plain;
pub mod tls;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::plain::Plain;
use self::tls::Tls;
use crate::sys::pipe::Pipe;
use crate::sys::socket;

pub struct Stream(Kind);

/// As small as a plain one: there may be hundreds of thousands.
enum Kind {
    Plain(Plain),
    /// `None` only while it is being encrypted; a third variant would not fit into the unused space of a plain
    /// stream.
    Encrypted(Option<Box<Encrypted>>),
}

struct Encrypted {
    plain: Plain,
    tls: Tls,
}

const GONE: &str = "a stream is gone only while it becomes encrypted";

impl Stream {
    /// `socket` is non-blocking already.
    pub fn new(socket: OwnedFd) -> io::Result<Stream> {
        Plain::new(socket).map(|plain| Stream(Kind::Plain(plain)))
    }

    fn plain(&self) -> &Plain {
        match &self.0 {
            Kind::Plain(plain) => plain,
            Kind::Encrypted(Some(own)) => &own.plain,
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        }
    }

    /// Reads once.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(plain) => plain.poll_read(cx, buffer),
            Kind::Encrypted(Some(own)) => own.tls.poll_read(&own.plain, cx, buffer),
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        }
    }

    /// Writes once.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(plain) => plain.poll_write(cx, bytes),
            Kind::Encrypted(Some(own)) => own.tls.poll_write(&own.plain, cx, bytes),
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        }
    }

    /// Urgent data was announced; TLS has none.
    pub fn is_urgent(&self) -> bool {
        matches!(&self.0, Kind::Plain(plain) if plain.is_urgent())
    }

    /// Takes the byte of urgent data, if everything before it has been read.
    pub fn take_urgent(&self) -> Option<u8> {
        match &self.0 {
            Kind::Plain(plain) => plain.take_urgent(),
            Kind::Encrypted(_) => None,
        }
    }

    /// Writes a byte of urgent data, if the stream can carry it.
    pub fn poll_write_urgent(&self, cx: &mut Context<'_>, byte: u8) -> Poll<io::Result<usize>> {
        let Kind::Plain(plain) = &self.0 else { return Poll::Ready(Ok(1)) };
        match ready!(plain.poll_write_urgent(cx, byte)) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Poll::Ready(Ok(1)),
            result => Poll::Ready(result),
        }
    }

    /// Ready when everything written is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.poll_flush(&own.plain, cx),
            Kind::Plain(_) | Kind::Encrypted(None) => Poll::Ready(Ok(())),
        }
    }

    /// Ready with the first bytes of a TLS client.
    pub fn poll_hello(
        &mut self,
        acceptor: &mut Acceptor,
        read: &mut usize,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Accepted>> {
        match &mut self.0 {
            Kind::Plain(plain) => tls::poll_hello(plain, acceptor, read, most, cx),
            Kind::Encrypted(_) => unreachable!("a hello comes before it is encrypted"),
        }
    }

    /// From now on everything is encrypted.
    pub fn encrypt(&mut self, connection: impl Into<rustls::Connection>) {
        if let Kind::Plain(plain) = std::mem::replace(&mut self.0, Kind::Encrypted(None)) {
            let tls = Tls::new(connection.into());
            self.0 = Kind::Encrypted(Some(Box::new(Encrypted { plain, tls })));
        }
    }

    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.poll_handshake(&own.plain, cx),
            Kind::Plain(_) | Kind::Encrypted(None) => Poll::Ready(Ok(())),
        }
    }

    /// The far side of a TLS connection ended without TLS' goodbye.
    pub fn is_truncated(&self) -> bool {
        self.tls().is_some_and(Tls::is_truncated)
    }

    /// For a TLS client that ended: whether anything that it sent before is still to be read.
    pub fn has_words(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.has_words(&own.plain, cx),
            Kind::Plain(_) | Kind::Encrypted(None) => false,
        }
    }

    /// Whether TLS holds bytes that were not written or not read yet.
    pub fn holds_bytes(&mut self) -> bool {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.holds_bytes(),
            Kind::Plain(_) | Kind::Encrypted(None) => false,
        }
    }

    /// Looks further ahead in what a TLS client says (`Tls::ahead`); ready with how many more bytes were found.
    pub fn poll_ahead(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.poll_ahead(&own.plain, cx, most),
            Kind::Plain(_) | Kind::Encrypted(None) => Poll::Ready(Ok(0)),
        }
    }

    pub fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Encrypted(Some(own)) => Some(&own.tls),
            Kind::Plain(_) | Kind::Encrypted(None) => None,
        }
    }

    /// Nothing more will be written, and TLS sends its goodbye at the next flush.
    pub fn end(&mut self) {
        if let Kind::Encrypted(Some(own)) = &mut self.0 {
            own.tls.end();
        }
    }

    /// This socket → `pipe`, which is empty: WouldBlock can only mean that the socket is empty, or at a mark.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.plain().poll_fill(cx, pipe, most)
    }

    /// `pipe`, which holds bytes, → this socket: WouldBlock can only mean that the socket is full.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        self.plain().poll_drain(cx, pipe)
    }

    /// Ready once a connect() has an outcome, which is the result.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.plain().poll_connected(cx)
    }

    /// Ready when anything arrived: bytes, an end, a reset.
    pub fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.plain().poll_arrival(cx)
    }

    /// Forgets the arrival just seen, so that the next `poll_arrival` waits for another one. Only for looking without
    /// reading: `Relay` reads until the kernel itself says that there is no more.
    pub fn forget_arrival(&self) {
        self.plain().forget_arrival();
    }

    /// After `forget_arrival`, what was seen must be announced again to the next reader.
    pub fn into_fresh(self) -> io::Result<Stream> {
        let fresh = |plain: Plain| Plain::new(plain.into_inner());
        Ok(Stream(match self.0 {
            Kind::Plain(plain) => Kind::Plain(fresh(plain)?),
            Kind::Encrypted(Some(own)) => {
                let Encrypted { plain, tls } = *own;
                Kind::Encrypted(Some(Box::new(Encrypted { plain: fresh(plain)?, tls })))
            }
            Kind::Encrypted(None) => Kind::Encrypted(None),
        }))
    }

    /// After `forget_arrival`, for a stream that cannot be moved; for a moment it needs another descriptor.
    pub fn announce_again(&mut self) -> io::Result<()> {
        let plain = match &mut self.0 {
            Kind::Plain(plain) => plain,
            Kind::Encrypted(Some(own)) => &mut own.plain,
            Kind::Encrypted(None) => return Ok(()),
        };
        *plain = Plain::new(plain.as_fd().try_clone_to_owned()?)?;
        Ok(())
    }

    /// Sends the FIN. A socket that is gone already needs none.
    pub fn finish(&self) {
        let _ = socket2::SockRef::from(self.plain()).shutdown(std::net::Shutdown::Write);
    }

    pub fn reset_on_close(&self) {
        socket::reset_on_close(self.plain());
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(Stream::poll_read(&mut self, cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.plain().as_fd()
    }
}
