//! Why a connection attempt failed, and therefore whose fault it is.

use std::io;

use crate::border::record::CloseReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It refused because of what the client is or asked for; another client might have been served.
    Declined,
    /// The probes, or an operator, took it down meanwhile.
    Down,
    NoDescriptors,
    /// It has no port of its own, and the client dialled none.
    NoPort,
    NoSourcePort,
    /// The accept queue of its unix socket was full all the time.
    QueueFull,
    Refused,
    Timeout,
    /// It answered, but it did not accept TLS.
    Tls,
    Unreachable,
}

impl Failure {
    pub fn of(error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                Failure::NoDescriptors
            }
            Some(libc::EADDRNOTAVAIL | libc::EADDRINUSE) => Failure::NoSourcePort,
            Some(libc::ETIMEDOUT) => Failure::Timeout,
            Some(
                libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::EACCES
                | libc::EPERM
                | libc::EINVAL,
            ) => Failure::Unreachable,
            // ECONNREFUSED, a reset during the handshake; for unix sockets: no such file.
            _ => Failure::Refused,
        }
    }

    /// What maitred itself lacks never counts against a backend, nor does what the client asked for.
    pub fn is_backends_fault(self) -> bool {
        matches!(self, Failure::Refused | Failure::Timeout | Failure::Tls | Failure::Unreachable)
    }

    /// Whether waiting may help: the failure is about the backend, not about us or the client.
    pub fn may_pass(self) -> bool {
        self.is_backends_fault() || matches!(self, Failure::Down | Failure::QueueFull)
    }

    pub fn reason(self) -> CloseReason {
        match self {
            Failure::Down => CloseReason::BackendDown,
            Failure::NoDescriptors => CloseReason::NoDescriptors,
            Failure::NoSourcePort => CloseReason::NoSourcePort,
            Failure::Refused => CloseReason::ConnectRefused,
            Failure::QueueFull | Failure::Timeout => CloseReason::ConnectTimeout,
            Failure::Declined | Failure::Tls => CloseReason::TlsFailed,
            Failure::NoPort | Failure::Unreachable => CloseReason::ConnectUnreachable,
        }
    }
}
