//! The lines that discovery writes to the log, but not too many: a DNS server that stops answering affects thousands
//! of names.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::events::{EventKind, Events};

/// This many lines in this time; the metrics count all failures.
const MOST: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);

/// Of one thread.
pub struct News {
    events: Arc<Events>,
    begun: Cell<Option<Instant>>,
    said: Cell<u32>,
}

impl News {
    pub fn new(events: Arc<Events>) -> News {
        News { events, begun: Cell::new(None), said: Cell::new(0) }
    }

    pub fn note(&self, message: String) {
        if self.may_say() {
            self.events.note(EventKind::Discovery, message);
        }
    }

    pub fn warn(&self, message: String) {
        if self.may_say() {
            self.events.warn(EventKind::Discovery, message);
        }
    }

    fn may_say(&self) -> bool {
        if self.begun.get().is_none_or(|begun| begun.elapsed() > WINDOW) {
            self.begun.set(Some(Instant::now()));
            self.said.set(0);
        }
        self.said.set(self.said.get() + 1);
        if self.said.get() == MOST + 1 {
            let what = "there are more such failures; maitred_discovery_failures_total counts them";
            self.events.warn(EventKind::Discovery, what.to_owned());
        }
        self.said.get() <= MOST
    }
}
