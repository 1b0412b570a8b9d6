//! The `exchange` probe: sends something, and expects something. The expected bytes may be anywhere in the first 16
//! KiB of the reply and may arrive in pieces; whether the backend then closes does not matter.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fault::Fault;
use super::heard::Heard;
use super::pattern::{Pattern, REPLY};
use crate::config::Expect;
use crate::data::stream::Stream;

/// Bytes per read; a reply is usually short.
const PIECE: usize = 1024;

pub(super) struct Exchange {
    send: Option<Vec<u8>>,
    expect: Option<Pattern>,
    standby: Option<Pattern>,
}

impl Exchange {
    pub(super) fn new(
        send: Option<&[u8]>,
        expect: Option<&Expect>,
        standby: Option<&Expect>,
    ) -> Exchange {
        Exchange {
            send: send.map(<[u8]>::to_vec),
            expect: expect.map(Pattern::new),
            standby: standby.map(Pattern::new),
        }
    }

    pub(super) fn sent(&self) -> &[u8] {
        self.send.as_deref().unwrap_or_default()
    }

    pub(super) async fn run(&self, stream: &mut Stream, heard: &Heard) -> Result<(), Fault> {
        if let Some(bytes) = &self.send {
            stream.write_all(bytes).await.map_err(|error| Fault::talking(&error))?;
            stream.flush().await.map_err(|error| Fault::talking(&error))?;
        }
        let Some(pattern) = &self.expect else {
            if self.send.is_some() {
                // A reset could discard the bytes that were sent; this close is always an orderly one.
                let _ = SockRef::from(&*stream).set_linger(None::<Duration>);
            }
            return Ok(());
        };
        let mut reply = Vec::with_capacity(PIECE);
        while reply.len() < REPLY {
            let seen = reply.len();
            let room = (REPLY - seen).min(PIECE) as u64;
            let count = (&mut *stream).take(room).read_buf(&mut reply).await;
            heard.note(&reply[seen..]);
            match count {
                Ok(0) => return Err(Fault::unexpected("it closed without the expected reply")),
                Ok(_) if pattern.is_in(&reply, seen) => return Ok(()),
                Ok(_) if self.standby.as_ref().is_some_and(|it| it.is_in(&reply, seen)) => {
                    return Err(Fault::wrong_role("it answers as a standby"));
                }
                Ok(_) => {}
                Err(error) => return Err(Fault::talking(&error)),
            }
        }
        Err(Fault::unexpected("not the expected reply"))
    }
}
