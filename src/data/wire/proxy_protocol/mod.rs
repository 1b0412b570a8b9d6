//! The PROXY protocol, versions 1 and 2: the header in front of a stream, or of a datagram, that names the client and
//! the address that it dialled. Source: HAProxy, `doc/proxy-protocol.txt`. Which senders are trusted is decided
//! elsewhere.

pub mod datagram;
pub mod header;
pub mod v1;
pub mod v2;

use super::Progress;

pub use header::{BadHeader, Ends, Header};

/// The header with which `bytes` begin, in either version, decided by the first byte. No header is longer than
/// `most`.
pub fn read(bytes: &[u8], most: usize) -> Result<Progress<Header>, BadHeader> {
    match bytes.first() {
        None => Ok(Progress::Partial),
        Some(b'P') => v1::read(bytes),
        Some(b'\r') => v2::read(bytes, most),
        Some(_) => Err(BadHeader::NoHeader),
    }
}
