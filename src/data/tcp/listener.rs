//! Accepting: one task per listening socket of this worker. It accepts a few sockets per wake-up, counts and paces
//! errors, and takes a place in the process's limit before accept(), so that at the limit clients wait in the accept
//! queue.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};

use super::ending;
use super::life;
use super::mailbox::Arrival;
use super::options::listening;
use super::place::Place;
use super::worker::Worker;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::record::{CloseReason, Stage};
use crate::border::snapshot::Listener;
use crate::config::{self, OnRefuse};
use crate::data::admit;
use crate::data::limits::GatePermit;
use crate::sys::clock::Moment;
use crate::sys::socket;

/// More at once starves the open sessions (measured by others: 4 beats 64 by a quarter).
const BATCH: usize = 4;

/// The most that is accepted from a socket that is being closed: clients may come faster than the queue empties.
const QUEUE: usize = 65_536;

/// Time for a handshake that began before its socket was to close.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How long accepting pauses when the process has no descriptors or memory left.
const REST: Duration = Duration::from_millis(100);

/// The worker's handle on one accepting task.
pub struct Acceptor {
    shared: Rc<Shared>,
}

struct Shared {
    /// The listener of the snapshot to which this socket belongs, as its options are set; a reload may change it.
    config: RefCell<Arc<config::Listener>>,
    socket: AsyncFd<OwnedFd>,
    closing: RefCell<Option<mpsc::Sender<()>>>,
    close: Notify,
    /// How long connections under way may take once it is to close.
    linger: Cell<Duration>,
}

impl Acceptor {
    /// From now on the socket serves this listener, with its options.
    pub fn retarget(&self, config: Arc<config::Listener>) {
        let before = self.shared.config.replace(Arc::clone(&config));
        let socket = self.shared.socket.get_ref();
        let freed = match (before.socket_buffers, config.socket_buffers) {
            (Some(_), None) => socket::free_buffers(socket),
            _ => Ok(()),
        };
        if let Err(error) = freed.and_then(|()| socket::listen(socket, &listening(&config))) {
            tracing::error!(listener = &*config.name, %error, "cannot change a listening socket");
        }
    }

    /// Accepts what is in the accept queue, then closes the socket and drops `done`.
    pub fn close(self, done: mpsc::Sender<()>) {
        self.end(done);
    }

    /// The same if another socket of ours has the port now: new clients reach that one, and handshakes that this one
    /// has begun may finish.
    pub fn give_way(self, done: mpsc::Sender<()>) {
        match socket::leave_lookup(self.shared.socket.get_ref()) {
            Ok(()) => self.shared.linger.set(UNDER_WAY),
            // A client in the middle of a handshake connects again.
            Err(error) => tracing::debug!(%error, "a socket takes connections until it is closed"),
        }
        self.end(done);
    }

    fn end(self, done: mpsc::Sender<()>) {
        *self.shared.closing.borrow_mut() = Some(done);
        self.shared.close.notify_one();
    }
}

/// Starts accepting on `socket`, which listens already.
pub fn start(
    worker: &Rc<Worker>,
    config: Arc<config::Listener>,
    socket: OwnedFd,
) -> io::Result<Acceptor> {
    let local = Arc::new(socket::local_addr(&socket));
    let socket = socket::watch(socket)?;
    let shared = Rc::new(Shared {
        config: RefCell::new(config),
        socket,
        closing: RefCell::new(None),
        close: Notify::new(),
        linger: Cell::default(),
    });
    let accepting = Accepting {
        worker: Rc::clone(worker),
        shared: Rc::clone(&shared),
        local,
        last: RefCell::default(),
    };
    // Known from the start, also if a reload removes it before any client came.
    accepting.listener();
    tokio::task::spawn_local(accepting.run());
    Ok(Acceptor { shared })
}

struct Accepting {
    worker: Rc<Worker>,
    shared: Rc<Shared>,
    /// The address that clients dialled, as far as the listening socket knows it.
    local: Arc<LocalAddr>,
    /// The listener as it last was in a snapshot.
    last: RefCell<Option<Arc<Listener>>>,
}

impl Accepting {
    async fn run(self) {
        loop {
            tokio::select! {
                ready = self.shared.socket.readable() => match ready {
                    Ok(mut ready) => ready.retain_ready(),
                    // The runtime is shutting down.
                    Err(_) => return,
                },
                () = self.shared.close.notified() => break,
            }
            let permit = tokio::select! {
                permit = self.worker.plane.gate.enter() => permit,
                () = self.shared.close.notified() => break,
            };
            if self.take(permit) {
                tokio::time::sleep(REST).await;
            }
            // A wake-up accepts a few; others get their turn before the next few.
            tokio::task::yield_now().await;
        }
        self.finish().await;
    }

    /// Everything in the queue is accepted before the socket closes: closing would reset it.
    async fn finish(self) {
        let mut rounds = 0;
        let linger = tokio::time::sleep(self.shared.linger.get());
        let mut linger = pin!(linger);
        while rounds < QUEUE / BATCH {
            if !self.queued() {
                tokio::select! {
                    biased;
                    ready = self.shared.socket.readable() => match ready {
                        // Only accepting tells whether the queue is empty, and accepting then forgets the readiness.
                        Ok(mut ready) => ready.retain_ready(),
                        Err(_) => break,
                    },
                    () = &mut linger => break,
                }
            }
            rounds += 1;
            let permit = self.worker.plane.gate.enter().await;
            if self.take(permit) {
                tokio::time::sleep(REST).await;
            }
            tokio::task::yield_now().await;
        }
        let done = self.shared.closing.borrow_mut().take();
        drop(self);
        drop(done);
    }

    fn queued(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(self.shared.socket.get_ref(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// Accepts up to `BATCH` connections; returns whether accepting must pause.
    fn take(&self, first: GatePermit) -> bool {
        let mut permit = Some(first);
        for _ in 0..BATCH {
            let Some(permit) = permit.take().or_else(|| self.worker.plane.gate.try_enter()) else {
                return false;
            };
            // `try_io` forgets the readiness when the queue is empty.
            match self.shared.socket.try_io(Interest::READABLE, |socket| socket::accept(socket)) {
                Ok((socket, client)) => self.arrived(socket, client, permit),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => {
                    if self.failed(&error, permit) {
                        return true;
                    }
                }
            }
        }
        false
    }

    fn listener(&self) -> Option<Arc<Listener>> {
        let snapshot = self.worker.plane.snapshot.load();
        if let Some(now) = snapshot.listeners.get(&*self.shared.config.borrow().name) {
            *self.last.borrow_mut() = Some(Arc::clone(now));
        }
        // Between a swap and the message about it, or while the queue of a removed listener is emptied: as it was.
        self.last.borrow().clone()
    }

    fn arrived(&self, socket: OwnedFd, client: ClientAddr, process: GatePermit) {
        let Some(listener) = self.listener() else {
            // Between a swap and the close of a socket that is no longer used.
            return;
        };
        let now_ns = Moment::now().nanoseconds();
        let admission = match admit::admit(listener, client, now_ns) {
            Ok(admission) => admission,
            Err((listener, reason)) => return self.refuse(&listener, socket, client, reason),
        };
        let home = self.worker.least_busy();
        let place = Place::new(process, &self.worker.plane, home);
        let local = Arc::clone(&self.local);
        let arrival = Arrival { socket, client, local, admission, place };
        if home == self.worker.id {
            return life::start(&self.worker, arrival);
        }
        if let Err(mut arrival) = self.worker.hand_over(home, arrival) {
            arrival.place.move_to(&self.worker.plane, self.worker.id);
            life::start(&self.worker, arrival);
        }
    }

    /// A refusal needs no task: it is recorded here and the socket is closed.
    fn refuse(&self, listener: &Listener, socket: OwnedFd, client: ClientAddr, why: CloseReason) {
        if listener.config.on_refuse == OnRefuse::Reset {
            socket::reset_on_close(&socket);
        } else {
            socket::end_politely(&socket, &mut self.worker.scratch.borrow_mut());
        }
        // The listening socket may be a wildcard; the log needs the address that the client dialled.
        let is_logged = self.worker.plane.session_log.wants(why);
        let local = if is_logged { socket::local_addr(&socket) } else { *self.local };
        drop(socket);
        ending::record_refusal(&self.worker, listener, client, local, Stage::Admit, why);
    }

    /// Counts an accept error; returns whether accepting must pause before the next try.
    fn failed(&self, error: &io::Error, permit: GatePermit) -> bool {
        let errors = &self.worker.plane.accept_errors;
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => {
                errors.no_descriptors.add(1);
                self.refuse_with_reserve();
                drop(permit);
                true
            }
            Some(libc::ENOBUFS | libc::ENOMEM) => {
                errors.no_memory.add(1);
                true
            }
            Some(libc::ECONNABORTED | libc::EPROTO) => {
                errors.aborted.add(1);
                false
            }
            Some(libc::EINTR) => false,
            _ => {
                errors.other.add(1);
                true
            }
        }
    }

    /// No descriptors are left: the reserved one is used for a moment to refuse one client, instead of letting it
    /// hang.
    fn refuse_with_reserve(&self) {
        if !self.worker.reserve.borrow_mut().spend() {
            return;
        }
        if let Ok((socket, client)) = socket::accept(self.shared.socket.get_ref()) {
            match self.listener() {
                Some(listener) => {
                    self.refuse(&listener, socket, client, CloseReason::NoDescriptors);
                }
                None => drop(socket),
            }
        }
        self.worker.reserve.borrow_mut().renew();
    }
}
