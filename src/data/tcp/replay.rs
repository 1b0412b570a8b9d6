//! What is kept of a session for another backend, as long as its own has said nothing: `trial` says how.

use std::sync::Arc;

use crate::data::pool::backend::Backend;
use crate::data::pool::{Picked, Pool, Tried};

/// What a session on trial needs for another backend.
pub struct Replay {
    /// What was read from the client.
    pub kept: Vec<u8>,
    /// The version whose backends `tried` has.
    pub pool: Arc<Pool>,
    pub tried: Tried,
    /// Attempts.
    pub left: u32,
    /// The backend that is asked next: its slot is taken.
    pub next: Option<Picked>,
    /// Those that ended without a byte. It may be because of what the client sent; if another one answers that, it is
    /// not.
    pub silent: Vec<Arc<Backend>>,
}
