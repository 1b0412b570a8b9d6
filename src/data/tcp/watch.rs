//! A client while nobody reads from it: whether it is still there. A reset always ends the wait. A FIN is a half-close, with
//! or without bytes before it: such a client wants to hear what the backend says. Only where it is held, with no backend
//! in sight, a client that ended before it said anything has left.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use crate::border::record::CloseReason;
use crate::data::stream::Stream;
use crate::sys::socket::{self, Peeked};

/// Most connections are made faster than this; watching the client costs calls, so it starts only then.
const GRACE: Duration = Duration::from_millis(5);

/// How often a client that half-closed is looked at: the event loop cannot tell its reset from its FIN.
const LOOK: Duration = Duration::from_millis(100);

/// What the client waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    Connecting,
    Held,
}

/// What is known of it.
#[derive(Default)]
pub struct Watch {
    /// Runs before the first look, and between looks at a client that half-closed.
    timer: Option<Pin<Box<Sleep>>>,
    looking: bool,
    half_closed: bool,
}

impl Watch {
    /// Ready when the client left for good.
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
            if fin && waiting == Waiting::Held {
                // In TLS the goodbye is bytes too, and what came along with the handshake is not in the kernel any more.
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

    /// Then the event loop has announced what whoever reads next is to be told.
    pub fn has_looked(&self) -> bool {
        self.looking
    }
}
