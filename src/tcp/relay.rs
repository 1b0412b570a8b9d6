//! The relay: moves bytes both ways between a client and its backend until the session ends, and ends both
//! sides the way they were ended.
//!
//! ```text
//! Each direction (a Half) on its own:
//!
//!   Open ──FIN read──▶ Ending(Fin) ──all delivered──▶ FIN sent ──▶ Done
//!     │ ──reset read─▶ Ending(Reset) ─all delivered─▶ Done, and the sink's side is reset once its queue is empty
//!     └──sink gone───▶ Dead (what was on its way is lost with the sink)
//!
//! Within Open, who is waited for:
//!
//!   nothing pending ─▶ the source      read → scratch → write at once
//!   bytes pending   ─▶ the sink        a short write leaves the rest in a buffer of the Half's own
//!   bytes in pipe   ─▶ the sink        the pipe is emptied before it is filled again, so that EAGAIN of
//!                                      splice(2) means "source dry" when filling and "sink full" when draining
//! ```
//!
//! Small messages go through the worker's scratch buffer: an idle session owns no buffer. A direction that
//! filled the scratch buffer a few times in a row is bulk, and is promoted to splice through a pipe borrowed
//! while bytes are in it. What we cut is a reset on both sides; a reset we carry waits until what we took
//! before is delivered, at most `half_closed`.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::session::Session;
use super::stream::Stream;
use super::worker::SCRATCH;
use crate::config::RelayMode;
use crate::sys::pipe::{Pipe, is_unsupported};
use crate::sys::{clock, socket};
use crate::telemetry::record::CloseReason;

/// Bytes one direction may move before the others' turn comes.
const QUOTA: usize = 1024 * 1024;

/// Full scratch buffers in a row that make a direction bulk.
const PROMOTE: u8 = 3;

/// Small transfers in a row that make it ordinary again, and what is small.
const DEMOTE: u8 = 3;
const SMALL: usize = 32 * 1024;

/// The bound on delivering before a reset is carried on, where `half_closed` is `none`.
const CARRY: Duration = Duration::from_secs(60);

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Backend,
    Client,
}

/// How a source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dead,
    Done,
    Ending(End),
    Open,
}

/// What was taken from the source and not yet given to the sink.
enum Pending {
    Buffer(Bytes),
    Nothing,
    Pipe(Pipe),
}

/// One direction.
struct Half {
    from: Side,
    state: State,
    pending: Pending,
    /// Full reads in a row while copying, small transfers in a row while splicing.
    streak: u8,
    splicing: bool,
    /// A write to the source failed with a reset: its end, however it reads, is that reset.
    source_was_reset: bool,
}

/// What one direction has to tell.
enum Event {
    /// The source's end has been delivered.
    Delivered(End),
    /// The sink does not take any more: it was reset or vanished.
    SinkFailed(io::Error),
    /// The source vanished, or something local broke.
    SourceFailed(io::Error),
}

struct Relay<'a> {
    session: &'a Rc<Session>,
    client: Stream,
    backend: Stream,
    to_backend: Half,
    to_client: Half,
    /// Whose end came first; it names the session's.
    first_end: Option<(Side, End)>,
    timer: Option<Pin<Box<Sleep>>>,
    opened: Instant,
    /// Whether the ending is decided; dropped before that, both sides are reset.
    over: bool,
}

/// How the relay is over.
enum Verdict {
    /// Both directions ended by FIN, or there is nobody left to tell.
    Clean(CloseReason),
    /// We end it: a reset on both sides.
    Cut(CloseReason),
    /// One side was reset: the other is, once it has everything.
    Carry { to: Side, reason: CloseReason },
}

/// Relays until the end; says why it ended.
pub async fn relay(session: &Rc<Session>, client: Stream, backend: Stream) -> CloseReason {
    let splicing = session.listener.config.relay == RelayMode::Splice;
    let mut relay = Relay {
        session,
        client,
        backend,
        to_backend: Half::new(Side::Client, splicing),
        to_client: Half::new(Side::Backend, splicing),
        first_end: None,
        timer: None,
        opened: Instant::now(),
        over: false,
    };
    relay.arm();
    match poll_fn(|cx| relay.poll(cx)).await {
        Verdict::Clean(reason) => {
            relay.over = true;
            reason
        }
        Verdict::Cut(reason) => reason,
        Verdict::Carry { to, reason } => relay.carry(to, reason).await,
    }
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(reason) = self.session.poll_cut(cx) {
            return Poll::Ready(Verdict::Cut(reason));
        }
        for from in [Side::Client, Side::Backend] {
            while let Poll::Ready(event) = self.poll_half(from, cx) {
                if let Some(verdict) = self.handle(from, event) {
                    return Poll::Ready(verdict);
                }
            }
            if let State::Ending(end) = self.half(from).state {
                // Read, but not delivered yet: the times of a half-closed session run already.
                self.note_end(from, end);
            }
        }
        self.poll_timer(cx)
    }

    fn poll_half(&mut self, from: Side, cx: &mut Context<'_>) -> Poll<Event> {
        let (client, backend) = (&mut self.client, &mut self.backend);
        match from {
            Side::Client => self.to_backend.poll(client, backend, self.session, cx),
            Side::Backend => self.to_client.poll(backend, client, self.session, cx),
        }
    }

    /// Takes note of what the direction from `from` told; a verdict ends the relay.
    fn handle(&mut self, from: Side, event: Event) -> Option<Verdict> {
        match event {
            Event::Delivered(End::Fin) => {
                self.note_end(from, End::Fin);
                self.fin_delivered(from)
            }
            Event::Delivered(End::Reset) => {
                Some(Verdict::Carry { to: from.other(), reason: from.reset() })
            }
            Event::SourceFailed(error) => Some(Verdict::Cut(from.failure(&error))),
            Event::SinkFailed(error) if !is_reset(&error) => {
                Some(Verdict::Cut(from.other().failure(&error)))
            }
            Event::SinkFailed(_) => self.sink_reset(from.other()),
        }
    }

    fn fin_delivered(&mut self, from: Side) -> Option<Verdict> {
        let (first, end) = self.first_end.unwrap_or((from, End::Fin));
        match self.half(from.other()).state {
            State::Done => Some(Verdict::Clean(match end {
                End::Fin => first.closed(),
                End::Reset => first.reset(),
            })),
            // It sent its FIN and then reset us for what we wrote: the other side gets both, in that order.
            State::Dead => Some(Verdict::Carry { to: from.other(), reason: from.reset() }),
            State::Ending(_) | State::Open => None,
        }
    }

    /// `side` was reset while we wrote to it. What it sent before may still be readable and is delivered first.
    fn sink_reset(&mut self, side: Side) -> Option<Verdict> {
        self.note_end(side, End::Reset);
        self.half_mut(side.other()).state = State::Dead;
        let from = self.half_mut(side);
        from.source_was_reset = true;
        match from.state {
            State::Open | State::Ending(_) => None,
            State::Done | State::Dead => {
                Some(Verdict::Carry { to: side.other(), reason: side.reset() })
            }
        }
    }

    fn note_end(&mut self, side: Side, end: End) {
        if self.first_end.is_none() {
            self.first_end = Some((side, end));
            self.session.last_byte_ms.set(clock::coarse_ms());
            self.arm();
        }
    }

    /// The direction whose source is `from`.
    fn half(&self, from: Side) -> &Half {
        match from {
            Side::Client => &self.to_backend,
            Side::Backend => &self.to_client,
        }
    }

    fn half_mut(&mut self, from: Side) -> &mut Half {
        match from {
            Side::Client => &mut self.to_backend,
            Side::Backend => &mut self.to_client,
        }
    }

    /// The times that apply now: which ends the session, and how long until then. The lowest is waited for.
    fn next_limit(&self) -> Option<(Duration, CloseReason)> {
        let timeouts = &self.session.listener.config.timeouts;
        let now = clock::coarse_ms();
        let quiet = Duration::from_millis(now.saturating_sub(self.session.last_byte_ms.get()));
        let half_closed = self.first_end.and(timeouts.half_closed);
        [
            timeouts.idle.map(|limit| (limit.saturating_sub(quiet), CloseReason::Idle)),
            half_closed.map(|limit| (limit.saturating_sub(quiet), CloseReason::HalfClosedTimeout)),
            timeouts
                .max_lifetime
                .map(|limit| (limit.saturating_sub(self.opened.elapsed()), CloseReason::Lifetime)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(left, _)| *left)
    }

    /// Sets the timer for the first limit, if any. Bytes do not re-arm it: when it fires, it looks again.
    fn arm(&mut self) {
        match self.next_limit() {
            None => self.timer = None,
            Some((left, _)) => {
                let deadline = Instant::now() + left;
                match &mut self.timer {
                    Some(timer) => timer.as_mut().reset(deadline),
                    None => self.timer = Some(Box::pin(sleep_until(deadline))),
                }
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match self.next_limit() {
                Some((left, reason)) if left.is_zero() => return Poll::Ready(Verdict::Cut(reason)),
                _ => self.arm(),
            }
        }
    }

    /// Resets `to` once the kernel has delivered all we gave it, at most `half_closed` later.
    async fn carry(mut self, to: Side, reason: CloseReason) -> CloseReason {
        let limit = self.session.listener.config.timeouts.half_closed.unwrap_or(CARRY);
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        let stream = match to {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        while socket::unsent_bytes(&*stream).is_ok_and(|bytes| bytes > 0)
            && Instant::now() < deadline
            && poll_fn(|cx| Poll::Ready(self.session.poll_cut(cx))).await.is_none()
        {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        stream.reset_on_close();
        self.over = true;
        reason
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        self.to_backend.drop_pending(self.session);
        self.to_client.drop_pending(self.session);
        if !self.over {
            // Cut, or the worker stops: truncation must not look like a clean end.
            self.client.reset_on_close();
            self.backend.reset_on_close();
        }
    }
}

impl Half {
    fn new(from: Side, splicing: bool) -> Half {
        Half {
            from,
            state: State::Open,
            pending: Pending::Nothing,
            streak: 0,
            splicing,
            source_was_reset: false,
        }
    }

    /// Moves what can be moved. Pending means that whoever is waited for will wake the task; never polls a
    /// side that cannot be used now, for after an end it would be ready for ever.
    fn poll(
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
            if let State::Ending(end) = self.state {
                self.state = State::Done;
                if end == End::Fin {
                    sink.finish();
                }
                return Poll::Ready(Event::Delivered(end));
            }
            if moved >= QUOTA {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let taken = match self.poll_take(source, sink, session, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(taken) => taken,
            };
            match taken {
                Ok(Taken::Bytes(count)) => moved += count,
                Ok(Taken::End) if self.source_was_reset => self.state = State::Ending(End::Reset),
                Ok(Taken::End) => self.state = State::Ending(End::Fin),
                Err(Fault::Sink(error)) => return Poll::Ready(Event::SinkFailed(error)),
                Err(Fault::Source(error)) if is_reset(&error) => {
                    self.state = State::Ending(End::Reset);
                }
                Err(Fault::Source(error)) => return Poll::Ready(Event::SourceFailed(error)),
            }
        }
    }

    /// Gives the sink what is pending; ready when nothing is.
    fn poll_deliver(
        &mut self,
        sink: &mut Stream,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut delivered = 0;
        loop {
            let (count, splice) = match &mut self.pending {
                Pending::Nothing => return Poll::Ready(Ok(delivered)),
                Pending::Buffer(bytes) => match sink.poll_write(cx, bytes) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(count)) => {
                        bytes.advance(count);
                        (count, false)
                    }
                },
                Pending::Pipe(pipe) => match sink.poll_drain(cx, pipe) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) if is_unsupported(&error) => {
                        // The kernel filled the pipe but will not drain it here: copy what is in it.
                        let rest = Bytes::from(pipe.take_all()?);
                        session.worker.pipes.borrow_mut().forbid();
                        self.drop_pending(session);
                        self.pending = Pending::Buffer(rest);
                        (0, false)
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(count)) => (count, true),
                },
            };
            delivered += count;
            session.delivered(self.from == Side::Client, count, splice);
            let empty = match &self.pending {
                Pending::Nothing => true,
                Pending::Buffer(bytes) => bytes.is_empty(),
                Pending::Pipe(pipe) => pipe.bytes() == 0,
            };
            if empty {
                self.drop_pending(session);
            }
        }
    }

    /// Takes from the source once, by copy (and writes at once) or by splice.
    fn poll_take(
        &mut self,
        source: &mut Stream,
        sink: &mut Stream,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        if self.splicing {
            let pipe = session.worker.pipes.borrow_mut().borrow();
            if let Some(pipe) = pipe {
                return self.poll_fill(pipe, source, session, cx);
            }
            // No pipe to be had: copy, and earn the promotion anew.
            self.splicing = session.listener.config.relay == RelayMode::Splice;
            self.streak = 0;
        }
        self.poll_copy(source, sink, session, cx)
    }

    fn poll_fill(
        &mut self,
        mut pipe: Pipe,
        source: &Stream,
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        let outcome = source.poll_fill(cx, &mut pipe, QUOTA);
        if pipe.bytes() > 0 {
            self.pending = Pending::Pipe(pipe);
        } else {
            session.worker.pipes.borrow_mut().give_back(pipe);
        }
        match outcome {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(Taken::End)),
            Poll::Ready(Ok(count)) => {
                session.taken(self.from == Side::Client, count);
                self.streak = if count < SMALL { self.streak.saturating_add(1) } else { 0 };
                if self.streak >= DEMOTE && session.listener.config.relay == RelayMode::Auto {
                    self.splicing = false;
                    self.streak = 0;
                }
                Poll::Ready(Ok(Taken::Bytes(0)))
            }
            Poll::Ready(Err(error)) if is_unsupported(&error) => {
                // The kernel will not splice here: copy from now on, all of this worker.
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
        session: &Session,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Taken, Fault>> {
        let mut scratch = session.worker.scratch.borrow_mut();
        let count = match source.poll_read(cx, &mut scratch) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Fault::Source(error))),
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(Taken::End)),
            Poll::Ready(Ok(count)) => count,
        };
        session.taken(self.from == Side::Client, count);
        self.streak = if count == SCRATCH { self.streak.saturating_add(1) } else { 0 };
        if self.streak >= PROMOTE && session.listener.config.relay == RelayMode::Auto {
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
            self.pending = Pending::Buffer(Bytes::copy_from_slice(&scratch[written..count]));
        }
        Poll::Ready(Ok(Taken::Bytes(written)))
    }

    fn drop_pending(&mut self, session: &Session) {
        if let Pending::Pipe(pipe) = std::mem::replace(&mut self.pending, Pending::Nothing) {
            session.worker.pipes.borrow_mut().give_back(pipe);
        }
    }
}

enum Taken {
    /// So many were passed on already.
    Bytes(usize),
    End,
}

enum Fault {
    Sink(io::Error),
    Source(io::Error),
}

/// The far side ended the connection by force, rather than falling silent.
fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

/// Keepalive or retransmission gave up, or a router says the host is gone.
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
    fn other(self) -> Side {
        match self {
            Side::Client => Side::Backend,
            Side::Backend => Side::Client,
        }
    }

    fn closed(self) -> CloseReason {
        match self {
            Side::Client => CloseReason::ClientClosed,
            Side::Backend => CloseReason::BackendClosed,
        }
    }

    fn reset(self) -> CloseReason {
        match self {
            Side::Client => CloseReason::ClientReset,
            Side::Backend => CloseReason::BackendReset,
        }
    }

    fn failure(self, error: &io::Error) -> CloseReason {
        match self {
            _ if !is_vanished(error) => CloseReason::Internal,
            Side::Client => CloseReason::ClientVanished,
            Side::Backend => CloseReason::BackendVanished,
        }
    }
}
