//! One worker's UDP thread: a packet loop over its doors and its flows' sockets. Sockets with datagrams are read in
//! turns, a bounded share each, so that no client and no backend can delay the others.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use tokio::sync::{mpsc, oneshot};

use super::door::Door;
use super::flow_table::FlowId;
use super::flows::{Flows, widen};
use super::loops::Answerers;
use super::source_ports::SourcePorts;
use crate::border::addr::{ListenAddr, LocalAddr, canonical};
use crate::border::plane::{Cut, Part, Plane, SessionFilter};
use crate::border::record::{CloseReason, Stage};
use crate::border::snapshot::Listener;
use crate::sys::clock::{self, Moment};
use crate::sys::datagram::{self, Inbox};
use crate::sys::socket;

/// Events per poll; more come with the next.
const EVENTS: usize = 1024;

/// Batches read from a door per turn.
const BATCHES: usize = 4;

/// Expired flows ended per turn, and as many of those that were cut.
const EXPIRIES: usize = 1024;

/// The most batches that are read from a socket that is being closed.
const LAST_BATCHES: usize = 1024;

const WAKE: Token = Token(usize::MAX);

/// Commands of the supervisor to the thread. The queue has no bound of its own: only the control plane sends, at most
/// once for each backend that changes state and each reload.
pub enum Command {
    /// Flows that wait for an answer from these backends, which are down, ask another one.
    AskOthers(SessionFilter),
    /// Flows to end, for a reason.
    Cut(Cut),
    /// No new client from here on; open flows may finish.
    Drain,
    /// Open flows in some seats, from this one on.
    List(SessionFilter, usize, oneshot::Sender<Part>),
    /// Receive on these sockets, which are open already.
    Listen(Vec<(ListenAddr, Arc<Listener>, OwnedFd)>),
    /// A new snapshot: which listeners these addresses belong to now, and which sources are never served.
    Renew(Vec<(ListenAddr, Arc<Listener>)>, Arc<Answerers>),
    /// End the thread; open flows are cut.
    Stop,
    /// Read what is queued, then close; the flows there end. The sender is dropped when that is done.
    Unlisten(Vec<ListenAddr>, mpsc::Sender<()>),
}

/// The sender to one worker's UDP thread.
#[derive(Clone)]
pub struct Mailbox {
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

/// The thread's end of it.
pub struct Mail {
    commands: Receiver<Command>,
    poll: Poll,
}

/// A mailbox and its other end.
pub fn mailbox() -> io::Result<(Mailbox, Mail)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
    let (sender, commands) = channel();
    Ok((Mailbox { commands: sender, waker }, Mail { commands, poll }))
}

impl Mailbox {
    /// Fails only if the thread has ended.
    pub fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok() && self.waker.wake().is_ok()
    }
}

/// A socket with something to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Door(u32),
    Flow(u32),
}

impl Source {
    fn token(self) -> Token {
        match self {
            Source::Door(index) => Token(widen(index) << 1 | 1),
            Source::Flow(index) => Token(widen(index) << 1),
        }
    }

    fn of(token: Token) -> Option<Source> {
        let index = u32::try_from(token.0 >> 1).ok()?;
        Some(if token.0 & 1 == 1 { Source::Door(index) } else { Source::Flow(index) })
    }
}

/// The sockets to read again in the next turn: each once, however often the kernel reports it meanwhile, so that a
/// socket with very much to read gets no more turns than others.
#[derive(Default)]
struct Unfinished {
    queue: VecDeque<Source>,
    /// Whether it is in the queue; by token.
    waits: Vec<bool>,
}

impl Unfinished {
    fn push(&mut self, source: Source) {
        let Token(place) = source.token();
        if self.waits.len() <= place {
            self.waits.resize(place + 1, false);
        }
        if !std::mem::replace(&mut self.waits[place], true) {
            self.queue.push_back(source);
        }
    }

    fn pop(&mut self) -> Option<Source> {
        let source = self.queue.pop_front()?;
        self.waits[source.token().0] = false;
        Some(source)
    }

    fn contains(&self, source: Source) -> bool {
        self.waits.get(source.token().0).is_some_and(|waits| *waits)
    }
}

struct Worker {
    mail: Mail,
    inbox: Inbox,
    flows: Flows,
    /// Read in part, and perhaps not empty: the kernel reports a socket once.
    unfinished: Unfinished,
    /// The flow whose turn it is: if it panics, this flow is to blame.
    current: Option<FlowId>,
    last_event_ns: Option<u64>,
}

/// Runs the UDP side of worker `id` on this thread until it is told to stop.
pub fn run(
    id: usize,
    plane: Arc<Plane>,
    source_ports: Arc<SourcePorts>,
    mail: Mail,
) -> io::Result<()> {
    let mut worker = Worker {
        mail,
        inbox: Inbox::default(),
        flows: Flows::new(id, plane, source_ports),
        unfinished: Unfinished::default(),
        current: None,
        last_event_ns: None,
    };
    let outcome = worker.run();
    worker.flows.stop();
    outcome
}

impl Worker {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.mail.poll.poll(&mut events, self.wait()) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            let begun = Moment::now();
            self.flows.now_ms = clock::coarse_ms();
            self.flows.now_ns = begun.nanoseconds();
            if !events.is_empty() {
                self.last_event_ns = Some(self.flows.now_ns);
            }
            // Commands first: they apply to every datagram that was sent after them.
            if events.iter().any(|event| event.token() == WAKE) && !self.obey_all() {
                return Ok(());
            }
            // Then the sockets that waited since the turn before.
            let waiting = self.unfinished.queue.len();
            for _ in 0..waiting {
                if let Some(source) = self.unfinished.pop() {
                    self.guarded(source);
                }
            }
            for event in &events {
                if let Some(source) = Source::of(event.token())
                    && !self.unfinished.contains(source)
                {
                    self.guarded(source);
                }
            }
            self.flows.expire(EXPIRIES);
            self.flows.end_doomed(EXPIRIES);
            let busy = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.flows.plane.workers[self.flows.worker].udp_busy.add(busy);
        }
    }

    fn wait(&self) -> Option<Duration> {
        let has_work = !self.unfinished.queue.is_empty() || !self.flows.doomed.is_empty();
        if has_work || self.is_spinning() {
            return Some(Duration::ZERO);
        }
        let deadline = self.flows.table.next_deadline_ms()?;
        Some(Duration::from_millis(deadline.saturating_sub(clock::coarse_ms())))
    }

    /// `process.busy_poll`: for this time after the last event the kernel is polled instead of waited for.
    fn is_spinning(&self) -> bool {
        let busy_poll = self.flows.plane.busy_poll_ns.load(Relaxed);
        busy_poll > 0
            && self
                .last_event_ns
                .is_some_and(|last| Moment::now().nanoseconds().saturating_sub(last) < busy_poll)
    }

    /// A fault in one flow must not end the others.
    fn guarded(&mut self, source: Source) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.read(source)));
        if outcome.is_err() {
            tracing::error!(?source, "a turn of the packet loop panicked");
            self.flows.shares = Vec::new();
            if let Some(id) = self.current.take() {
                self.flows.end(id, Stage::Relay, CloseReason::Internal);
            }
        }
        self.watch_fresh();
    }

    fn read(&mut self, source: Source) {
        self.current = None;
        let has_more = match source {
            Source::Door(index) => {
                (0..BATCHES).all(|_| self.flows.from_clients(&mut self.inbox, index))
            }
            Source::Flow(index) => match self.flows.table.at_index(index) {
                Some(id) => {
                    self.current = Some(id);
                    self.flows.from_backend(&mut self.inbox, id)
                }
                // An event of a flow that ended meanwhile.
                None => false,
            },
        };
        if has_more {
            self.unfinished.push(source);
        }
    }

    /// Asks the kernel to report when the sockets of new flows have something to read; it reports at once what they
    /// have already.
    fn watch_fresh(&mut self) {
        while let Some(id) = self.flows.fresh.pop() {
            let Some((_, link)) = self.flows.table.get(id) else { continue };
            let token = Source::Flow(id.index).token();
            let watched = watch(&self.mail.poll, &link.socket, token);
            if let Err(error) = watched {
                // Not at a higher level: clients can cause it. It is counted.
                tracing::debug!(%error, "cannot watch a flow's socket");
                self.flows.end(id, Stage::Connect, CloseReason::NoDescriptors);
            }
        }
    }

    /// Returns whether to go on.
    fn obey_all(&mut self) -> bool {
        while let Ok(command) = self.mail.commands.try_recv() {
            match command {
                Command::Stop => return false,
                command => {
                    let outcome = catch_unwind(AssertUnwindSafe(|| self.obey(command)));
                    if outcome.is_err() {
                        tracing::error!("an order to the packet loop panicked");
                    }
                }
            }
        }
        true
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::AskOthers(filter) => {
                self.flows.ask_others(&filter);
                self.watch_fresh();
            }
            Command::Cut(cut) => self.flows.cut(&cut),
            Command::Drain => self.flows.is_draining = true,
            Command::List(filter, from, answer) => {
                // A reader that has left needs no answer.
                let _ = answer.send(self.flows.list(&filter, from));
            }
            Command::Listen(sockets) => {
                for (address, listener, socket) in sockets {
                    let name = Arc::clone(&listener.config.name);
                    if let Err(error) = self.listen(address, listener, socket) {
                        tracing::error!(listener = &*name, %error, "cannot receive on a socket");
                    }
                }
            }
            Command::Renew(addresses, answerers) => {
                self.flows.answerers = answerers;
                let listeners: HashMap<ListenAddr, Arc<Listener>> = addresses.into_iter().collect();
                for (_, door) in &mut self.flows.doors {
                    if let Some(listener) = listeners.get(&door.address) {
                        door.listener = Arc::clone(listener);
                    }
                }
            }
            Command::Stop => {}
            Command::Unlisten(addresses, done) => {
                self.unlisten(&addresses.into_iter().collect());
                drop(done);
            }
        }
    }

    fn listen(
        &mut self,
        address: ListenAddr,
        listener: Arc<Listener>,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let LocalAddr::Inet(local) = socket::local_addr(&socket) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let entry = self.flows.doors.vacant_entry();
        let index = u32::try_from(entry.key()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        watch(&self.mail.poll, &socket, Source::Door(index).token())?;
        entry.insert(Door::new(socket, address, canonical(local), listener));
        Ok(())
    }

    fn unlisten(&mut self, addresses: &HashSet<ListenAddr>) {
        let doors = self.flows.doors.iter();
        let doors = doors.filter(|(_, door)| addresses.contains(&door.address));
        let doors: Vec<usize> = doors.map(|(index, _)| index).collect();
        for door in &doors {
            let Ok(index) = u32::try_from(*door) else { continue };
            // Another socket of ours may have the port now, and must be found instead.
            let socket = &self.flows.doors[*door].socket;
            if let Err(error) = socket::leave_lookup(socket).or_else(|_| datagram::shut(socket)) {
                tracing::debug!(%error, "a socket that is being closed still receives");
            }
            for _ in 0..LAST_BATCHES {
                if !self.flows.from_clients(&mut self.inbox, index) {
                    break;
                }
            }
        }
        self.flows.fresh.clear();
        self.flows.close(&doors);
    }
}

fn watch(poll: &Poll, socket: &OwnedFd, token: Token) -> io::Result<()> {
    let mut source = SourceFd(&socket.as_raw_fd());
    match poll.registry().register(&mut source, token, Interest::READABLE) {
        // A flow that began and moved in the same batch is in the list of new flows twice.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_waits_for_one_turn_however_often_the_kernel_tells_of_it() {
        let mut unfinished = Unfinished::default();
        let (door, flow) = (Source::Door(0), Source::Flow(7));
        for source in [door, flow, door, flow, door] {
            unfinished.push(source);
        }
        assert!(unfinished.contains(door) && unfinished.contains(flow));
        assert!(!unfinished.contains(Source::Flow(0)) && !unfinished.contains(Source::Door(7)));
        assert_eq!(
            [unfinished.pop(), unfinished.pop(), unfinished.pop()],
            [Some(door), Some(flow), None]
        );
        assert!(!unfinished.contains(door) && !unfinished.contains(flow));
    }
}
