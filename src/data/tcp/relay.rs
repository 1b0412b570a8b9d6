//! The relay: moves bytes both ways between a client and its backend until the session ends, and ends both
//! sides the way they were ended. Each direction is a `Half`; here they meet, and so do the times of a session.
//! What we cut is a reset on both sides; a reset we carry waits until what we took before is delivered, at most
//! `half_closed`.

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

/// The bound on delivering before a reset is carried on, where `half_closed` is `none`.
const CARRY: Duration = Duration::from_secs(60);

/// Looks at a quiet session with unsent bytes, within its limit.
const LOOKS: u32 = 4;

/// For how long the other side's end is waited for after a reset in TLS, before it is reset.
const GOODBYE: Duration = Duration::from_millis(100);

/// A connected session.
pub struct Relay {
    session: Rc<Session>,
    client: Stream,
    backend: Stream,
    to_backend: Half,
    to_client: Half,
    /// Whose end came first; it names the session's.
    first_end: Option<(Side, End)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the ending is decided; dropped before that, both sides are reset.
    over: bool,
}

/// How the relay is over.
pub enum Verdict {
    /// One side was reset: the other is, once it has everything.
    Carry { to: Side, reason: CloseReason },
    /// Both directions ended by FIN.
    Clean(CloseReason),
    /// We end it: a reset on both sides.
    Cut(CloseReason),
}

impl Relay {
    pub fn new(session: Rc<Session>, connected: Connected<Stream>) -> Relay {
        let is_plain = connected.client.tls().is_none() && connected.opened.stream.tls().is_none();
        // The kernel cannot move what has to be encrypted.
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
                    // What came behind the end in TLS would make a reset of our close, which takes back what is unsent.
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
                // Read, but not delivered yet: the times of a half-closed session run already.
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

    /// Takes note of what the direction from `from` told; a verdict ends the relay.
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
            // One ended without saying so in TLS, and the other complains of that.
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
            // Both sides are read to their end: closing them now sends the FIN that is still to be sent.
            State::Done => {
                if from == Side::Client {
                    // To the backend, whose own has been read: the backend keeps the TIME_WAIT, if any.
                    self.free_port();
                }
                Some(Verdict::Clean(match end {
                    End::Fin => first.closed(),
                    End::Reset => first.reset(),
                }))
            }
            // It sent its FIN and then reset us for what we wrote: the other side gets both, in that order.
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

    /// What a reset by `from` is recorded as. Most are what they seem. But whoever ended orderly before resets us for what we
    /// still send, and whoever was sent the other side's end may close with something of it unread, as both do at the end of
    /// PostgreSQL in TLS: that is no failure, unless bytes never got there.
    fn reset_reason(&self, from: Side) -> CloseReason {
        let other = from.other();
        let is_over = match self.first_end {
            Some((first, End::Fin)) if first == from => return from.closed(),
            Some((_, End::Fin)) => self.half(other).state == State::Done,
            // The other's end is there, and would have been the next to be read.
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

    /// The limits of silence that apply now: how long, and what the session ends with.
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

    /// The times that apply now: which ends the session, and how long until then. The lowest is waited for.
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

    /// How long a session is quiet before it is looked at, and how often from then on: what the kernel delivers to a slow
    /// reader keeps it alive, and nobody tells of that.
    fn look_after(&self) -> Option<Duration> {
        self.quiet_limits().map(|(limit, _)| limit / LOOKS).min()
    }

    /// Looks whether a far side took something since the last look; says whether there is something left to take.
    fn look(&mut self) -> bool {
        let seen = [&self.client, &self.backend].map(connection::delivery);
        if !seen.iter().any(|delivery| delivery.is_pending) {
            return false;
        }
        let last_byte_ms = self.session.last_byte_ms.get();
        let taken = seen.map(|delivery| delivery.mark);
        let before = self.session.told(|told| told.look).flatten();
        let before = before.filter(|look| look.last_byte_ms == last_byte_ms);
        // The first time nobody knows: it may have been a moment ago.
        let is_alive =
            before.is_none_or(|look| taken.iter().zip(&look.taken).any(|(now, then)| now > then));
        if is_alive {
            let last_byte_ms = clock::coarse_ms();
            self.session.last_byte_ms.set(last_byte_ms);
            self.session.tell(|told| told.look = Some(Look { taken, last_byte_ms }));
        }
        true
    }

    /// Sets the timer for the first limit, if any, or for a look before that. Bytes do not re-arm it: when it fires, it
    /// looks again.
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

    /// Resets `to` once the kernel has delivered all we gave it, at most `half_closed` after it delivered anything.
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
        // Of the backend's connection it was either this reset or the backend's own.
        self.free_port();
        self.over = true;
        reason
    }

    /// Whoever closes with the other's goodbye unread resets, a moment before that one's end is here: so do libpq and PostgreSQL
    /// in TLS to each other. `other`: who was not reset yet.
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
                // Where our FIN went out before, the backend's may have come, and no reset ends a TIME_WAIT.
                self.free_port();
            }
        }
    }
}
