//! One worker: an OS thread with its own runtime, listening sockets, scratch buffer and pipes. A session
//! lives and dies here. The supervisor and the other workers speak to it through commands only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::LocalRuntime;
use tokio::sync::{mpsc, oneshot};

use super::listener::{self, Acceptor};
use super::session::{self, Arrival, Session};
use super::source_ports::SourcePorts;
use super::spin::{self, Spin};
use crate::border::addr::ListenAddr;
use crate::border::plane::{Cut, Part, Plane, SEATS, SessionFilter, WorkerLoad};
use crate::border::record::CloseReason;
use crate::border::snapshot::Listener;
use crate::config;
use crate::sys::pipe::PipeStock;

/// What small messages pass through; stays in the cache because all sessions of the worker share it.
pub const SCRATCH: usize = 64 * 1024;

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
    arrivals: mpsc::Sender<Arrival>,
    commands: mpsc::UnboundedSender<Command>,
}

/// The worker's end of its mailbox.
pub struct Mail {
    arrivals: mpsc::Receiver<Arrival>,
    commands: mpsc::UnboundedReceiver<Command>,
}

pub struct Worker {
    pub id: usize,
    pub plane: Arc<Plane>,
    pub source_ports: Arc<SourcePorts>,
    pub scratch: RefCell<Box<[u8]>>,
    pub pipes: RefCell<PipeStock>,
    pub sessions: RefCell<Roster>,
    /// Spent for a moment when there are no descriptors left, to refuse a client instead of hanging it.
    pub reserve: RefCell<Reserve>,
    pub spin: Spin,
    all: Box<[Mailbox]>,
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

/// A worker's share of what the process has.
#[derive(Clone)]
pub struct Share {
    /// Pipes it may have lent out at once.
    pub pipes: usize,
    /// Common to all workers.
    pub source_ports: Arc<SourcePorts>,
}

/// Runs worker `id` on this thread until it is told to stop.
pub fn run(
    runtime: &LocalRuntime,
    id: usize,
    plane: Arc<Plane>,
    all: Box<[Mailbox]>,
    mut mail: Mail,
    share: Share,
) {
    plane.workers[id].set_metrics(runtime.metrics());
    let worker = Rc::new(Worker {
        id,
        plane,
        source_ports: share.source_ports,
        scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
        pipes: RefCell::new(PipeStock::new(share.pipes)),
        sessions: RefCell::default(),
        reserve: RefCell::new(Reserve::new()),
        spin: Spin::default(),
        all,
    });
    runtime.block_on(async {
        let mut acceptors: HashMap<ListenAddr, Acceptor> = HashMap::new();
        tokio::task::spawn_local(spin::run(Rc::clone(&worker)));
        loop {
            tokio::select! {
                Some(arrival) = mail.arrivals.recv() => session::start(&worker, arrival),
                command = mail.commands.recv() => match command {
                    Some(Command::Stop) | None => break,
                    Some(command) => worker.obey(command, &mut acceptors),
                },
            }
        }
    });
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command, acceptors: &mut HashMap<ListenAddr, Acceptor>) {
        match command {
            Command::Cut(cut) => self.cut(&cut),
            Command::GiveWay(addresses, done) => {
                let gone = addresses.iter().filter_map(|address| acceptors.remove(address));
                gone.for_each(|acceptor| acceptor.give_way(done.clone()));
            }
            Command::List(filter, from, answer) => {
                // A reader that went away wants no answer.
                let _ = answer.send(self.list(&filter, from));
            }
            Command::Listen(sockets) => {
                for (address, config, socket) in sockets {
                    match listener::start(self, config, socket) {
                        Ok(acceptor) => drop(acceptors.insert(address, acceptor)),
                        Err(error) => tracing::error!(%address, %error, "cannot watch a socket"),
                    }
                }
            }
            Command::LookAgain(listeners) => {
                tokio::task::spawn_local(look_again(Rc::clone(self), listeners));
            }
            Command::Retarget(addresses) => {
                for (address, config) in addresses {
                    if let Some(acceptor) = acceptors.get(&address) {
                        acceptor.retarget(config);
                    }
                }
            }
            Command::Stop => {}
            Command::Unlisten(addresses, done) => {
                let gone = addresses.iter().filter_map(|address| acceptors.remove(address));
                gone.for_each(|acceptor| acceptor.close(done.clone()));
            }
        }
    }

    fn cut(&self, cut: &Cut) {
        // Cutting wakes, it does not run the session: the table is not changed under the iterator.
        let mut count = 0;
        for session in self.sessions.borrow().present() {
            if session.matches(&cut.filter) {
                session.cut(cut.reason);
                count += 1;
            }
        }
        cut.counted(count);
    }

    fn list(&self, filter: &SessionFilter, from: usize) -> Part {
        let sessions = self.sessions.borrow();
        let Some(row) = sessions.rows.get(from / SEATS) else { return Part::default() };
        let wanted = row.iter().flatten().filter(|session| session.matches(filter));
        Part { rows: wanted.map(|session| session.row()).collect(), next: Some(from + SEATS) }
    }

    /// Cuts those of some seats who may not come in any more; says whether there are more seats.
    fn look_again(&self, listeners: &[Arc<Listener>], from: usize) -> bool {
        let sessions = self.sessions.borrow();
        let Some(row) = sessions.rows.get(from / SEATS) else { return false };
        for session in row.iter().flatten() {
            let is_now = |now: &&Arc<Listener>| *now.config.name == *session.listener_name();
            if let Some(now) = listeners.iter().find(is_now)
                && !session.may_stay(now)
            {
                session.cut(CloseReason::Denied);
            }
        }
        true
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
        self.all[to].arrivals.try_send(arrival).map_err(|error| error.into_inner())
    }
}

/// The open sessions of a worker: eight bytes each, in rows that never move, for there may be very many.
#[derive(Default)]
pub struct Roster {
    // Boxed although a Vec is on the heap: a growing Vec would copy, and leave its old self behind.
    #[allow(clippy::vec_box)]
    rows: Vec<Box<[Option<Rc<Session>>; ROW]>>,
    free: Vec<u32>,
}

/// Seats of one row of the roster.
const ROW: usize = SEATS;

impl Roster {
    /// Answers the seat, to be given up with `leave`.
    pub fn enter(&mut self, session: Rc<Session>) -> u32 {
        if self.free.is_empty() {
            let first = self.rows.len() * ROW;
            self.rows.push(Box::new(std::array::from_fn(|_| None)));
            let seats = first..first + ROW;
            // Lowest on top, so that the roster stays as short as it can.
            self.free.extend(seats.rev().map(|seat| {
                u32::try_from(seat).expect("descriptors run out long before 2^32 sessions")
            }));
        }
        let seat = self.free.pop().expect("a row was added if there was none");
        *self.at(seat) = Some(session);
        seat
    }

    pub fn leave(&mut self, seat: u32) {
        *self.at(seat) = None;
        self.free.push(seat);
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.rows.len() * ROW
    }

    pub fn present(&self) -> impl Iterator<Item = &Rc<Session>> {
        self.rows.iter().flat_map(|row| row.iter()).flatten()
    }

    fn at(&mut self, seat: u32) -> &mut Option<Rc<Session>> {
        let seat = seat as usize;
        &mut self.rows[seat / ROW][seat % ROW]
    }
}

/// Some seats at a time, so that nobody waits for the others. Who comes meanwhile is looked at as it comes.
async fn look_again(worker: Rc<Worker>, listeners: Vec<Arc<Listener>>) {
    let mut from = 0;
    while worker.look_again(&listeners, from) {
        from += SEATS;
        tokio::task::yield_now().await;
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
