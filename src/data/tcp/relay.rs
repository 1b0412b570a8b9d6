//! The relay: moves bytes both ways between a client and its backend until the session ends, and ends both sides in
//! the way in which they were ended. Each direction is a `Half`; this file combines them and applies the timeouts. If
//! maitred cuts a session, it resets both sides. A reset that is passed on waits until what was read before it is
//! delivered, at most `half_closed`.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::cancel;
use super::connect::Connected;
use super::half::{End, Event, Half, Side, State, is_reset};
use super::port_book::End as PortEnd;
use super::session::Session;
use crate::border::record::{CloseReason, Stage};
use crate::config::RelayMode;
use crate::data::stream::Stream;
use crate::data::tls;
use crate::sys::socket::Peeked;
use crate::sys::{clock, connection, socket};

/// The limit for delivering before a reset is passed on, if `half_closed` is `none`.
const CARRY: Duration = Duration::from_secs(60);

/// How long the other side's end is awaited after a reset in TLS, before that side is reset.
const GOODBYE: Duration = Duration::from_millis(100);

/// A connected session.
pub struct Relay {
    pub(super) session: Rc<Session>,
    pub(super) client: Stream,
    pub(super) backend: Stream,
    pub(super) to_backend: Half,
    pub(super) to_client: Half,
    /// The side that ended first; it names the session's end.
    pub(super) first_end: Option<(Side, End)>,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    /// Whether the end is decided; if dropped before that, both sides are reset.
    pub(super) over: bool,
}

/// How the relay ends.
pub enum Verdict {
    /// The backend ended in this way without a byte, and another one is to be asked.
    Again(End),
    /// One side was reset: the other will be, once it has everything.
    Carry { to: Side, reason: CloseReason },
    /// Both directions ended by FIN.
    Clean(CloseReason),
    /// maitred ends it: a reset on both sides.
    Cut(CloseReason),
}

impl Relay {
    pub fn new(session: Rc<Session>, connected: Connected<Stream>) -> Relay {
        let mode = Relay::mode(&session, &connected.client, &connected.opened.stream);
        let is_on_trial = session.is_on_trial();
        session.holds.slot.set(Some(connected.permit));
        session.holds.lease.set(connected.opened.lease.map(Box::new));
        let mut relay = Relay {
            session,
            client: connected.client,
            backend: connected.opened.stream,
            to_backend: Half::new(Side::Client, mode, is_on_trial),
            to_client: Half::new(Side::Backend, mode, is_on_trial),
            first_end: None,
            timer: None,
            over: false,
        };
        relay.arm(true);
        relay
    }

    /// The kernel cannot splice what has to be encrypted.
    pub(super) fn mode(session: &Session, client: &Stream, backend: &Stream) -> RelayMode {
        let is_plain = client.tls().is_none() && backend.tls().is_none();
        if is_plain { session.listener.config.relay } else { RelayMode::Copy }
    }

    /// Moves what can be moved both ways; ready when the session is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        let verdict = ready!(self.poll_verdict(cx));
        if let Verdict::Clean(_) = verdict {
            self.over = true;
            for stream in [&self.client, &self.backend] {
                if stream.tls().is_some() {
                    // Unread bytes behind the end of TLS would turn our close into a reset, which discards what is
                    // unsent.
                    socket::end_politely(stream, &mut self.session.worker.scratch.borrow_mut());
                }
            }
        }
        Poll::Ready(verdict)
    }

    /// The backend's connection leaves nothing behind in the kernel.
    fn free_port(&self) {
        if let Some(mut lease) = self.session.holds.lease.take() {
            lease.ended(PortEnd::Free);
            self.session.holds.lease.set(Some(lease));
        }
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        if let Some(reason) = self.session.poll_cut(cx) {
            return Poll::Ready(Verdict::Cut(reason));
        }
        for from in [Side::Client, Side::Backend] {
            while let Poll::Ready(event) = self.poll_half(from, cx) {
                if let Some(verdict) = self.handle(from, event) {
                    return Poll::Ready(verdict);
                }
            }
            if from == Side::Client
                && self.session.may_cancel()
                && let Some(request) = self.session.take_cancel()
            {
                cancel::tell_others(&self.session, &self.client, &request);
            }
            if let State::Ending(end) = self.half(from).state {
                // Read, but not delivered yet: the timeouts of a half-closed session apply already.
                self.note_end(from, end);
            }
        }
        if let Some(reason) = self.session.is_to_end_if_quiet()
            && self.is_quiet()
        {
            return Poll::Ready(Verdict::Cut(reason));
        }
        self.poll_timer(cx)
    }

    fn poll_half(&mut self, from: Side, cx: &mut Context<'_>) -> Poll<Event> {
        let (client, backend) = (&mut self.client, &mut self.backend);
        match from {
            Side::Client => self.to_backend.poll(client, backend, &self.session, cx),
            Side::Backend => self.to_client.poll(backend, client, &self.session, cx),
        }
    }

    /// Handles the report of the direction from `from`; a verdict ends the relay.
    fn handle(&mut self, from: Side, event: Event) -> Option<Verdict> {
        match event {
            Event::Delivered(End::Fin) => {
                self.note_end(from, End::Fin);
                self.fin_delivered(from)
            }
            Event::Delivered(End::Reset) => {
                Some(Verdict::Carry { to: from.other(), reason: self.reset_reason(from) })
            }
            Event::Silent(end) if self.may_ask_another() => Some(Verdict::Again(end)),
            Event::Silent(end) => {
                self.to_client.end_in_silence(end);
                None
            }
            Event::SourceFailed(error) => Some(self.failed(from, &error)),
            Event::SinkFailed(error) if !is_reset(&error) => {
                Some(self.failed(from.other(), &error))
            }
            Event::SinkFailed(_) => self.sink_reset(from.other()),
        }
    }

    fn failed(&self, side: Side, error: &io::Error) -> Verdict {
        let reason = side.failure(error);
        if reason == CloseReason::TlsFailed {
            // One side ended without TLS' goodbye, and the other complains about it.
            if let Some((first, _)) = self.first_end
                && self.stream(first).is_truncated()
            {
                return Verdict::Cut(first.closed());
            }
            self.session.tell(|told| {
                told.cause = Some(format!("{}: {}", side.as_str(), tls::explain(error)).into())
            });
        }
        Verdict::Cut(reason)
    }

    fn fin_delivered(&mut self, from: Side) -> Option<Verdict> {
        let (first, end) = self.first_end.unwrap_or((from, End::Fin));
        match self.half(from.other()).state {
            // Both sides are read to their end: closing them now sends the FIN that is still missing.
            State::Done => {
                if from == Side::Client {
                    // To the backend, whose FIN has been read: the TIME_WAIT, if any, is on the backend's side.
                    self.free_port();
                }
                Some(Verdict::Clean(match end {
                    End::Fin => first.closed(),
                    End::Reset => first.reset(),
                }))
            }
            // It sent its FIN and then reset us because of what we wrote: the other side gets both, in that order.
            State::Dead => {
                self.send_fin(from.other());
                Some(Verdict::Carry { to: from.other(), reason: self.reset_reason(from) })
            }
            State::Ending(_) | State::Open => {
                self.send_fin(from.other());
                None
            }
        }
    }

    /// The reason that is recorded for a reset by `from`. Most are what they seem. But a side that half-closed before
    /// may reset us because of what we still send. And a side that was sent the other's end may close with some of it
    /// unread, as PostgreSQL and libpq both do at the end in TLS. This is not a failure, unless bytes were not
    /// delivered.
    fn reset_reason(&self, from: Side) -> CloseReason {
        let other = from.other();
        let is_over = match self.first_end {
            Some((first, End::Fin)) if first == from => return from.closed(),
            Some((_, End::Fin)) => self.half(other).state == State::Done,
            // The other's end has arrived, and would have been the next thing to be read.
            _ => {
                self.half(other).state == State::Open
                    && socket::peek(self.stream(other)) == Peeked::Ended
            }
        };
        match is_over && !connection::has_bytes_never_sent(self.stream(from)) {
            true => other.closed(),
            false => from.reset(),
        }
    }

    fn send_fin(&self, to: Side) {
        self.stream(to).finish();
    }

    fn stream(&self, side: Side) -> &Stream {
        match side {
            Side::Client => &self.client,
            Side::Backend => &self.backend,
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
                Some(Verdict::Carry { to: side.other(), reason: self.reset_reason(side) })
            }
        }
    }

    fn note_end(&mut self, side: Side, end: End) {
        if self.first_end.is_none() {
            self.first_end = Some((side, end));
            self.session.last_byte_ms.set(clock::coarse_ms());
            self.arm(true);
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

    /// Resets `to` once the kernel has delivered everything, at most `half_closed` after it last delivered anything.
    pub async fn carry(mut self, to: Side, reason: CloseReason) -> CloseReason {
        let limit = self.session.listener.config.timeouts.half_closed.unwrap_or(CARRY);
        let mut deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        let stream = match to {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        };
        let mut seen = connection::delivery(&*stream);
        while seen.is_pending
            && socket::peek(&*stream) != Peeked::Reset
            && Instant::now() < deadline
            && poll_fn(|cx| Poll::Ready(self.session.poll_cut(cx))).await.is_none()
        {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
            let now = connection::delivery(&*stream);
            if now.mark > seen.mark {
                deadline = Instant::now() + limit;
            }
            seen = now;
        }
        let reason = if reason == to.other().reset() { self.look_back(to).await } else { reason };
        self.stream(to).reset_on_close();
        // On the backend's connection it was either this reset or the backend's own.
        self.free_port();
        self.over = true;
        reason
    }

    /// A side that closes with the other's goodbye unread resets, a moment before the other's end arrives: libpq and
    /// PostgreSQL in TLS do this to each other. `other`: the side that was not reset yet.
    async fn look_back(&self, other: Side) -> CloseReason {
        let from = other.other();
        let may_be_answer = !matches!(self.first_end, Some((_, End::Fin)))
            && self.half(other).state == State::Open
            && !connection::has_bytes_never_sent(self.stream(from));
        let is_tls = self.session.speaks_tls.get()
            || [&self.client, &self.backend].iter().any(|stream| stream.tls().is_some());
        if !may_be_answer || !is_tls {
            return from.reset();
        }
        let mut over = pin!(sleep(GOODBYE));
        poll_fn(|cx| {
            loop {
                match socket::peek(self.stream(other)) {
                    Peeked::Ended => return Poll::Ready(other.closed()),
                    // Both had said goodbye, and neither read it.
                    Peeked::Reset => return Poll::Ready(from.closed()),
                    Peeked::Bytes { .. } => return Poll::Ready(from.reset()),
                    Peeked::Nothing => {}
                }
                self.stream(other).forget_arrival();
                if self.session.poll_cut(cx).is_some() || over.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(from.reset());
                }
                if self.stream(other).poll_arrival(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.session.stage.get() == Stage::Relay {
            self.session.end_trial();
        }
        self.to_backend.drop_pending(&self.session);
        self.to_client.drop_pending(&self.session);
        if !self.over {
            // Cut, or the worker stops: truncation must not look like a clean end.
            self.client.reset_on_close();
            self.backend.reset_on_close();
            if self.to_backend.state != State::Done {
                // If our FIN was sent before, the backend's may have arrived, and a reset does not end a TIME_WAIT.
                self.free_port();
            }
        }
    }
}
