//! The data plane: what touches a session's or a flow's bytes, and what decides about them on the way. Read `tcp` for
//! the life of a connection, `udp` for that of a datagram.

pub mod tcp;
pub mod udp;

pub mod admit;
pub mod limits;
pub mod route;
pub mod pool;

pub mod stream;
pub mod tls;
pub mod wire;
