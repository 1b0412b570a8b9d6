//! Asking the workers about their open sessions and flows: to list them, to cut them, to wait for their end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::Supervisor;
use crate::plane::{Cut, Plane, SessionFilter, SessionRow};
use crate::tcp::worker::Command;
use crate::telemetry::record::CloseReason;
use crate::udp;

pub type ListFuture = Pin<Box<dyn Future<Output = Vec<SessionRow>> + Send>>;

impl Supervisor {
    /// Cuts the sessions and flows that match, on every worker.
    pub fn cut(&self, filter: SessionFilter, reason: CloseReason) {
        self.cut_counted(filter, reason, None);
    }

    /// The same; the answer is how many on each thread, and ends when all have said so.
    pub fn kill(&self, filter: SessionFilter) -> mpsc::Receiver<usize> {
        let (count, counts) = mpsc::channel(self.plane.threads());
        self.cut_counted(filter, CloseReason::Killed, Some(count));
        counts
    }

    fn cut_counted(
        &self,
        filter: SessionFilter,
        reason: CloseReason,
        count: Option<mpsc::Sender<usize>>,
    ) {
        let cut = Cut { filter, reason, count };
        for worker in 0..self.workers() {
            self.send(worker, Command::Cut(cut.clone()));
        }
        self.packets.tell(|| udp::worker::Command::Cut(cut.clone()));
    }

    /// Lists open sessions, at most `worker::ROWS` of each worker.
    pub fn lister(&self) -> impl Fn(SessionFilter) -> ListFuture + Send + Sync + 'static {
        let workers = self.workers.clone();
        move |filter| {
            let workers = workers.clone();
            Box::pin(async move {
                let mut rows = Vec::new();
                for worker in &workers {
                    let (sender, receiver) = oneshot::channel();
                    if worker.send(Command::List(filter.clone(), sender))
                        && let Ok(more) = receiver.await
                    {
                        rows.extend(more);
                    }
                }
                rows.sort_by_key(|row| row.id);
                rows
            })
        }
    }

    /// Lists open flows, at most `udp::flows::ROWS` of each worker. The threads may be started by a later reload.
    pub fn flow_lister(&self) -> impl Fn(SessionFilter) -> ListFuture + Send + Sync + 'static {
        let mailboxes = Arc::clone(&self.packets.mailboxes);
        move |filter| {
            let mailboxes = mailboxes.load_full();
            Box::pin(async move {
                let mut rows = Vec::new();
                for mailbox in mailboxes.iter() {
                    let (sender, receiver) = oneshot::channel();
                    if mailbox.send(udp::worker::Command::List(filter.clone(), sender))
                        && let Ok(more) = receiver.await
                    {
                        rows.extend(more);
                    }
                }
                rows.sort_by_key(|row| row.id);
                rows
            })
        }
    }
}

/// Waits until no session is open or `deadline` passes; says whether all ended by themselves.
pub async fn wait_for_sessions(plane: &Plane, deadline: Option<Instant>) -> bool {
    const LOOK: Duration = Duration::from_millis(20);
    while plane.open_sessions() > 0 {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        // Sessions end on other threads, which tell nobody of each.
        tokio::time::sleep(LOOK).await;
    }
    true
}
