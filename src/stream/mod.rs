//! One connected stream, TCP or unix, plain or in TLS, registered with this worker's event loop. tokio's TcpStream only issues
//! recv, send and shutdown on its descriptor, which act alike on both families, so one type serves both.

pub mod tls;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use self::tls::Tls;
use crate::sys::pipe::Pipe;
use crate::sys::socket;

pub struct Stream(Kind);

/// As small as a plain one: there may be hundreds of thousands.
enum Kind {
    Plain(TcpStream),
    /// `None` only while it becomes so; a third kind would not fit into what a plain stream leaves unused.
    Encrypted(Option<Box<Encrypted>>),
}

struct Encrypted {
    tcp: TcpStream,
    tls: Tls,
}

const GONE: &str = "a stream is gone only while it becomes encrypted";

impl Stream {
    /// `socket` is non-blocking already.
    pub fn new(socket: OwnedFd) -> io::Result<Stream> {
        TcpStream::from_std(socket.into()).map(Stream::from)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.0 {
            Kind::Plain(tcp) => tcp,
            Kind::Encrypted(Some(own)) => &own.tcp,
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        }
    }

    /// Reads once; a short read also tells the event loop that the socket is dry.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let tcp = match &mut self.0 {
            Kind::Plain(tcp) => tcp,
            Kind::Encrypted(Some(own)) => return own.tls.poll_read(&mut own.tcp, cx, buffer),
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        };
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(tcp).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes once; a short write also tells the event loop that the socket is full.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Kind::Encrypted(Some(own)) => own.tls.poll_write(&mut own.tcp, cx, bytes),
            Kind::Encrypted(None) => unreachable!("{GONE}"),
        }
    }

    /// Ready when all that was written is with the kernel.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.poll_flush(&mut own.tcp, cx),
            Kind::Plain(_) | Kind::Encrypted(None) => Poll::Ready(Ok(())),
        }
    }

    /// Ready with a TLS client's first words.
    pub fn poll_hello(
        &mut self,
        acceptor: &mut Acceptor,
        read: &mut usize,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Accepted>> {
        match &mut self.0 {
            Kind::Plain(tcp) => tls::poll_hello(tcp, acceptor, read, most, cx),
            Kind::Encrypted(_) => unreachable!("a hello comes before it is encrypted"),
        }
    }

    /// From now on everything is encrypted.
    pub fn encrypt(&mut self, connection: impl Into<rustls::Connection>) {
        if let Kind::Plain(tcp) = std::mem::replace(&mut self.0, Kind::Encrypted(None)) {
            let tls = Tls::new(connection.into());
            self.0 = Kind::Encrypted(Some(Box::new(Encrypted { tcp, tls })));
        }
    }

    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Encrypted(Some(own)) => own.tls.poll_handshake(&mut own.tcp, cx),
            Kind::Plain(_) | Kind::Encrypted(None) => Poll::Ready(Ok(())),
        }
    }

    /// The far side of a TLS connection ended without saying so in TLS.
    pub fn is_truncated(&self) -> bool {
        self.tls().is_some_and(Tls::is_truncated)
    }

    pub fn tls(&self) -> Option<&Tls> {
        match &self.0 {
            Kind::Encrypted(Some(own)) => Some(&own.tls),
            Kind::Plain(_) | Kind::Encrypted(None) => None,
        }
    }

    /// Nothing will be written any more, and TLS says so at the next flush.
    pub fn end(&mut self) {
        if let Kind::Encrypted(Some(own)) = &mut self.0 {
            own.tls.end();
        }
    }

    /// This socket → `pipe`, which is empty: WouldBlock can only mean that the socket is dry.
    pub fn poll_fill(
        &self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp().poll_read_ready(cx))?;
            match self.tcp().try_io(Interest::READABLE, || pipe.fill(self.tcp(), most)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// `pipe`, which holds bytes, → this socket: WouldBlock can only mean that the socket is full.
    pub fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp().poll_write_ready(cx))?;
            match self.tcp().try_io(Interest::WRITABLE, || pipe.drain(self.tcp())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ready once a connect() has an outcome; the outcome is the result.
    pub fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.tcp().poll_write_ready(cx))?;
        // One that failed comes with an error or a hang-up, and so closed for writing: the kernel need not be asked
        // about the others.
        let ready = pin!(self.tcp().ready(Interest::WRITABLE));
        if let Poll::Ready(Ok(ready)) = ready.poll(&mut Context::from_waker(Waker::noop()))
            && !ready.is_write_closed()
        {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match self.tcp().take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        })
    }

    /// Ready when anything arrived: bytes, an end, a reset.
    pub fn poll_arrival(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp().poll_read_ready(cx)
    }

    /// Forgets the arrival just seen, so that the next `poll_arrival` waits for another one. Only for looking
    /// without taking: `Relay` reads until the kernel itself says there is no more.
    pub fn forget_arrival(&self) {
        let _ = self.tcp().try_io(Interest::READABLE, || -> io::Result<()> {
            Err(io::ErrorKind::WouldBlock.into())
        });
    }

    /// After `forget_arrival`, what was seen has to be announced again to whoever reads next.
    pub fn into_fresh(self) -> io::Result<Stream> {
        let fresh = |tcp: TcpStream| TcpStream::from_std(tcp.into_std()?);
        Ok(Stream(match self.0 {
            Kind::Plain(tcp) => Kind::Plain(fresh(tcp)?),
            Kind::Encrypted(Some(own)) => {
                let Encrypted { tcp, tls } = *own;
                Kind::Encrypted(Some(Box::new(Encrypted { tcp: fresh(tcp)?, tls })))
            }
            Kind::Encrypted(None) => Kind::Encrypted(None),
        }))
    }

    /// Sends the FIN. A socket that is gone already needs none.
    pub fn finish(&self) {
        let _ = socket2::SockRef::from(self.tcp()).shutdown(std::net::Shutdown::Write);
    }

    pub fn reset_on_close(&self) {
        socket::reset_on_close(self.tcp());
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Stream {
        Stream(Kind::Plain(tcp))
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
        self.tcp().as_fd()
    }
}
