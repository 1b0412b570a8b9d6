//! Addresses by role, so that a client's can never be passed where a backend's belongs.
//! Canonical form is made here, once: an IPv4-mapped IPv6 address is the IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

/// Who connected to us, canonical. A client of a unix socket has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddr {
    Inet(SocketAddr),
    Unix,
}

/// A client's address in 24 bytes instead of 32, for what there are very many of.
#[derive(Clone, Copy, Debug)]
pub struct PackedClientAddr {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    is_inet: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddr {
    Inet(SocketAddr),
    /// Without a port of its own: the port the client dialled.
    InetClientPort(IpAddr),
    Unix(PathBuf),
}

/// What a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `:5432`: one IPv6 socket for both families, IPv4 only where the host has no IPv6.
    DualStack(u16),
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// The address of ours that a client dialled; a unix socket has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalAddr {
    Inet(SocketAddr),
    Unix,
}

/// IPv4-mapped IPv6 becomes IPv4; everything else stays.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl ClientAddr {
    pub fn new(address: SocketAddr) -> Self {
        ClientAddr::Inet(canonical(address))
    }

    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            ClientAddr::Inet(address) => Some(address.ip()),
            ClientAddr::Unix => None,
        }
    }
}

impl From<ClientAddr> for PackedClientAddr {
    fn from(client: ClientAddr) -> Self {
        let ClientAddr::Inet(address) = client else {
            return PackedClientAddr { ip: [0; 16], scope: 0, port: 0, is_inet: false };
        };
        let (ip, scope) = match address {
            SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
        };
        PackedClientAddr { ip: ip.octets(), scope, port: address.port(), is_inet: true }
    }
}

impl PackedClientAddr {
    /// Everything but the flow label, which nobody asks for.
    pub fn unpack(self) -> ClientAddr {
        if !self.is_inet {
            return ClientAddr::Unix;
        }
        let ip = Ipv6Addr::from(self.ip);
        ClientAddr::Inet(match ip.to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, self.port)),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.port, 0, self.scope).into(),
        })
    }
}

impl ListenAddr {
    pub fn port(&self) -> Option<u16> {
        match self {
            ListenAddr::DualStack(port) => Some(*port),
            ListenAddr::Inet(address) => Some(address.port()),
            ListenAddr::Unix(_) => None,
        }
    }
}

impl LocalAddr {
    pub fn new(address: SocketAddr) -> Self {
        LocalAddr::Inet(canonical(address))
    }

    pub fn port(&self) -> Option<u16> {
        match self {
            LocalAddr::Inet(address) => Some(address.port()),
            LocalAddr::Unix => None,
        }
    }
}

impl BackendAddr {
    /// `None`: of a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            BackendAddr::Inet(address) => Some(address.ip()),
            BackendAddr::InetClientPort(ip) => Some(*ip),
            BackendAddr::Unix(_) => None,
        }
    }

    /// The socket address to connect to, given the address the client dialled.
    /// `None` for a unix path, and for a portless backend behind a unix listener.
    pub fn resolve(&self, dialled: LocalAddr) -> Option<SocketAddr> {
        match self {
            BackendAddr::Inet(address) => Some(*address),
            BackendAddr::InetClientPort(ip) => Some(SocketAddr::new(*ip, dialled.port()?)),
            BackendAddr::Unix(_) => None,
        }
    }
}

impl ListenAddr {
    /// Whether two addresses of one port claim a common one. Every address contains the specific ones of its family: the
    /// kernel refuses to listen on both unless each socket asked for it.
    pub fn overlaps(&self, other: &ListenAddr) -> bool {
        match (self, other) {
            (ListenAddr::Inet(a), ListenAddr::Inet(b)) => {
                a.is_ipv4() == b.is_ipv4()
                    && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
            }
            (ListenAddr::Unix(_), _) | (_, ListenAddr::Unix(_)) => self == other,
            (ListenAddr::DualStack(_), _) | (_, ListenAddr::DualStack(_)) => true,
        }
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientAddr::Inet(address) => address.fmt(f),
            ClientAddr::Unix => f.write_str("unix:"),
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocalAddr::Inet(address) => address.fmt(f),
            LocalAddr::Unix => f.write_str("unix:"),
        }
    }
}

impl fmt::Display for BackendAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddr::Inet(address) => address.fmt(f),
            BackendAddr::InetClientPort(ip) => ip.fmt(f),
            BackendAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::DualStack(port) => write!(f, ":{port}"),
            ListenAddr::Inet(address) => address.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_client_is_its_ipv4_address() {
        let client = ClientAddr::new("[::ffff:192.0.2.7]:9".parse().unwrap());
        assert_eq!(client.to_string(), "192.0.2.7:9");
    }

    #[test]
    fn packing_keeps_every_client() {
        for text in ["192.0.2.7:9", "[2001:db8::7]:65535", "[fe80::1%3]:1", "0.0.0.0:0"] {
            let client = ClientAddr::new(text.parse().unwrap());
            assert_eq!(PackedClientAddr::from(client).unpack(), client, "{text}");
        }
        assert_eq!(PackedClientAddr::from(ClientAddr::Unix).unpack(), ClientAddr::Unix);
        assert_eq!(size_of::<PackedClientAddr>(), 24);
    }

    #[test]
    fn a_portless_backend_takes_the_dialled_port() {
        let backend = BackendAddr::InetClientPort("192.0.2.1".parse().unwrap());
        let dialled = LocalAddr::new("[::ffff:10.0.0.1]:7003".parse().unwrap());
        assert_eq!(backend.resolve(dialled), Some("192.0.2.1:7003".parse().unwrap()));
        assert_eq!(backend.resolve(LocalAddr::Unix), None);
    }
}
