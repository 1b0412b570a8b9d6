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

/// An admitted connection on its way to the worker it will live on.
pub struct Arrival {
    pub socket: OwnedFd,
    pub client: ClientAddr,
    pub local: Arc<LocalAddr>,
    pub admission: Admission,
    pub place: Place,
}

/// Sessions handed over and waiting; a full queue makes the sender keep its socket.
const ARRIVALS: usize = 1024;

/// What the supervisor tells a worker. The queue has no bound of its own: its only sender is the control
/// plane, at most once for each backend that changes state and each reload.
pub enum Command {
    /// Sessions to cut, for a reason.
    Cut(Cut),
    /// Other sockets of ours have the ports of these from now on; else as `Unlisten`.
    GiveWay(Vec<ListenAddr>, mpsc::Sender<()>),
    /// Open sessions, of so many seats from this one on.
    List(SessionFilter, usize, oneshot::Sender<Part>),
    /// Accept on these sockets, which listen already.
    Listen(Vec<(ListenAddr, Arc<config::Listener>, OwnedFd)>),
    /// Those who may come in by these listeners are others now: sessions of who may not are to end.
    LookAgain(Vec<Arc<Listener>>),
    /// The listeners behind these addresses are others, or have other settings, from now on.
    Retarget(Vec<(ListenAddr, Arc<config::Listener>)>),
    /// Leave the loop and end the thread; what is still open is cut.
    Stop,
    /// Accept until the queues are empty, then close; the sender is dropped when that is done.
    Unlisten(Vec<ListenAddr>, mpsc::Sender<()>),
}

/// How to reach one worker.
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

/// One mailbox per worker, and the ends they will read from.
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
    /// Fails only if the worker is gone.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }
}
