//! The timeouts of a relayed session: idle, half closed, lifetime. One timer for all of them.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::first_bytes::Look;
use super::relay::{Relay, Verdict};
use crate::border::record::CloseReason;
use crate::sys::{clock, connection};

/// Checks of a quiet session with unsent bytes, per timeout.
const LOOKS: u32 = 4;

impl Relay {
    /// The silence timeout that applies now: how long, and the reason with which the session ends.
    fn quiet_limits(&self) -> impl Iterator<Item = (Duration, CloseReason)> {
        let timeouts = &self.session.listener.config.timeouts;
        let half_closed = self.first_end.and(timeouts.half_closed);
        let idle = timeouts.idle.map(|limit| (limit, CloseReason::Idle));
        idle.into_iter().chain(half_closed.map(|limit| (limit, CloseReason::HalfClosedTimeout)))
    }

    /// The timeouts that apply now: the reasons, and the time left. The shortest is waited for.
    fn next_limit(&self) -> Option<(Duration, CloseReason)> {
        let lifetime = self.session.listener.config.timeouts.max_lifetime;
        let quiet = self.session.quiet();
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
    pub(super) fn arm(&mut self, may_look: bool) {
        let Some((left, _)) = self.next_limit() else {
            self.timer = None;
            return;
        };
        let look = self.look_after().filter(|_| may_look).map(|after| {
            let left = after.saturating_sub(self.session.quiet());
            if left.is_zero() { after } else { left }
        });
        let deadline = Instant::now() + look.map_or(left, |look| look.min(left));
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(deadline),
            None => self.timer = Some(Box::pin(sleep_until(deadline))),
        }
    }

    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Verdict> {
        loop {
            let Some(timer) = &mut self.timer else { return Poll::Pending };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let is_quiet = self.look_after().is_some_and(|after| self.session.quiet() >= after);
            let may_look = if is_quiet { self.look() } else { true };
            match self.next_limit() {
                Some((left, reason)) if left.is_zero() => return Poll::Ready(Verdict::Cut(reason)),
                _ => self.arm(may_look),
            }
        }
    }
}
