//! Counts of UDP datagrams: how many went in which direction, and why some were dropped. Each datagram that reached
//! one of our sockets is forwarded or counted as dropped; none is truncated.

use super::counters::Counter;

/// The direction. `ToBackend` may exceed `FromClient` less the dropped ones: a refused datagram is sent again to
/// another backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Direction {
    FromBackend,
    FromClient,
    ToBackend,
    ToClient,
}

impl Direction {
    pub const ALL: [Direction; 4] =
        [Direction::FromBackend, Direction::FromClient, Direction::ToBackend, Direction::ToClient];

    pub fn as_str(self) -> &'static str {
        match self {
            Direction::FromBackend => "from_backend",
            Direction::FromClient => "from_client",
            Direction::ToBackend => "to_backend",
            Direction::ToClient => "to_client",
        }
    }
}

/// `udp_dropped_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Dropped {
    /// The backend refused it or was unreachable (an ICMP error, or no route).
    BackendError,
    /// Every backend is at `max_sessions`.
    BackendFull,
    /// The client could not be reached.
    ClientError,
    /// `limits.datagram_rate` or `datagram_rate_per_client`.
    DatagramRate,
    /// Denied by `allow` and `deny`.
    Denied,
    /// A new client while the process drains.
    Draining,
    /// From a source to which no reply is possible: port 0, or no address.
    InvalidSource,
    /// From an address of ours or of a backend: the two could answer each other for ever.
    Loop,
    NoBackend,
    NoDescriptors,
    NoRoute,
    NoSourcePort,
    /// `limits.sessions`, `sessions_per_client`, or the flow table is full.
    OverLimit,
    /// `limits.rate` or `rate_per_client`, for a new flow.
    RateLimited,
    /// The socket's receive buffer in the kernel was full.
    ReceiveBuffer,
    /// The kernel had no buffer space to send it.
    SendBuffer,
    /// Larger than the network path allows.
    TooLarge,
    /// Larger than a datagram can be; never passed on in part.
    Truncated,
}

impl Dropped {
    pub const ALL: [Dropped; 18] = [
        Dropped::BackendError,
        Dropped::BackendFull,
        Dropped::ClientError,
        Dropped::DatagramRate,
        Dropped::Denied,
        Dropped::Draining,
        Dropped::InvalidSource,
        Dropped::Loop,
        Dropped::NoBackend,
        Dropped::NoDescriptors,
        Dropped::NoRoute,
        Dropped::NoSourcePort,
        Dropped::OverLimit,
        Dropped::RateLimited,
        Dropped::ReceiveBuffer,
        Dropped::SendBuffer,
        Dropped::TooLarge,
        Dropped::Truncated,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::BackendError => "backend_error",
            Dropped::BackendFull => "backend_full",
            Dropped::ClientError => "client_error",
            Dropped::DatagramRate => "datagram_rate",
            Dropped::Denied => "denied",
            Dropped::Draining => "draining",
            Dropped::InvalidSource => "invalid_source",
            Dropped::Loop => "loop",
            Dropped::NoBackend => "no_backend",
            Dropped::NoDescriptors => "no_descriptors",
            Dropped::NoRoute => "no_route",
            Dropped::NoSourcePort => "no_source_port",
            Dropped::OverLimit => "over_limit",
            Dropped::RateLimited => "rate_limited",
            Dropped::ReceiveBuffer => "receive_buffer",
            Dropped::SendBuffer => "send_buffer",
            Dropped::TooLarge => "too_large",
            Dropped::Truncated => "truncated",
        }
    }
}

/// Statistics of one worker about one UDP listener.
#[derive(Debug, Default)]
pub struct DatagramCounters {
    /// Flows that began.
    pub flows: Counter,
    passed: [Counter; Direction::ALL.len()],
    dropped: [Counter; Dropped::ALL.len()],
}

impl DatagramCounters {
    pub fn passed(&self, direction: Direction) -> &Counter {
        &self.passed[direction as usize]
    }

    pub fn dropped(&self, reason: Dropped) -> &Counter {
        &self.dropped[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_place_and_word() {
        for (index, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, direction) in Direction::ALL.into_iter().enumerate() {
            assert_eq!(direction as usize, index);
        }
        let words: std::collections::HashSet<_> = Dropped::ALL.map(Dropped::as_str).into();
        assert_eq!(words.len(), Dropped::ALL.len());
    }
}
