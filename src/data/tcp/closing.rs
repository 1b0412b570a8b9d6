//! Closes many sessions of a worker at the pace that all workers share (`pool::closing`): all of them, or those that are
//! in a quiet moment. Some at a time, so that other work does not wait.

use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until};

use super::session::Session;
use super::worker::Worker;
use crate::border::plane::{Cut, SEATS};
use crate::border::record::Stage;
use crate::data::pool::closing::Closing;
use crate::sys::clock::Moment;

/// The most sessions closed before others get their turn.
const BATCH: u64 = 256;

/// The wait for more to be due.
const TICK: Duration = Duration::from_millis(10);

/// How often a session that was busy is looked at again.
const LOOK: Duration = Duration::from_millis(100);

/// Sessions as they were at one moment: those that begin later, on a backend that has recovered, are not meant. Weak, so
/// that none of them is kept for longer than it lives.
type Meant = Vec<Weak<Session>>;

/// Closes all of them; those that still connect go to another backend at once.
pub async fn close(worker: Rc<Worker>, cut: Cut, closing: &Closing) {
    let (meant, connecting) = collect(&worker, &cut).await;
    cut.counted(meant.len() + connecting);
    at_the_pace(&meant, closing, |session| session.cut(cut.reason)).await;
}

/// Closes each of them in its first quiet moment, until it is called off.
pub async fn close_quiet(worker: Rc<Worker>, cut: Cut, closing: &Closing) {
    let (mut meant, _) = collect(&worker, &cut).await;
    while !meant.is_empty() && !closing.is_called_off() {
        let next = Instant::now() + LOOK;
        for some in meant.chunks(SEATS) {
            // Only a session can tell whether it is in a quiet moment. One that moved a byte just now need not be asked.
            let is_silent = |it: &&Weak<Session>| it.upgrade().is_some_and(|it| it.is_silent());
            let silent: Meant = some.iter().filter(is_silent).cloned().collect();
            at_the_pace(&silent, closing, |session| session.cut_if_quiet(cut.reason)).await;
            yield_now().await;
        }
        sleep_until(next).await;
        meant.retain(|session| session.strong_count() > 0);
    }
}

/// Does `work` with all that are still open, unless it is called off.
async fn at_the_pace(meant: &[Weak<Session>], closing: &Closing, work: impl Fn(&Session)) {
    let mut left = meant.iter();
    while !left.as_slice().is_empty() && !closing.is_called_off() {
        let mut due = closing.take(BATCH, now_ns());
        if due == 0 {
            sleep(TICK).await;
            continue;
        }
        while due > 0
            && let Some(session) = left.next()
        {
            if let Some(session) = session.upgrade() {
                work(&session);
                due -= 1;
            }
        }
        yield_now().await;
    }
}

fn now_ns() -> u64 {
    Moment::now().nanoseconds()
}

/// Those in relay. The others are cut on the spot, and counted: nothing waits for their end.
async fn collect(worker: &Worker, cut: &Cut) -> (Meant, usize) {
    let (mut meant, mut others, mut from) = (Vec::new(), 0, 0);
    loop {
        if let Some(row) = worker.sessions.borrow().row(from) {
            for session in row.filter(|session| session.matches(&cut.filter)) {
                if session.stage.get() == Stage::Relay {
                    meant.push(Rc::downgrade(session));
                } else {
                    session.cut(cut.reason);
                    others += 1;
                }
            }
        } else {
            return (meant, others);
        }
        from += SEATS;
        yield_now().await;
    }
}
