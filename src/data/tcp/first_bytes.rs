//! What few sessions have: what their first bytes said, and its consequences.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::pace::Pace;
use super::replay::Replay;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::snapshot::Listener;
use crate::data::wire::client_hello::Hello;

#[derive(Default)]
pub struct Told {
    /// Until the PROXY header has arrived: the rules for the client that it announces.
    pub sender_of: Option<Arc<Listener>>,
    /// The sender of the PROXY header.
    pub sender: Option<ClientAddr>,
    /// The address that the announced client dialled.
    pub local: Option<LocalAddr>,
    /// `None`: it was not looked at.
    pub hello: Option<Hello>,
    /// The listener's route that it takes; `None`: the listener's own pool.
    pub route: Option<usize>,
    /// A PostgreSQL client was told to go on in TLS; so the backend must accept TLS, too.
    pub wants_postgres_tls: bool,
    /// It asked for TLS as PostgreSQL clients do, and the TLS is terminated here.
    pub speaks_postgres: bool,
    /// A PostgreSQL client's CancelRequest: it says nothing else.
    pub cancel: Option<Bytes>,
    /// First bytes that were looked at; if the session is refused, everything that it sent.
    pub looked_at: usize,
    /// What was wrong with it.
    pub cause: Option<Cow<'static, str>>,
    pub paces: Paces,
    /// For another backend, while its own has said nothing: `retry_until: first_byte`.
    pub replay: Option<Box<Replay>>,
    /// For a quiet session with bytes that a far side has not read yet: when it was last checked.
    pub look: Option<Look>,
}

/// How many of the bytes given to the kernel the far sides, client and backend, had read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub taken: [u64; 2],
    /// When the last byte had moved by then, on the coarse clock.
    pub last_byte_ms: u64,
}

/// For a listener with `limits.bandwidth`.
#[derive(Default)]
pub struct Paces {
    to_backend: Pace,
    to_client: Pace,
}

impl Paces {
    pub fn of(&mut self, from_client: bool) -> &mut Pace {
        if from_client { &mut self.to_backend } else { &mut self.to_client }
    }
}

impl Told {
    pub fn server_name(&self) -> Option<&str> {
        self.hello.as_ref()?.server_name.as_deref()
    }
}
