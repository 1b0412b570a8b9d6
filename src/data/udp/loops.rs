//! Sources that must not be served: if a datagram claims to come from an address of ours or from a backend, its reply
//! is a request there, and the two servers could answer each other for ever (CERT VU#417980).

use std::collections::HashSet;
use std::net::SocketAddr;

use crate::sys::datagram;

/// Addresses at which UDP is answered; built again with each snapshot.
#[derive(Debug, Default)]
pub struct Answerers {
    /// Addresses of our listeners and of their backends.
    pub exact: HashSet<SocketAddr>,
    /// Ports on which we listen at every address of the host.
    pub ports: HashSet<u16>,
}

impl Answerers {
    /// `dialled` is the address to which the datagram was sent. On a port of ours, a host that sends to itself is us.
    pub fn contain(&self, source: SocketAddr, dialled: SocketAddr) -> bool {
        self.exact.contains(&source)
            || (self.ports.contains(&source.port())
                && (source.ip() == dialled.ip()
                    || source.ip().is_loopback()
                    || datagram::is_ours(source.ip())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_addresses_and_backends_are_no_clients() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let answerers = Answerers { exact: [at("192.0.2.1:53")].into(), ports: [5353].into() };
        let ours = at("198.51.100.7:5353");
        assert!(answerers.contain(at("192.0.2.1:53"), ours));
        assert!(answerers.contain(at("198.51.100.7:5353"), ours));
        assert!(answerers.contain(at("127.0.0.1:5353"), ours));
        assert!(!answerers.contain(at("192.0.2.1:5353"), ours));
        assert!(!answerers.contain(at("192.0.2.1:54"), ours));
        assert!(!answerers.contain(at("198.51.100.7:40000"), ours));
    }
}
