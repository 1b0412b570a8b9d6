//! A conversation with a server in its own protocol: what is sent, and what is read, message by message and bounded.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::Fault;
use super::heard::Heard;
use crate::data::stream::Stream;
use crate::data::wire::Progress;

/// Bytes per read.
const PIECE: usize = 1 << 10;

/// The most that is read in one probe: a question may find more than anybody wants to compare.
const MOST: usize = 4 << 20;

/// A row is a message.
const MOST_MESSAGES: usize = 100_000;
const MOST_OF_A_LOGIN: usize = 1_000;

pub(super) struct Talk<'a> {
    pub stream: &'a mut Stream,
    heard: &'a Heard,
    buffer: BytesMut,
    read: usize,
    messages: usize,
    /// After the login: what is too long is the answer to a question.
    is_in: bool,
}

impl<'a> Talk<'a> {
    pub fn new(stream: &'a mut Stream, heard: &'a Heard) -> Talk<'a> {
        Talk { stream, heard, buffer: BytesMut::new(), read: 0, messages: 0, is_in: false }
    }

    /// After the login.
    pub fn asking(stream: &'a mut Stream, heard: &'a Heard) -> Talk<'a> {
        Talk { is_in: true, ..Talk::new(stream, heard) }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.stream.write_all(bytes).await.map_err(|error| Fault::talking(&error))?;
        self.stream.flush().await.map_err(|error| Fault::talking(&error))
    }

    fn too_much(&self) -> Fault {
        match self.is_in {
            true => {
                Fault::query_failed("the answer is longer than 4 MiB, or than 100 000 messages")
            }
            false => Fault::mismatch("it talks without end while it is logged in to"),
        }
    }

    /// The next message: `parse` finds it in the bytes so far, and says how many it takes; `Err` says that they are none.
    pub async fn next<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Result<Progress<(T, usize)>, ()>,
    ) -> Result<T, Fault> {
        self.messages += 1;
        if self.messages > if self.is_in { MOST_MESSAGES } else { MOST_OF_A_LOGIN } {
            return Err(self.too_much());
        }
        loop {
            match parse(&self.buffer) {
                Ok(Progress::Whole((message, taken))) => {
                    self.buffer.advance(taken);
                    // Whoever is silent after whole messages is silent.
                    self.heard.forget();
                    return Ok(message);
                }
                Ok(Progress::Partial) => {}
                Err(()) => return Err(Fault::unexpected("not its protocol")),
            }
            if self.read >= MOST {
                return Err(self.too_much());
            }
            self.buffer.reserve(PIECE);
            let seen = self.buffer.len();
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(Fault::unexpected("it closed in the middle of the probe")),
                Ok(count) => self.read += count,
                Err(error) => return Err(Fault::talking(&error)),
            }
            self.heard.note(&self.buffer[seen..]);
        }
    }
}
