//! How a worker is reached: sessions from other workers, commands from the supervisor.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::place::Place;
use crate::border::addr::{ClientAddr, ListenAddr, LocalAddr};
use crate::border::plane::{Cut, Part, SessionFilter};
use crate::border::snapshot::Listener;
use crate::config;
use crate::data::admit::Admission;

/// An admitted connection on its way to its worker.
pub struct Arrival {
    pub socket: OwnedFd,
    pub client: ClientAddr,
    pub local: Arc<LocalAddr>,
    pub admission: Admission,
    pub place: Place,
}

/// Sessions that are passed to this worker and wait; if the queue is full, the sender keeps the session.
const ARRIVALS: usize = 1024;

/// Commands of the supervisor. The queue has no bound of its own: only the control plane sends, at most once for each
/// backend that changes state and each reload.
pub enum Command {
    /// Sessions to cut, for a reason.
    Cut(Cut),
    /// The same, each in its first quiet moment.
    CutQuiet(Cut),
    /// From now on other sockets of ours have these ports; otherwise like `Unlisten`.
    GiveWay(Vec<ListenAddr>, mpsc::Sender<()>),
    /// Open sessions in some seats, from this one on.
    List(SessionFilter, usize, oneshot::Sender<Part>),
    /// Accept on these sockets, which listen already.
    Listen(Vec<(ListenAddr, Arc<config::Listener>, OwnedFd)>),
    /// These listeners now admit other clients: sessions of clients that they deny must end.
    LookAgain(Vec<Arc<Listener>>),
    /// From now on these addresses belong to other listeners, or to listeners with other settings.
    Retarget(Vec<(ListenAddr, Arc<config::Listener>)>),
    /// Leave the loop and end the thread; open sessions are cut.
    Stop,
    /// Accept until the queues are empty, then close; the sender is dropped when that is done.
    Unlisten(Vec<ListenAddr>, mpsc::Sender<()>),
}

/// The sender to one worker.
#[derive(Clone)]
pub struct Mailbox {
    pub(super) arrivals: mpsc::Sender<Arrival>,
    commands: mpsc::UnboundedSender<Command>,
}

/// The worker's end of its mailbox.
pub struct Mail {
    pub(super) arrivals: mpsc::Receiver<Arrival>,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
}

/// One mailbox per worker, and the ends from which they will read.
pub fn mailboxes(workers: usize) -> (Box<[Mailbox]>, Vec<Mail>) {
    let mut mails = Vec::with_capacity(workers);
    let mailboxes = (0..workers).map(|_| {
        let (arrivals, arrivals_end) = mpsc::channel(ARRIVALS);
        let (commands, commands_end) = mpsc::unbounded_channel();
        mails.push(Mail { arrivals: arrivals_end, commands: commands_end });
        Mailbox { arrivals, commands }
    });
    (mailboxes.collect(), mails)
}

impl Mailbox {
    /// Fails only if the worker has ended.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}
