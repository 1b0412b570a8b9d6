//! The content of a PROXY header, in either version, and why bytes are not one.

use std::net::SocketAddr;

/// A header in front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length; the payload begins after it.
    pub length: usize,
    /// The client that it announces, canonical. `None`: it means the connection on which it came (LOCAL, UNKNOWN,
    /// UNSPEC), or ends that have no address here (unix sockets, datagrams).
    pub ends: Option<Ends>,
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    pub client: SocketAddr,
    /// The address that the client dialled.
    pub local: SocketAddr,
}

/// Why bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Neither version begins like this.
    NoHeader,
    /// An address or port is malformed, or not of the family that is named.
    Address,
    /// The CRC32c in it is wrong.
    Checksum,
    /// A command, family or transport that the specification does not have.
    Command,
    /// Its length is too small for what it announces.
    Length,
    /// A TLV extends beyond the header's end, or one occurs twice that may not.
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
