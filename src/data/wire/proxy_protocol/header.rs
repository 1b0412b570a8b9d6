//! What a PROXY header says, in either version, and why bytes are none.

use std::net::SocketAddr;

/// A header in front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of it; the payload begins behind them.
    pub length: usize,
    /// Whom it announces, canonical. `None`: it speaks of the connection it came on (LOCAL, UNKNOWN, UNSPEC), or of
    /// ends that have no address here (unix sockets, datagrams).
    pub ends: Option<Ends>,
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    /// What the client dialled.
    pub local: SocketAddr,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Neither version begins like this.
    NoHeader,
    /// An address or port is malformed, or not of the family that is named.
    Address,
    /// The CRC32c in it is not the one over it.
    Checksum,
    /// A command, family or transport the specification does not name.
    Command,
    /// Its own length does not hold what it announces.
    Length,
    /// A TLV reaches over the header's end, or one is there twice that may not be.
    Tlv,
    TooLong,
}

impl BadHeader {
    pub fn as_str(self) -> &'static str {
        match self {
            BadHeader::NoHeader => "it does not begin with a PROXY header",
            BadHeader::Address => "its PROXY header has a malformed address or port",
            BadHeader::Checksum => "the checksum of its PROXY header is wrong",
            BadHeader::Command => {
                "its PROXY header has an unknown version, command, family or transport"
            }
            BadHeader::Length => "its PROXY header is too short for the addresses it announces",
            BadHeader::Tlv => "the TLVs of its PROXY header are malformed",
            BadHeader::TooLong => "its PROXY header is too long",
        }
    }
}
