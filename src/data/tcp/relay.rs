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

use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::connect::Connected;
use super::half::{End, Event, Half, Side, State, is_reset};
use super::port_book::End as PortEnd;
use super::session::Session;
use super::told::Look;
use crate::border::record::CloseReason;
use crate::config::RelayMode;
use crate::data::stream::Stream;
use crate::data::tls;
use crate::sys::socket::Peeked;
use crate::sys::{clock, connection, socket};

/// The limit for delivering before a reset is passed on, if `half_closed` is `none`.
const CARRY: Duration = Duration::from_secs(60);

/// Checks of a quiet session with unsent bytes, per timeout.
const LOOKS: u32 = 4;

/// How long the other side's end is awaited after a reset in TLS, before that side is reset.
const GOODBYE: Duration = Duration::from_millis(100);

/// A connected session.
pub struct Relay {
    session: Rc<Session>,
    client: Stream,
    backend: Stream,
    to_backend: Half,
    to_client: Half,
    /// The side that ended first; it names the session's end.
    first_end: Option<(Side, End)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the end is decided; if dropped before that, both sides are reset.
    over: bool,
}

/// How the relay ends.
pub enum Verdict {
    /// One side was reset: the other will be, once it has everything.
    Carry { to: Side, reason: CloseReason },
    /// Both directions ended by FIN.
    Clean(CloseReason),
    /// maitred ends it: a reset on both sides.
    Cut(CloseReason),
}

impl Relay {
    pub fn new(session: Rc<Session>, connected: Connected<Stream>) -> Relay {
        let is_plain = connected.client.tls().is_none() && connected.opened.stream.tls().is_none();
        // The kernel cannot splice what has to be encrypted.
        let mode = if is_plain { session.listener.config.relay } else { RelayMode::Copy };
        session.holds.slot.set(Some(connected.permit));
        session.holds.lease.set(connected.opened.lease.map(Box::new));
        let mut relay = Relay {
            session,
            client: connected.client,
            backend: connected.opened.stream,
            to_backend: Half::new(Side::Client, mode),
            to_client: Half::new(Side::Backend, mode),
            first_end: None,
            timer: None,
            over: false,
        };
        relay.arm(true);
        relay
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
            if let State::Ending(end) = self.half(from).state {
                // Read, but not delivered yet: the timeouts of a half-closed session apply already.
                self.note_end(from, end);
            }
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

    /// The silence timeout that applies now: how long, and the reason with which the session ends.
    fn quiet_limits(&self) -> impl Iterator<Item = (Duration, CloseReason)> {
        let timeouts = &self.session.listener.config.timeouts;
        let half_closed = self.first_end.and(timeouts.half_closed);
        let idle = timeouts.idle.map(|limit| (limit, CloseReason::Idle));
        idle.into_iter().chain(half_closed.map(|limit| (limit, CloseReason::HalfClosedTimeout)))
    }

    fn quiet(&self) -> Duration {
        let last = self.session.last_byte_ms.get();
        Duration::from_millis(clock::coarse_ms().saturating_sub(last))
    }

    /// The timeouts that apply now: the reasons, and the time left. The shortest is waited for.
    fn next_limit(&self) -> Option<(Duration, CloseReason)> {
        let lifetime = self.session.listener.config.timeouts.max_lifetime;
        let quiet = self.quiet();
        let of_quiet =
            self.quiet_limits().map(|(limit, reason)| (limit.saturating_sub(quiet), reason));
        let of_life = lifetime.map(|limit| {
            (limit.saturating_sub(self.session.started.elapsed()), CloseReason::Lifetime)
        });
        of_quiet.chain(of_life).min_by_key(|(left, _)| *left)
    }

    /// How long a session is quiet before it is checked, and how often from then on: bytes that the kernel delivers
    /// to a slow reader keep it alive, and are not reported.
    fn look_after(&self) -> Option<Duration> {
        self.quiet_limits().map(|(limit, _)| limit / LOOKS).min()
    }

    /// Checks whether a far side read something since the last check; returns whether there is something left to
    /// read.
    fn look(&mut self) -> bool {
        let seen = [&self.client, &self.backend].map(connection::delivery);
        if !seen.iter().any(|delivery| delivery.is_pending) {
            return false;
        }
        let last_byte_ms = self.session.last_byte_ms.get();
        let taken = seen.map(|delivery| delivery.mark);
        let before = self.session.told(|told| told.look).flatten();
        let before = before.filter(|look| look.last_byte_ms == last_byte_ms);
        // At the first check the time is unknown: it may have been a moment ago.
        let is_alive =
            before.is_none_or(|look| taken.iter().zip(&look.taken).any(|(now, then)| now > then));
        if is_alive {
            let last_byte_ms = clock::coarse_ms();
            self.session.last_byte_ms.set(last_byte_ms);
            self.session.tell(|told| told.look = Some(Look { taken, last_byte_ms }));
        }
        true
    }

    /// Sets the timer for the first timeout, if any, or for a check before that. Bytes do not re-arm it: when it
    /// fires, it checks again.
    fn arm(&mut self, may_look: bool) {
        let Some((left, _)) = self.next_limit() else {
            self.timer = None;
            return;
        };
        let look = self.look_after().filter(|_| may_look).map(|after| {
            let left = after.saturating_sub(self.quiet());
            if left.is_zero() { after } else { left }
        });
        let deadline = Instant::now() + look.map_or(left, |look| look.min(left));
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(sleep_until(deadline))),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let is_quiet = self.look_after().is_some_and(|after| self.quiet() >= after);
            let may_look = if is_quiet { self.look() } else { true };
            match self.next_limit() {
                Some((left, reason)) if left.is_zero() => return Poll::Ready(Verdict::Cut(reason)),
                _ => self.arm(may_look),
            }
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
