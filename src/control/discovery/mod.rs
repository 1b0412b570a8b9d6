//! Finds backends by name: asks, asks again in time, and keeps the answers until they are fetched. The supervisor
//! applies them. It runs on a thread of its own, so that nothing else waits for DNS; the thread starts with the first
//! name. `file_watch` checks files of backends.
//!
//! ```text
//!   Snapshot ──▶ which questions ──▶ a task for each:  ask (dns, servers) ──▶ answer ──▶ Board ──▶ supervisor
//!                                        ▲                    │ failed: what was found stays
//!                                        └── schedule ◀───────┘
//! ```

pub mod schedule;
pub mod answer;
mod system;
mod exchange;
pub mod servers;
pub mod dns;
mod news;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;

use crate::border::snapshot::Snapshot;
use crate::config::{Answer, Answers, Config, Origin, Question};
use crate::data::pool::Shared;
use crate::data::pool::finding::{Failure, Reason};
use crate::sys::blocking;
use crate::telemetry::events::Events;
use news::News;
use servers::Book;

/// For one answer, with all its queries.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Questions that are open at once. Each takes two descriptors, more for hosts of services, from those kept back; a
/// question that gets none is asked again.
const IN_FLIGHT: usize = 16;

/// Answers that arrive together are handed on together.
const GATHER: Duration = Duration::from_millis(100);

/// Outcomes by question; `None`: there was no answer.
pub type Outcomes = HashMap<Question, Option<Arc<Answer>>>;

/// Answers that were not fetched yet: the newest of each question.
#[derive(Default)]
struct Board {
    /// And when the first of them arrived. Held for a store or a swap, never across an await.
    outcomes: Mutex<(Outcomes, Option<Instant>)>,
    changed: Notify,
}

/// The handle; dropping it ends the thread.
pub struct Discovery {
    events: Arc<Events>,
    board: Arc<Board>,
    /// Only the newest counts, so nothing queues up.
    wanted: Option<watch::Sender<Wanted>>,
    thread: Option<JoinHandle<()>>,
}

/// What to ask, and for which pools.
type Wanted = Arc<BTreeMap<Question, Want>>;

#[derive(Clone)]
struct Want {
    refresh: BTreeSet<Option<Duration>>,
    /// The pools that need the answer.
    pools: Vec<(Arc<str>, Arc<Shared>)>,
    /// The last answer is in force, or was handed over.
    is_known: bool,
}

impl Discovery {
    pub fn new(events: Arc<Events>) -> Discovery {
        Discovery { events, board: Arc::default(), wanted: None, thread: None }
    }

    /// Asks for what this snapshot needs; `answers` are known already. Questions that it had before go on
    /// undisturbed.
    pub fn apply(&self, snapshot: &Snapshot, answers: &Answers) {
        if let Some(sender) = &self.wanted {
            sender.send_replace(Arc::new(wanted(snapshot, answers)));
        }
    }

    /// Starts the thread if `config` needs it and it does not run yet.
    pub fn start(&mut self, config: &Config) -> io::Result<()> {
        if self.wanted.is_some() || config.questions().next().is_none() {
            return Ok(());
        }
        let (sender, newest) = watch::channel(Wanted::default());
        let board = Arc::clone(&self.board);
        let news = News::new(Arc::clone(&self.events));
        self.thread = Some(blocking::event_loop("discovery", move |runtime| {
            runtime.block_on(run(newest, board, news));
        })?);
        self.wanted = Some(sender);
        Ok(())
    }

    /// The answers since the last call, if there are any.
    fn take(&self) -> Outcomes {
        std::mem::take(&mut *self.board.outcomes()).0
    }

    /// The same, but waits until there is an answer, and for others that arrive with it. May be dropped while it
    /// waits, however often: that delays nothing.
    pub async fn next(&self) -> Outcomes {
        loop {
            let changed = self.board.changed.notified();
            let first = self.board.outcomes().1;
            if let Some(first) = first {
                // Answers that arrive together are one change and not many.
                tokio::time::sleep_until((first + GATHER).into()).await;
                return self.take();
            }
            changed.await;
        }
    }

    /// Asks nothing more.
    pub fn stop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("discovery panicked");
        }
    }
}

impl Board {
    fn put(&self, question: &Question, outcome: Option<Arc<Answer>>) {
        let mut board = self.outcomes();
        // An answer that was not fetched yet is not lost because of a later failure.
        if outcome.is_some() || !board.0.contains_key(question) {
            board.0.insert(question.clone(), outcome);
        }
        board.1.get_or_insert_with(Instant::now);
        drop(board);
        self.changed.notify_one();
    }

    fn outcomes(&self) -> MutexGuard<'_, (Outcomes, Option<Instant>)> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted(snapshot: &Snapshot, answers: &Answers) -> BTreeMap<Question, Want> {
    let mut wanted: BTreeMap<Question, Want> = BTreeMap::new();
    for pool in snapshot.pools.values() {
        for finder in pool.config.finders() {
            let Origin::Dns(question) = &finder.origin else { continue };
            let want = wanted.entry(question.clone()).or_insert_with(|| Want {
                refresh: BTreeSet::new(),
                pools: Vec::new(),
                is_known: answers.contains_key(&finder.origin),
            });
            want.refresh.insert(finder.refresh);
            if want.pools.last().is_none_or(|(name, _)| *name != pool.name) {
                want.pools.push((Arc::clone(&pool.name), Arc::clone(&pool.shared)));
            }
        }
    }
    wanted
}

/// What the tasks share.
struct Asker {
    book: RefCell<Book>,
    permits: Semaphore,
    board: Arc<Board>,
    news: News,
}

/// A running task; it stops when this is dropped.
struct Task {
    state: Rc<RefCell<State>>,
    handle: AbortHandle,
}

struct State {
    want: Want,
    /// And when it arrived, or was confirmed.
    last: Option<(Arc<Answer>, SystemTime)>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

async fn run(mut newest: watch::Receiver<Wanted>, board: Arc<Board>, news: News) {
    let asker = Rc::new(Asker {
        book: RefCell::default(),
        permits: Semaphore::new(IN_FLIGHT),
        board,
        news,
    });
    let mut tasks: BTreeMap<Question, Task> = BTreeMap::new();
    while newest.changed().await.is_ok() {
        let wanted = Arc::clone(&newest.borrow_and_update());
        let mut before = std::mem::take(&mut tasks);
        for (question, want) in wanted.iter() {
            let task = asker.task(question, want.clone(), before.remove(question));
            tasks.insert(question.clone(), task);
        }
        // Tasks that are left over stop here.
        drop(before);
        let is_named = |servers: &[_]| wanted.keys().any(|question| question.servers == servers);
        asker.book.borrow_mut().retain(is_named);
    }
}

impl Asker {
    /// Keeps the tasks of known questions, unless their schedule has changed.
    fn task(self: &Rc<Self>, question: &Question, want: Want, before: Option<Task>) -> Task {
        let last = before.as_ref().and_then(|task| task.state.borrow().last.clone());
        if let Some((answer, then)) = &last {
            // A pool that joins gets what the others have. What was forgotten because no pool needed it for a moment
            // is reported once more.
            let origin = Origin::Dns(question.clone());
            want.pools.iter().for_each(|(_, shared)| shared.finding.joins(&origin, *then));
            if !want.is_known {
                self.board.put(question, Some(Arc::clone(answer)));
            }
        }
        match before {
            Some(task) if task.state.borrow().want.refresh == want.refresh => {
                task.state.borrow_mut().want = want;
                task
            }
            _ => {
                let state = Rc::new(RefCell::new(State { want, last }));
                let attended = attend(Rc::clone(self), question.clone(), Rc::clone(&state));
                let handle = tokio::task::spawn_local(attended).abort_handle();
                Task { state, handle }
            }
        }
    }
}

/// Asks the same question for ever.
async fn attend(asker: Rc<Asker>, question: Question, state: Rc<RefCell<State>>) {
    let origin = Origin::Dns(question.clone());
    let mut failures = 0;
    loop {
        let last = state.borrow().last.clone().map(|(answer, _)| answer);
        let outcome = asker.ask(&question, last.as_deref()).await;
        let now = SystemTime::now();
        let pools = state.borrow().want.pools.clone();
        let pause = match outcome {
            Ok(found) => {
                failures = 0;
                for (pool, shared) in &pools {
                    if let Some(flaw) = &found.flaw {
                        shared.finding.count(flaw);
                    }
                    if shared.finding.succeeded(&origin, now).is_some() {
                        asker.news.note(format!("{pool}: {origin} is found again"));
                    }
                }
                let same = last.filter(|last| **last == found.answer);
                let answer = same.unwrap_or_else(|| {
                    let answer = Arc::new(found.answer);
                    asker.board.put(&question, Some(Arc::clone(&answer)));
                    answer
                });
                state.borrow_mut().last = Some((answer, now));
                schedule::after_success(found.ttl, &state.borrow().want.refresh, fastrand::f64())
            }
            Err(failure) => {
                failures += 1;
                for (pool, shared) in &pools {
                    if shared.finding.failed(&origin, &failure, now) {
                        asker.news.warn(told(pool, &origin, &failure));
                    }
                }
                if failures == 1 {
                    asker.board.put(&question, None);
                }
                schedule::after_failure(failures, fastrand::f64())
            }
        };
        // Until the answer expires, or it is time to try again.
        tokio::time::sleep(pause).await;
    }
}

fn told(pool: &str, origin: &Origin, failure: &Failure) -> String {
    let Failure { reason, why } = failure;
    format!(
        "{pool}: {origin}: {} ({why}); the last good answer, if there was one, stays",
        reason.as_str()
    )
}

impl Asker {
    async fn ask(
        &self,
        question: &Question,
        before: Option<&Answer>,
    ) -> Result<dns::Found, Failure> {
        let _permit = self.permits.acquire().await;
        let servers = self.book.borrow_mut().servers(&question.servers);
        let asked = tokio::time::timeout(PATIENCE, dns::ask(servers, question, before)).await;
        asked.unwrap_or_else(|_| {
            let why = format!("no answer in {} s", PATIENCE.as_secs());
            Err(Failure { reason: Reason::Timeout, why })
        })
    }
}
