//! The life of one TCP connection, top to bottom: admitted by the listener, then route → connect → relay → record.
//! Each stage returns the reason if it ends the session; `run` records exactly once, whatever happened; guards give
//! back what was taken.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::cancel;
use super::connect;
use super::ending::Ending;
use super::mailbox::Arrival;
use super::preread;
use super::refusal::refuse;
use super::relay::{Relay, Verdict};
use super::session::Session;
use super::worker::Worker;
use crate::border::record::{CloseReason, Stage};
use crate::config::HashKey;
use crate::data::admit::Admission;
use crate::data::stream::Stream;
use crate::sys::socket;

/// Starts the session of an arrival on this worker.
pub fn start(worker: &Rc<Worker>, arrival: Arrival) {
    let Arrival { socket: accepted, client, mut local, admission, place } = arrival;
    let Admission { listener, client: own, sender_of } = admission;
    if worker.plane.session_log.is_on() {
        // The listening socket may be a wildcard; the log needs the address that the client dialled.
        local = Arc::new(socket::local_addr(&accepted));
    }
    listener.live.counters.of(worker.id).sessions.add(1);
    let session = Rc::new(Session::new(client, local, listener, place.settle(&worker.resources)));
    if let Some(own) = own {
        session.keep(own);
    }
    if let Some(listener) = sender_of {
        session.tell(|told| told.sender_of = Some(listener));
    }
    session.seat.set(worker.sessions.borrow_mut().enter(Rc::clone(&session)));
    let ending = Ending { session: Rc::clone(&session), worker: Rc::clone(worker) };
    let life = Life::Reaching(Box::pin(reach(session, accepted)));
    tokio::task::spawn_local(Run { life, ending });
}

/// A session's task: runs it, and records the ending exactly once. A panic below ends in `internal` through the
/// guard's drop. Written by hand rather than as an `async fn`, which would keep room for every stage at once; what
/// connecting needs is boxed and given back before the session settles down to relay.
struct Run {
    life: Life,
    ending: Ending,
}

enum Life {
    Reaching(Pin<Box<dyn Future<Output = Result<Relay, CloseReason>>>>),
    Relaying(Relay),
    /// One side was reset; the other will be, once it has everything.
    Carrying(Pin<Box<dyn Future<Output = CloseReason>>>),
    Over,
}

impl Future for Run {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let worker = &self.ending.worker;
        worker.spin.turn(&worker.plane);
        loop {
            let reason = match &mut self.life {
                Life::Reaching(reaching) => match ready!(reaching.as_mut().poll(cx)) {
                    Ok(relay) => {
                        self.life = Life::Relaying(relay);
                        continue;
                    }
                    Err(reason) => reason,
                },
                Life::Relaying(relay) => match ready!(relay.poll(cx)) {
                    Verdict::Clean(reason) | Verdict::Cut(reason) => reason,
                    Verdict::Again(end) => {
                        if let Life::Relaying(relay) = std::mem::replace(&mut self.life, Life::Over)
                        {
                            self.life = Life::Reaching(Box::pin(relay.again(end)));
                        }
                        continue;
                    }
                    Verdict::Carry { to, reason } => {
                        if let Life::Relaying(relay) = std::mem::replace(&mut self.life, Life::Over)
                        {
                            self.life = Life::Carrying(Box::pin(relay.carry(to, reason)));
                        }
                        continue;
                    }
                },
                Life::Carrying(carrying) => ready!(carrying.as_mut().poll(cx)),
                Life::Over => return Poll::Ready(()),
            };
            self.life = Life::Over;
            self.ending.session.reason.set(reason);
            return Poll::Ready(());
        }
    }
}

/// The stages up to a connected backend.
async fn reach(session: Rc<Session>, socket: OwnedFd) -> Result<Relay, CloseReason> {
    let mut client = Stream::new(socket).map_err(|_| CloseReason::NoDescriptors)?;
    if session.listener.looks_at_first_bytes() {
        let looked = Box::pin(preread::preread(&session, &mut client)).await;
        looked.map_err(|reason| refuse(&session, &mut client, reason))?;
    }
    let pool = session.pool().ok_or_else(|| refuse(&session, &mut client, CloseReason::NoRoute))?;
    if let Some(request) = session.take_cancel() {
        return Err(Box::pin(cancel::tell_all(&session, &mut client, pool, request)).await);
    }
    if pool.config.hash.key == HashKey::ServerName {
        let looked = Box::pin(preread::server_name(&session, &mut client)).await;
        looked.map_err(|reason| refuse(&session, &mut client, reason))?;
    }
    let connected = connect::connect(&session, &mut client, pool).await;
    let connected = connected.map_err(|reason| refuse(&session, &mut client, reason))?;
    session.stage.set(Stage::Relay);
    let connected = connected.with_client(client).map_err(|_| CloseReason::Internal)?;
    Ok(Relay::new(session, connected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// With the two counts of its Rc a session just fits an allocator's size class, and so does its task: one more
    /// word costs 32 bytes or more in each of hundreds of thousands.
    #[test]
    fn a_session_fits_its_allocations() {
        assert!(size_of::<Session>() <= 176, "{}", size_of::<Session>());
        assert!(size_of::<Run>() <= 128, "{}", size_of::<Run>());
        // Made and given back for each session: what only some need, first bytes and TLS, is boxed in it.
        assert!(future_size(reach) <= 640, "{}", future_size(reach));
    }
}
