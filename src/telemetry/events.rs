//! The last events: health transitions, reloads, drains. A bounded ring for API and page; each event is also logged.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

/// How many events are kept.
const KEPT: usize = 256;

#[derive(Clone, Debug)]
pub struct Event {
    pub time: SystemTime,
    pub kind: EventKind,
    pub pool: Option<String>,
    pub backend: Option<String>,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Backend,
    Discovery,
    Drain,
    Kill,
    Reload,
    Start,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Backend => "backend",
            EventKind::Discovery => "discovery",
            EventKind::Drain => "drain",
            EventKind::Kill => "kill",
            EventKind::Reload => "reload",
            EventKind::Start => "start",
        }
    }
}

/// A std lock: held for a push or a copy, never across an await.
#[derive(Default)]
pub struct Events(Mutex<VecDeque<Event>>);

impl Events {
    pub fn note(&self, kind: EventKind, message: String) {
        tracing::info!(kind = kind.as_str(), "{message}");
        self.push(Event { time: SystemTime::now(), kind, pool: None, backend: None, message });
    }

    /// The same for events that an operator should look at.
    pub fn warn(&self, kind: EventKind, message: String) {
        tracing::warn!(kind = kind.as_str(), "{message}");
        self.push(Event { time: SystemTime::now(), kind, pool: None, backend: None, message });
    }

    /// About what discovery found for a pool.
    pub fn note_pool(&self, pool: &str, message: String) {
        tracing::info!(kind = "discovery", pool, "{message}");
        let (kind, pool) = (EventKind::Discovery, Some(pool.into()));
        self.push(Event { time: SystemTime::now(), kind, pool, backend: None, message });
    }

    /// About the backends of a pool.
    pub fn note_backends(&self, pool: &str, message: String) {
        tracing::info!(kind = "backend", pool, "{message}");
        self.push_pool(pool, message);
    }

    /// The same for what an operator must look at.
    pub fn fail_pool(&self, pool: &str, message: String) {
        tracing::error!(kind = "backend", pool, "{message}");
        self.push_pool(pool, message);
    }

    fn push_pool(&self, pool: &str, message: String) {
        let (kind, pool) = (EventKind::Backend, Some(pool.into()));
        self.push(Event { time: SystemTime::now(), kind, pool, backend: None, message });
    }

    pub fn note_backend(&self, pool: &str, backend: &str, message: String) {
        tracing::info!(kind = "backend", pool, backend, "{message}");
        self.push_backend(pool, backend, message);
    }

    /// The same for a backend that was lost.
    pub fn warn_backend(&self, pool: &str, backend: &str, message: String) {
        tracing::warn!(kind = "backend", pool, backend, "{message}");
        self.push_backend(pool, backend, message);
    }

    fn push_backend(&self, pool: &str, backend: &str, message: String) {
        self.push(Event {
            time: SystemTime::now(),
            kind: EventKind::Backend,
            pool: Some(pool.into()),
            backend: Some(backend.into()),
            message,
        });
    }

    fn push(&self, event: Event) {
        let mut ring = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    /// Newest last.
    pub fn all(&self) -> Vec<Event> {
        let ring = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ring.iter().cloned().collect()
    }
}
