//! What few sessions have: what their first bytes told, and what was made of it.

use std::borrow::Cow;
use std::sync::Arc;

use super::pace::Pace;
use crate::border::addr::{ClientAddr, LocalAddr};
use crate::border::snapshot::Listener;
use crate::data::wire::client_hello::Hello;

#[derive(Default)]
pub struct Told {
    /// Until the PROXY header has come: who judges the client it announces.
    pub sender_of: Option<Arc<Listener>>,
    /// Who announced the client in a PROXY header.
    pub sender: Option<ClientAddr>,
    /// What the announced client dialled.
    pub local: Option<LocalAddr>,
    /// `None`: it was not looked at.
    pub hello: Option<Hello>,
    /// The listener's route it takes; `None`: its own pool.
    pub route: Option<usize>,
    /// A PostgreSQL client was told to go on in TLS; so must its backend be.
    pub wants_postgres_tls: bool,
    /// It asked as PostgreSQL clients do, and goes on in TLS that ends here.
    pub speaks_postgres: bool,
    /// First bytes that were looked at, all of what it sent where it goes no further.
    pub looked_at: usize,
    /// What was wrong with it.
    pub cause: Option<Cow<'static, str>>,
    pub paces: Paces,
    /// Of a quiet one with bytes that a far side has not taken yet: when it was looked at last.
    pub look: Option<Look>,
}

/// What the far sides, client and backend, had taken of what the kernel was given.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub taken: [u64; 2],
    /// When the last byte had moved by then, on the coarse clock.
    pub last_byte_ms: u64,
}

/// Of a listener with `limits.bandwidth`.
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
