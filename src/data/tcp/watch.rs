//! Watches a client while nothing reads from it: whether it is still there. A reset always ends the wait. A FIN is a
//! half-close, with or without bytes before it: such a client still expects the backend's answer. Only if it is held,
//! without a backend, a client that half-closed before it sent anything has left.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::border::record::CloseReason;
use crate::data::stream::Stream;
use crate::sys::socket::{self, Peeked};

/// Most connections are made faster than this; watching the client costs system calls, so it starts only then.
const GRACE: Duration = Duration::from_millis(5);

/// How often a half-closed client is checked: the event loop cannot distinguish its reset from its FIN.
const LOOK: Duration = Duration::from_millis(100);

/// What the client waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Connecting,
    /// `has_asked`: some of what it said was read already.
    Held {
        has_asked: bool,
    },
}

/// What is known of it.
#[derive(Default)]
pub struct Watch {
    /// Runs before the first check, and between checks of a half-closed client.
    timer: Option<Pin<Box<Sleep>>>,
    looking: bool,
    half_closed: bool,
}

impl Watch {
    /// Ready when the client has left for good.
    pub fn poll_left(
        &mut self,
        client: &mut Stream,
        waiting: Waiting,
        cx: &mut Context<'_>,
    ) -> Poll<CloseReason> {
        loop {
            if !self.looking || self.half_closed {
                let wait = if self.half_closed { LOOK } else { GRACE };
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
                self.looking = true;
            } else {
                match client.poll_arrival(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(CloseReason::ClientReset),
                    Poll::Ready(Ok(())) => {}
                }
            }
            let (fin, has_bytes) = match socket::peek(&*client) {
                Peeked::Reset => return Poll::Ready(CloseReason::ClientReset),
                Peeked::Ended => (true, false),
                Peeked::Bytes { fin } => (fin, true),
                Peeked::Nothing => (false, false),
            };
            self.half_closed = fin;
            if fin && waiting == (Waiting::Held { has_asked: false }) {
                // In TLS the goodbye is bytes, too, and what arrived with the handshake is no longer in the kernel.
                let said_something =
                    if client.tls().is_some() { client.has_words(cx) } else { has_bytes };
                if !said_something {
                    return Poll::Ready(CloseReason::ClientClosed);
                }
            }
            if !self.half_closed {
                client.forget_arrival();
            }
        }
    }

    /// Then the event loop has already announced what the next reader needs to know.
    pub fn has_looked(&self) -> bool {
        self.looking
    }
}
