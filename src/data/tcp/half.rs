//! One direction of a relay: reads from its source, writes to its sink, and reports how the source ended. It knows
//! nothing about the other direction; `relay` combines the two.
//!
//! ```text
//! Open ──FIN read──▶ Ending(Fin) ──all delivered──▶ Done, and the sink's side is to get the FIN
//!   │ ──reset read─▶ Ending(Reset) ─all delivered─▶ Done, and the sink's side is reset once its queue is empty
//!   └──sink gone───▶ Dead (what was on its way is lost with the sink)
//!
//! Within Open, who is waited for:
//!
//!   nothing pending ─▶ the source      read → scratch → write at once
//!   bytes pending   ─▶ the sink        a short write leaves the rest in a buffer of the Half's own
//!   bytes in pipe   ─▶ the sink        the pipe is emptied before it is filled again, so that EAGAIN of
//!                                      splice(2) means "source dry" when filling and "sink full" when draining
//! ```
//!
//! Small messages go through the worker's scratch buffer, so an idle session owns no buffer. A direction that filled
//! the scratch buffer a few times in a row is bulk, and is promoted to splice through a pipe that it borrows while
//! bytes are in it.

use std::io;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::resources::SCRATCH;
use super::session::Session;
use crate::border::record::CloseReason;
use crate::config::RelayMode;
use crate::data::stream::Stream;
use crate::data::wire::postgres;
use crate::sys::pipe::{Pipe, is_unsupported};

/// Bytes that one direction may move before others get their turn.
const QUOTA: usize = 1024 * 1024;

/// Full scratch buffers in a row after which a direction is bulk.
const PROMOTE: u8 = 3;

/// Small transfers in a row after which it is ordinary again, and what counts as small.
const DEMOTE: u8 = 3;
const SMALL: usize = 32 * 1024;

/// How TLS begins.
const TLS_HANDSHAKE: u8 = 22;

/// Which side sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Backend,
    Client,
}

/// How a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Dead,
    Done,
    Ending(End),
    Open,
}

/// What was read from the source and not yet written to the sink.
enum Pending {
    Buffer(Bytes),
    Pipe(Pipe),
    /// A byte of urgent data; TCP keeps one at a time.
    Urgent(Option<u8>),
}

/// One direction.
pub struct Half {
    from: Side,
    pub state: State,
    /// Boxed: an idle direction has nothing pending.
    pending: Option<Box<Pending>>,
    /// Full reads in a row while copying, small transfers in a row while splicing.
    streak: u8,
    splicing: bool,
    /// The next read is the first after splice(2), which may have stopped at an urgent mark that the event loop did
    /// not report.
    after_splice: bool,
    mode: RelayMode,
    /// A write to the source failed with a reset: whatever a read returns at its end, it was reset.
    pub source_was_reset: bool,
    /// The backend has said nothing yet, and another one may be asked in its place.
    is_on_trial: bool,
}

/// What one direction reports.
pub enum Event {
    /// Everything before the source's end has been delivered.
    Delivered(End),
    /// The backend ended without a byte, and the session is on trial.
    Silent(End),
    /// The sink accepts nothing more: it was reset or vanished.
    SinkFailed(io::Error),
    /// The source vanished, or something local failed.
    SourceFailed(io::Error),
}

impl Half {
    pub fn new(from: Side, mode: RelayMode, is_on_trial: bool) -> Half {
        Half {
            from,
            state: State::Open,
            pending: None,
            streak: 0,
            // What the client sends is kept while on trial.
            splicing: mode == RelayMode::Splice && !(is_on_trial && from == Side::Client),
            after_splice: false,
            mode,
            source_was_reset: false,
            is_on_trial,
        }
    }

    /// These bytes, which were read before, are delivered first.
    pub fn begin_with(&mut self, bytes: Bytes) {
        self.pending = (!bytes.is_empty()).then(|| Box::new(Pending::Buffer(bytes)));
    }

    /// What was asked for in vain: the source's end goes on to the sink.
    pub fn end_in_silence(&mut self, end: End) {
        self.is_on_trial = false;
        self.state = State::Ending(end);
    }

    /// Moves what can be moved. Pending means that the side that is waited for will wake the task. Never polls a side
    /// that cannot be used now: after an end it would be ready for ever.
    pub fn poll(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Event> {
        let mut moved = 0;
        loop {
            if matches!(self.state, State::Done | State::Dead) {
                self.drop_pending(session);
                return Poll::Pending;
            }
            match self.poll_deliver(sink, session, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Event::SinkFailed(error)),
                Poll::Ready(Ok(count)) => moved += count,
            }
            if self.state == State::Ending(End::Fin) && !source.is_truncated() {
                sink.end();
            }
            match sink.poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Event::SinkFailed(error)),
                Poll::Ready(Ok(())) => {}
            }
            if let State::Ending(end) = self.state {
                self.state = State::Done;
                return Poll::Ready(Event::Delivered(end));
            }
            if moved >= QUOTA {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let allowance = session.poll_allowance(self.from == Side::Client, cx);
            let Poll::Ready(most) = allowance else { return Poll::Pending };
            let taken = match self.poll_take(source, sink, most, session, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(taken) => taken,
            };
            let end = match taken {
                Ok(Taken::Bytes(count)) => {
                    moved += count;
                    continue;
                }
                Ok(Taken::End) if self.source_was_reset => End::Reset,
                Ok(Taken::End) => End::Fin,
                Err(Fault::Sink(error)) => return Poll::Ready(Event::SinkFailed(error)),
                Err(Fault::Source(error)) if is_reset(&error) => End::Reset,
                Err(Fault::Source(error)) => return Poll::Ready(Event::SourceFailed(error)),
            };
            if self.is_on_trial && self.from == Side::Backend && session.is_on_trial() {
                return Poll::Ready(Event::Silent(end));
            }
            self.state = State::Ending(end);
        }
    }

    /// Writes what is pending to the sink; ready when nothing is left.
    fn poll_deliver(
        &mut self,
        sink: &mut Stream,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut delivered = 0;
        loop {
            let Some(pending) = &mut self.pending else { return Poll::Ready(Ok(delivered)) };
            let (count, splice) = match &mut **pending {
                Pending::Buffer(bytes) => match sink.poll_write(cx, bytes) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(count)) => {
                        bytes.advance(count);
                        (count, false)
                    }
                },
                Pending::Urgent(urgent) => {
                    match urgent.map(|byte| sink.poll_write_urgent(cx, byte)) {
                        Some(Poll::Pending) => return Poll::Pending,
                        Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                        Some(Poll::Ready(Ok(count))) => {
                            *urgent = None;
                            (count, false)
                        }
                        None => (0, false),
                    }
                }
                Pending::Pipe(pipe) => match sink.poll_drain(cx, pipe) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) if is_unsupported(&error) => {
                        // The kernel filled the pipe but will not drain it here: copy its content.
                        let rest = Bytes::from(pipe.take_all()?);
                        session.worker.pipes.borrow_mut().forbid();
                        self.drop_pending(session);
                        self.pending = Some(Box::new(Pending::Buffer(rest)));
                        (0, false)
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(count)) => (count, true),
                },
            };
            delivered += count;
            session.delivered(self.from == Side::Client, count, splice);
            let is_empty = self.pending.as_deref().is_none_or(|pending| match pending {
                Pending::Buffer(bytes) => bytes.is_empty(),
                Pending::Pipe(pipe) => pipe.bytes() == 0,
                Pending::Urgent(byte) => byte.is_none(),
            });
            if is_empty {
                self.drop_pending(session);
            }
        }
    }

    /// Reads from the source once, by copy (and writes at once) or by splice.
    fn poll_take(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        most: usize,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        // At an urgent mark splice(2) finds nothing, for ever.
        let is_urgent = source.is_urgent() || std::mem::take(&mut self.after_splice);
        if is_urgent && let Some(byte) = source.take_urgent() {
            session.taken(self.from == Side::Client, 1);
            // It cannot be repeated in its place.
            session.end_trial();
            self.pending = Some(Box::new(Pending::Urgent(Some(byte))));
            return Poll::Ready(Ok(Taken::Bytes(0)));
        }
        if self.splicing && !is_urgent {
            let pipe = session.worker.pipes.borrow_mut().borrow();
            if let Some(pipe) = pipe {
                return self.poll_fill(pipe, source, most, session, cx);
            }
            // No pipe is left: copy, until the direction is promoted again.
            self.splicing = self.mode == RelayMode::Splice;
            self.streak = 0;
        }
        self.poll_copy(source, sink, most, session, cx)
    }

    fn poll_fill(
        &mut self,
        mut pipe: Pipe,
        source: &Stream,
        most: usize,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        let outcome = source.poll_fill(cx, &mut pipe, most.min(QUOTA));
        if pipe.bytes() > 0 {
            self.pending = Some(Box::new(Pending::Pipe(pipe)));
        } else {
            session.worker.pipes.borrow_mut().give_back(pipe);
        }
        match outcome {
            Poll::Pending => Poll::Pending,
            // This may be the end; only a real read can tell.
            Poll::Ready(Ok(0)) => {
                (self.splicing, self.after_splice) = (false, true);
                Poll::Ready(Ok(Taken::Bytes(0)))
            }
            Poll::Ready(Ok(count)) => {
                session.taken(self.from == Side::Client, count);
                self.streak = if count < SMALL { self.streak.saturating_add(1) } else { 0 };
                if self.streak >= DEMOTE && self.mode == RelayMode::Auto {
                    (self.splicing, self.after_splice) = (false, true);
                    self.streak = 0;
                }
                Poll::Ready(Ok(Taken::Bytes(0)))
            }
            Poll::Ready(Err(error)) if is_unsupported(&error) => {
                // The kernel will not splice here: from now on this whole worker copies.
                session.worker.pipes.borrow_mut().forbid();
                Poll::Ready(Ok(Taken::Bytes(0)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Fault::Source(error))),
        }
    }

    fn poll_copy(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        most: usize,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        let scratch = &mut session.worker.scratch.borrow_mut()[..most.min(SCRATCH)];
        let count = match source.poll_read(cx, scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Taken::End)),
            Poll::Ready(Ok(count)) => count,
        };
        let taken = &scratch[..count];
        if self.from == Side::Client && session.bytes.get().client_received == 0 {
            let is_tls = taken[0] == TLS_HANDSHAKE || taken.starts_with(&postgres::TLS_REQUEST);
            session.speaks_tls.set(is_tls);
        }
        if self.from == Side::Client {
            session.look_for_cancel(taken);
        }
        if self.is_on_trial && self.from == Side::Client {
            self.is_on_trial = session.keep_for_another(taken);
        }
        session.taken(self.from == Side::Client, count);
        self.streak = if count == SCRATCH { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= PROMOTE && self.mode == RelayMode::Auto {
            self.splicing = true;
            self.streak = 0;
        }
        let written = match sink.poll_write(cx, &scratch[..count]) {
            Poll::Pending => 0,
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Sink(error))),
        };
        session.delivered(self.from == Side::Client, written, false);
        if written < count {
            let rest = Bytes::copy_from_slice(&scratch[written..count]);
            self.pending = Some(Box::new(Pending::Buffer(rest)));
        }
        Poll::Ready(Ok(Taken::Bytes(written)))
    }

    /// Whether it holds bytes that the sink has not taken.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub fn drop_pending(&mut self, session: &Session) {
        if let Some(Pending::Pipe(pipe)) = self.pending.take().map(|pending| *pending) {
            session.worker.pipes.borrow_mut().give_back(pipe);
        }
    }
}

enum Taken {
    /// This many bytes were passed on already.
    Bytes(usize),
    End,
}

enum Fault {
    Sink(io::Error),
    Source(io::Error),
}

/// The far side reset the connection, rather than falling silent.
pub fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

/// Keepalive or retransmission gave up, or a router says that the host is gone.
fn is_vanished(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::ConnectionRefused
    )
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Backend => "backend",
        }
    }

    pub fn closed(self) -> CloseReason {
        match self {
            Side::Client => CloseReason::ClientClosed,
            Side::Backend => CloseReason::BackendClosed,
        }
    }

    pub fn reset(self) -> CloseReason {
        match self {
            Side::Client => CloseReason::ClientReset,
            Side::Backend => CloseReason::BackendReset,
        }
    }

    pub fn failure(self, error: &io::Error) -> CloseReason {
        match self {
            _ if error.kind() == io::ErrorKind::InvalidData => CloseReason::TlsFailed,
            _ if !is_vanished(error) => CloseReason::Internal,
            Side::Client => CloseReason::ClientVanished,
            Side::Backend => CloseReason::BackendVanished,
        }
    }
}
