//! TLS on a stream: rustls' state machine over this worker's event loop. It owns no socket and knows nothing of
//! relays; `Stream` puts it between the two. Nothing is read before the pending output is written, so both of its
//! buffers stay within what one turn fills.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::task::{Context, Poll, ready};

use rustls::Connection;
use rustls::server::{Accepted, Acceptor};

use super::plain::Plain;

/// A connection that is or becomes encrypted.
pub struct Tls {
    connection: Connection,
    /// The far side ended without TLS' goodbye: the stream may have been truncated by an attacker.
    is_truncated: bool,
    /// Read in order to be looked at, and still to be read.
    ahead: Vec<u8>,
}

impl Tls {
    pub fn new(connection: Connection) -> Tls {
        Tls { connection, is_truncated: false, ahead: Vec::new() }
    }

    /// What `poll_ahead` found, and nobody has read yet.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Looks further ahead, `most` bytes at most; ready with how many more were found, zero is the end.
    pub fn poll_ahead(
        &mut self,
        plain: &Plain,
        cx: &mut Context<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let mut more = vec![0; most.saturating_sub(self.ahead.len())];
        let count = ready!(self.poll_decrypted(plain, cx, &mut more))?;
        self.ahead.extend_from_slice(&more[..count]);
        Poll::Ready(Ok(count))
    }

    pub fn is_truncated(&self) -> bool {
        self.is_truncated
    }

    /// What the far side showed, without those that signed it.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(|it| &**it)
    }

    pub fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Ready when the handshake is complete and all its bytes are with the kernel.
    pub fn poll_handshake(&mut self, plain: &Plain, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(plain, cx))?;
            if !self.connection.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.poll_receive(plain, cx))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    pub fn poll_read(
        &mut self,
        plain: &Plain,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.ahead.is_empty() {
            return self.poll_decrypted(plain, cx, buffer);
        }
        let count = self.ahead.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_decrypted(
        &mut self,
        plain: &Plain,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.poll_receive(plain, cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.is_truncated = true;
                    return Poll::Ready(Ok(0));
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// Takes some of `bytes`; ready before they are with the kernel, so `poll_flush` must follow.
    pub fn poll_write(
        &mut self,
        plain: &Plain,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(plain, cx))?;
        let count = self.connection.writer().write(bytes)?;
        match self.poll_flush(plain, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    pub fn poll_flush(&mut self, plain: &Plain, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Wire { plain, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether anything is still to be read. Reads from the socket until that is known: what was read stays here.
    pub fn has_words(&mut self, plain: &Plain, cx: &mut Context<'_>) -> bool {
        while self.ahead.is_empty() {
            match self.connection.reader().fill_buf() {
                Ok(words) => return !words.is_empty(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
            match self.poll_receive(plain, cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return false,
            }
        }
        true
    }

    /// Whether any bytes wait here, for the kernel or for a reader.
    pub fn holds_bytes(&mut self) -> bool {
        let unread = self.connection.reader().fill_buf().is_ok_and(|words| !words.is_empty());
        unread || !self.ahead.is_empty() || self.connection.wants_write()
    }

    /// Nothing more will be written; the goodbye goes out at the next flush.
    pub fn end(&mut self) {
        self.connection.send_close_notify();
    }

    /// Reads once from the socket; zero is its end.
    fn poll_receive(&mut self, plain: &Plain, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = match self.connection.read_tls(&mut Wire { plain, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => result?,
        };
        let processed = self.connection.process_new_packets();
        // An alert about what was wrong, or an answer to a change of keys; if there is no room now, it goes out with
        // the next flush.
        let _ = self.poll_flush(plain, cx);
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Poll::Ready(Ok(count))
    }
}

/// Ready with the ClientHello, which may be `most` bytes long.
pub fn poll_hello(
    plain: &Plain,
    acceptor: &mut Acceptor,
    read: &mut usize,
    most: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Accepted>> {
    loop {
        let count = match acceptor.read_tls(&mut Wire { plain, cx }) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            result => result?,
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        *read += count;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
            Ok(None) if *read < most => {}
            Ok(None) => {
                let error = "its ClientHello is longer than `preread_size`";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            Err((error, mut alert)) => {
                // A client that cannot be sent an alert sees the end of the connection.
                let _ = alert.write(&mut Wire { plain, cx });
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

/// The socket in the form that rustls needs: if it is not ready, it would block, and the task is woken once it is
/// ready.
struct Wire<'a, 'b> {
    plain: &'a Plain,
    cx: &'a mut Context<'b>,
}

impl Read for Wire<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        now(self.plain.poll_read(self.cx, buffer))
    }
}

impl Write for Wire<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(self.plain.poll_write(self.cx, bytes))
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        now(self.plain.poll_write_vectored(self.cx, parts))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
