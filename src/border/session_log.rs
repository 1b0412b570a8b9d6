//! The session log: one line per Record, written by a thread of its own. The data plane never waits for it; lines
//! that do not fit are dropped and counted.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};

use super::counters::SharedCounter;
use super::record::{CloseReason, Record};
use crate::config;

/// Lines that wait for a slow reader of our output.
const QUEUE: usize = 4096;

pub struct SessionLog {
    which: AtomicU8,
    queue: SyncSender<Record>,
    pub dropped: SharedCounter,
}

impl SessionLog {
    /// Starts the writing thread; `write` is called there, in order.
    pub fn start(
        which: config::SessionLog,
        write: impl Fn(Record) + Send + 'static,
    ) -> std::io::Result<SessionLog> {
        let (queue, records) = sync_channel::<Record>(QUEUE);
        std::thread::Builder::new().name("session-log".into()).spawn(move || {
            for record in records {
                write(record);
            }
        })?;
        let log = SessionLog { which: AtomicU8::new(0), queue, dropped: SharedCounter::default() };
        log.set(which);
        Ok(log)
    }

    pub fn set(&self, which: config::SessionLog) {
        self.which.store(which as u8, Relaxed);
    }

    /// Whether an ending with this reason is logged; asked before a Record is made.
    pub fn wants(&self, reason: CloseReason) -> bool {
        let which = self.which.load(Relaxed);
        which == config::SessionLog::All as u8
            || (which == config::SessionLog::Failures as u8 && reason.is_failure())
    }

    /// Whether anything is logged at all.
    pub fn is_on(&self) -> bool {
        self.which.load(Relaxed) != config::SessionLog::None as u8
    }

    pub fn write(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.dropped.add(1);
        }
    }
}
