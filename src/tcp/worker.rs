//! One worker: an OS thread with its own runtime, listening sockets, scratch buffer and pipes. A session
//! lives and dies here. The supervisor and the other workers speak to it through commands only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

use super::listener::{self, Acceptor};
use super::session::{self, Arrival, Session};
use crate::addr::ListenAddr;
use crate::plane::{Cut, Plane, SessionFilter, SessionRow, WorkerLoad};
use crate::sys::pipe::PipeStock;

/// What small messages pass through; stays in the cache because all sessions of the worker share it.
pub const SCRATCH: usize = 64 * 1024;

/// Commands waiting; a full queue makes the sender keep its socket (hand-over) or wait (supervisor).
const COMMANDS: usize = 1024;

/// Rows of one answer to `List`.
pub const ROWS: usize = 10_000;

pub enum Command {
    /// A session accepted elsewhere, handed over because that worker was busier.
    Adopt(Arrival),
    /// Sessions to cut, for a reason.
    Cut(Cut),
    /// At most `ROWS` open sessions.
    List(SessionFilter, oneshot::Sender<Vec<SessionRow>>),
    /// Accept on this socket; for an address already served, take the listener's new settings.
    Listen(ListenAddr, Arc<str>, OwnedFd),
    /// The listener behind an address changed.
    Retarget(ListenAddr, Arc<str>),
    /// Leave the loop and end the thread; what is still open is cut.
    Stop,
    /// Accept until the queue is empty, then close; answers when that is done.
    Unlisten(ListenAddr, oneshot::Sender<()>),
}

pub struct Worker {
    pub id: usize,
    pub plane: Arc<Plane>,
    pub scratch: RefCell<Box<[u8]>>,
    pub pipes: RefCell<PipeStock>,
    pub sessions: RefCell<HashMap<u64, Rc<Session>>>,
    /// Spent for a moment when there are no descriptors left, to refuse a client instead of hanging it.
    pub reserve: RefCell<Reserve>,
    all: Box<[mpsc::Sender<Command>]>,
}

/// The senders of all workers, and the ends they will read from.
pub fn channels(workers: usize) -> (Box<[mpsc::Sender<Command>]>, Vec<mpsc::Receiver<Command>>) {
    let mut receivers = Vec::with_capacity(workers);
    let senders = (0..workers).map(|_| {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        receivers.push(receiver);
        sender
    });
    (senders.collect(), receivers)
}

/// Runs worker `id` on this thread until it is told to stop.
pub fn run(
    id: usize,
    plane: Arc<Plane>,
    all: Box<[mpsc::Sender<Command>]>,
    mut commands: mpsc::Receiver<Command>,
    pipes: usize,
) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    plane.workers[id].set_metrics(runtime.metrics());
    let worker = Rc::new(Worker {
        id,
        plane,
        scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
        pipes: RefCell::new(PipeStock::new(pipes)),
        sessions: RefCell::new(HashMap::new()),
        reserve: RefCell::new(Reserve::new()),
        all,
    });
    runtime.block_on(async {
        let mut acceptors: HashMap<ListenAddr, Acceptor> = HashMap::new();
        while let Some(command) = commands.recv().await {
            if matches!(command, Command::Stop) {
                break;
            }
            worker.obey(command, &mut acceptors);
        }
    });
    Ok(())
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command, acceptors: &mut HashMap<ListenAddr, Acceptor>) {
        match command {
            Command::Adopt(arrival) => session::start(self, arrival),
            Command::Cut(cut) => self.cut(&cut),
            Command::List(filter, answer) => {
                // A reader that went away wants no answer.
                let _ = answer.send(self.list(&filter));
            }
            Command::Listen(address, name, socket) => match listener::start(self, name, socket) {
                Ok(acceptor) => drop(acceptors.insert(address, acceptor)),
                Err(error) => tracing::error!(%address, %error, "cannot watch a listening socket"),
            },
            Command::Retarget(address, name) => {
                if let Some(acceptor) = acceptors.get(&address) {
                    acceptor.retarget(name);
                }
            }
            Command::Stop => {}
            Command::Unlisten(address, done) => {
                if let Some(acceptor) = acceptors.remove(&address) {
                    acceptor.close(done);
                }
            }
        }
    }

    fn cut(&self, cut: &Cut) {
        // Cutting wakes, it does not run the session: the table is not changed under the iterator.
        for session in self.sessions.borrow().values() {
            if session.matches(&cut.filter) {
                session.cut(cut.reason);
            }
        }
    }

    fn list(&self, filter: &SessionFilter) -> Vec<SessionRow> {
        let sessions = self.sessions.borrow();
        let wanted = sessions.values().filter(|session| session.matches(filter));
        wanted.take(ROWS).map(|session| session.row()).collect()
    }

    pub fn load(&self) -> &WorkerLoad {
        &self.plane.workers[self.id]
    }

    /// The worker a new session should live on: this one, unless it is clearly busier than the least busy.
    /// The kernel spreads by hash, which is even for many sessions and uneven for a few long ones.
    pub fn least_busy(&self) -> usize {
        let load = |id: usize| self.plane.workers[id].sessions.load(Relaxed);
        let Some(least) = (0..self.all.len()).min_by_key(|id| load(*id)) else { return self.id };
        let (mine, theirs) = (load(self.id), load(least));
        if mine > theirs + 1 + theirs / 4 { least } else { self.id }
    }

    /// Hands an accepted session to another worker, or gives it back if that one is too busy to listen.
    pub fn hand_over(&self, to: usize, arrival: Arrival) -> Result<(), Arrival> {
        self.all[to].try_send(Command::Adopt(arrival)).map_err(|error| match error.into_inner() {
            Command::Adopt(arrival) => arrival,
            _ => unreachable!("what comes back is what was sent"),
        })
    }
}

/// A descriptor held for the day there are none left.
pub struct Reserve(Option<OwnedFd>);

impl Reserve {
    fn new() -> Reserve {
        let mut reserve = Reserve(None);
        reserve.renew();
        reserve
    }

    /// Frees the descriptor; says whether there was one.
    pub fn spend(&mut self) -> bool {
        self.0.take().is_some()
    }

    pub fn renew(&mut self) {
        self.0 = std::fs::File::open("/dev/null").ok().map(OwnedFd::from);
    }
}
