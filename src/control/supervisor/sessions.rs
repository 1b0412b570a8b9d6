//! Asks the workers about their open sessions and flows: to list them, to cut them, to wait for their end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Supervisor;
use crate::border::plane::{Cut, Part, Plane, SessionFilter, SessionRow};
use crate::border::record::CloseReason;
use crate::data::pool::closing::Closing;
use crate::data::tcp::mailbox::{Command, Mailbox};
use crate::data::udp;

/// Rows of a list, from one worker.
const ROWS: usize = 10_000;

pub type ListFuture = Pin<Box<dyn Future<Output = Vec<SessionRow>> + Send>>;

impl Supervisor {
    /// Cuts the sessions and flows that match, on every worker.
    pub fn cut(&self, filter: SessionFilter, reason: CloseReason) {
        self.send_cut(Cut { filter, reason, closing: None, count: None });
    }

    /// The same at a pace, as there may be very many; the answer has the number on each thread, and comes when all have
    /// answered: they are found, and are being closed.
    pub fn kill(&self, filter: SessionFilter) -> mpsc::Receiver<usize> {
        let (count, counts) = mpsc::channel(self.plane.threads());
        let closing = Some(Arc::new(Closing::new("kill", None)));
        self.send_cut(Cut { filter, reason: CloseReason::Killed, closing, count: Some(count) });
        counts
    }

    fn send_cut(&self, cut: Cut) {
        for worker in 0..self.workers() {
            self.send(worker, Command::Cut(cut.clone()));
        }
        self.packets.tell(|| udp::worker::Command::Cut(cut.clone()));
    }

    /// Lists open sessions, at most `ROWS` of each worker.
    pub fn lister(&self) -> impl Fn(SessionFilter) -> ListFuture + Send + Sync + 'static {
        let workers = self.workers.clone();
        move |filter| {
            let workers = workers.clone();
            let ask = move |worker: usize, from, answer| {
                let worker: &Mailbox = workers.get(worker)?;
                Some(worker.send(Command::List(filter.clone(), from, answer)))
            };
            Box::pin(gather(ask))
        }
    }

    /// Lists open flows, at most `ROWS` of each worker. The threads may be started by a later reload.
    pub fn flow_lister(&self) -> impl Fn(SessionFilter) -> ListFuture + Send + Sync + 'static {
        let mailboxes = Arc::clone(&self.packets.mailboxes);
        move |filter| {
            let mailboxes = mailboxes.load_full();
            let ask = move |worker: usize, from, answer| {
                let mailbox = mailboxes.get(worker)?;
                Some(mailbox.send(udp::worker::Command::List(filter.clone(), from, answer)))
            };
            Box::pin(gather(ask))
        }
    }
}

/// Asks one worker after the other, for one part after the other: no worker has more than one question of a list, and
/// none after the reader has left. `ask` returns None behind the last worker, and false if that worker has ended.
async fn gather(
    ask: impl Fn(usize, usize, oneshot::Sender<Part>) -> Option<bool>,
) -> Vec<SessionRow> {
    let mut rows = Vec::new();
    let (mut worker, mut from, mut most) = (0, 0, ROWS);
    loop {
        let (sender, receiver) = oneshot::channel();
        let Some(is_asked) = ask(worker, from, sender) else { break };
        let part = if is_asked { receiver.await.unwrap_or_default() } else { Part::default() };
        rows.extend(part.rows);
        match part.next {
            Some(next) if rows.len() < most => from = next,
            _ => {
                rows.truncate(most);
                (worker, from, most) = (worker + 1, 0, rows.len() + ROWS);
            }
        }
    }
    rows.sort_by_key(|row| row.id);
    rows
}

/// Waits until no session is open or `deadline` passes; says whether all ended by themselves.
pub async fn wait_for_sessions(plane: &Plane, deadline: Option<Instant>) -> bool {
    const LOOK: Duration = Duration::from_millis(20);
    while plane.open_sessions() > 0 {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        // Sessions end on other threads, which do not report each end.
        tokio::time::sleep(LOOK).await;
    }
    true
}
