//! A session on trial: `connect.retry_until: first_byte`, and its backend has said nothing yet. What the client sent is
//! kept, bounded, and freed at the backend's first byte. `again` is what follows if that byte does not come.

use std::sync::Arc;
use std::time::Instant;

use super::replay::Replay;
use super::session::Session;
use crate::config::RetryUntil;
use crate::data::pool::backend::Backend;
use crate::data::pool::{PickKey, Picked, Pool, Tried, ejection};

/// Bytes of the client that are kept for another backend.
const MOST: usize = 16 * 1024;

/// How a search for another backend begins.
pub struct Resumed {
    pub tried: Tried,
    pub left: u32,
    pub has_asked: bool,
}

impl Session {
    /// It is connected. From now on it is on trial if the pool wants that.
    pub fn put_on_trial(&self, pool: &Arc<Pool>, tried: Tried, left: u32) {
        if pool.config.connect.retry_until != RetryUntil::FirstByte {
            return;
        }
        self.tell(|told| {
            let pool = Arc::clone(pool);
            let (kept, silent) = match told.replay.take() {
                Some(before) => (before.kept, before.silent),
                None => Default::default(),
            };
            told.replay = Some(Box::new(Replay { kept, pool, tried, left, next: None, silent }));
        });
    }

    pub fn is_on_trial(&self) -> bool {
        self.told(|told| told.replay.is_some()) == Some(true)
    }

    /// `None`: this is its first search.
    pub fn resumed(&self) -> Option<Resumed> {
        let resumed = |replay: &Replay| Resumed {
            tried: replay.tried,
            left: replay.left,
            has_asked: !replay.kept.is_empty(),
        };
        self.told(|told| told.replay.as_deref().map(resumed)).flatten()
    }

    /// The backend that was picked before the one before was left.
    pub fn take_next(&self) -> Option<Picked> {
        self.told(|told| told.replay.is_some()).filter(|is_on_trial| *is_on_trial)?;
        self.tell(|told| told.replay.as_mut().and_then(|replay| replay.next.take()))
    }

    /// Keeps what was read from the client; returns whether the session is still on trial.
    pub fn keep_for_another(&self, bytes: &[u8]) -> bool {
        if !self.is_on_trial() {
            return false;
        }
        let is_kept = self.tell(|told| {
            let replay = told.replay.as_mut();
            let replay = replay.filter(|replay| replay.kept.len() + bytes.len() <= MOST);
            replay.map(|replay| replay.kept.extend_from_slice(bytes)).is_some()
        });
        if !is_kept {
            self.end_trial();
        }
        is_kept
    }

    /// The backend serves it, as far as can be told.
    pub fn end_trial(&self) {
        if self.is_on_trial() {
            self.tell(|told| told.replay = None);
            self.with_backend(|backend| self.serves(backend));
        }
    }

    /// The backend's first byte: what the others did not answer can be answered.
    pub fn answered(&self) {
        if !self.is_on_trial() {
            return;
        }
        self.with_backend(|backend| self.serves(backend));
        if let Some(replay) = self.tell(|told| told.replay.take()) {
            replay.silent.iter().for_each(|backend| replay.pool.failed(backend, Instant::now()));
        }
    }

    /// The backend ended without a byte. Takes a slot on another one, or returns false: then this was the last.
    pub fn asks_another(&self, has_client_ended: bool) -> bool {
        let Some(mut replay) = self.tell(|told| told.replay.take()) else { return false };
        let says_nothing = replay.kept.is_empty() && !has_client_ended;
        let is_told_of_client = replay.pool.config.send_proxy_protocol.is_some()
            || self.told(|told| told.wants_postgres_tls) == Some(true);
        self.with_backend(|backend| {
            if says_nothing && !is_told_of_client {
                replay.pool.failed(backend, Instant::now());
            } else {
                replay.silent.push(Arc::clone(backend));
            }
        });
        replay.next = self.pick_another(&mut replay);
        if replay.next.is_none() {
            // Its counts are those of a session that this backend served in silence.
            self.with_backend(|backend| self.count(backend));
            return false;
        }
        self.tell(|told| told.replay = Some(replay));
        true
    }

    fn pick_another(&self, replay: &mut Replay) -> Option<Picked> {
        let pool = self.pool().filter(|_| replay.left > 0)?;
        if pool.config.connect.retry_until != RetryUntil::FirstByte {
            return None;
        }
        if !Arc::ptr_eq(&pool, &replay.pool) {
            replay.tried = replay.pool.in_version(&replay.tried, &pool);
            replay.pool = pool;
        }
        let client = self.client();
        let by = |server_name: Option<&str>| {
            let key = PickKey { client, server_name };
            replay.pool.pick(&key, &replay.tried, Instant::now()).ok()
        };
        self.told(|told| by(told.server_name())).flatten()
    }

    /// Counts a session that is on this backend to stay.
    pub fn serves(&self, backend: &Backend) {
        ejection::succeeded(backend);
        self.count(backend);
    }

    fn count(&self, backend: &Backend) {
        backend.live.counters.of(self.worker.id).sessions.add(1);
    }
}
