//! The inputs of a pick, and why it may find no backend.

use crate::border::addr::ClientAddr;

/// What a pick may depend on.
#[derive(Clone, Copy, Debug)]
pub struct PickKey<'a> {
    pub client: ClientAddr,
    /// The server name that a TLS client asks for, in lower case.
    pub server_name: Option<&'a str>,
}

impl PickKey<'_> {
    pub fn new(client: ClientAddr) -> Self {
        PickKey { client, server_name: None }
    }
}

/// Indices of the backends that this session has tried. `connect.attempts` is at most `Tried::MAX`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indices: [u32; Tried::MAX],
    count: u8,
}

/// Why no backend was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PickError {
    /// Backends are up, but all of them are at `max_sessions`.
    AllFull,
    /// Backends are up, but this session has tried them all.
    AllTried,
    /// No backend is up (or has weight).
    NoneUp,
}

/// An index of the dense kind as a `usize`, which has at least 32 bits on every system with sockets.
pub(crate) fn widen(index: u32) -> usize {
    index as usize
}

/// The converse; a pool has far fewer than 2^32 backends.
pub(crate) fn narrow(index: usize) -> u32 {
    u32::try_from(index).expect("a pool has fewer than 2^32 backends")
}

impl Tried {
    pub const MAX: usize = 16;

    pub fn push(&mut self, index: u32) {
        if usize::from(self.count) < Tried::MAX {
            self.indices[usize::from(self.count)] = index;
            self.count += 1;
        }
    }

    pub fn contains(&self, index: u32) -> bool {
        self.indices[..usize::from(self.count)].contains(&index)
    }

    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.indices[..self.len()].iter().copied()
    }

    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}
