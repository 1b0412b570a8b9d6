//! Who asks, for the log and for operators who wonder later who set something.

use std::net::SocketAddr;

#[derive(Clone, Copy, Debug)]
pub enum Caller {
    /// The user of the process at the other end of the socket.
    User(u32),
    Address(SocketAddr),
    Unknown,
}

impl Caller {
    pub fn name(self) -> String {
        match self {
            Caller::User(0) => "root".to_owned(),
            Caller::User(id) => format!("uid {id}"),
            Caller::Address(address) => format!("token from {}", address.ip().to_canonical()),
            Caller::Unknown => "an unknown user on the socket".to_owned(),
        }
    }
}
