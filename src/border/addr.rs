//! Addresses by role, so that a client's can never be passed where a backend's belongs.
//! Canonical form is made here, once: an IPv4-mapped IPv6 address is the IPv4 address.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

/// The address that connected to us, canonical. A client of a unix socket has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddr {
    Inet(SocketAddr),
    Unix,
}

/// A client's address in 24 bytes instead of 32, because very many are stored.
#[derive(Clone, Copy, Debug)]
pub struct PackedClientAddr {
    ip: [u8; 16],
    scope: u32,
    port: u16,
    is_inet: bool,
}

/// An address without a port. An IPv6 address that is valid on one link only has a zone, the number of an interface;
/// all others have 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ZonedIp {
    ip: IpAddr,
    zone: u32,
}

/// What is wrong with the zone of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadZone {
    NoInterface,
    /// The address is valid everywhere.
    NotHere,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddr {
    Inet(SocketAddr),
    /// A backend without a port of its own: the port that the client dialled.
    InetClientPort(ZonedIp),
    Unix(PathBuf),
}

/// The address that a listener binds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddr {
    /// `:5432`: one IPv6 socket for both families, or IPv4 only if the host has no IPv6.
    DualStack(u16),
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// Our address that a client dialled; a unix socket has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalAddr {
    Inet(SocketAddr),
    Unix,
}

/// IPv4-mapped IPv6 becomes IPv4; everything else stays, except for the flow label, which is not used.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    let zone = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    ZonedIp::new(address.ip(), zone).at(address.port())
}

impl ZonedIp {
    pub fn new(ip: IpAddr, zone: u32) -> ZonedIp {
        let ip = ip.to_canonical();
        ZonedIp { ip, zone: if ip.is_ipv6() { zone } else { 0 } }
    }

    /// `192.0.2.1`, `fe80::1%3`, `fe80::1%eth0`; `number` is that of an interface. `None`: this is not an address.
    pub fn read(
        text: &str,
        number: impl Fn(&str) -> Option<u32>,
    ) -> Option<Result<ZonedIp, BadZone>> {
        let Some((ip, zone)) = text.split_once('%') else {
            return text.parse().ok().map(|ip: IpAddr| Ok(ip.into()));
        };
        let ip: Ipv6Addr = ip.parse().ok()?;
        let is_number = zone.bytes().all(|byte| byte.is_ascii_digit());
        let zone = if is_number { zone.parse().ok() } else { number(zone) };
        Some(match zone.filter(|zone| *zone > 0) {
            _ if !ip.is_unicast_link_local() => Err(BadZone::NotHere),
            Some(zone) => Ok(ZonedIp::new(ip.into(), zone)),
            None => Err(BadZone::NoInterface),
        })
    }

    /// Whether it can be dialled: an address that is valid on one link only must say on which.
    pub fn is_complete(&self) -> bool {
        self.zone > 0 || !matches!(self.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }

    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    pub fn is_ipv4(&self) -> bool {
        self.ip.is_ipv4()
    }

    pub fn at(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => (ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.zone).into(),
        }
    }
}

impl From<IpAddr> for ZonedIp {
    fn from(ip: IpAddr) -> ZonedIp {
        ZonedIp::new(ip, 0)
    }
}

impl fmt::Display for ZonedIp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.zone {
            0 => self.ip.fmt(f),
            zone => write!(f, "{}%{zone}", self.ip),
        }
    }
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
    /// Everything except the flow label, which is not used.
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
    /// `None`: for a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            BackendAddr::Inet(address) => Some(address.ip()),
            BackendAddr::InetClientPort(ip) => Some(ip.ip()),
            BackendAddr::Unix(_) => None,
        }
    }

    /// The socket address to connect to, given the address the client dialled.
    /// `None` for a unix path, and for a portless backend behind a unix listener.
    pub fn resolve(&self, dialled: LocalAddr) -> Option<SocketAddr> {
        match self {
            BackendAddr::Inet(address) => Some(*address),
            BackendAddr::InetClientPort(ip) => Some(ip.at(dialled.port()?)),
            BackendAddr::Unix(_) => None,
        }
    }
}

impl ListenAddr {
    /// Whether two addresses of one port overlap. A wildcard includes the specific addresses of its family: the
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
    fn a_zone_is_kept_where_there_is_one() {
        for (text, expected) in [
            ("[fe80::1%3]:80", "[fe80::1%3]:80"),
            ("[::ffff:192.0.2.7%3]:80", "192.0.2.7:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
        ] {
            assert_eq!(canonical(text.parse().unwrap()).to_string(), expected);
        }
        let ip = ZonedIp::new("fe80::1".parse().unwrap(), 3);
        let dialled = LocalAddr::new("192.0.2.1:80".parse().unwrap());
        let backend = BackendAddr::InetClientPort(ip);
        assert_eq!(backend.to_string(), "fe80::1%3");
        assert_eq!(backend.resolve(dialled), Some("[fe80::1%3]:80".parse().unwrap()));
    }

    #[test]
    fn a_zone_is_a_number_or_the_name_of_an_interface() {
        let read = |text: &str| ZonedIp::read(text, |name| (name == "eth0").then_some(7));
        let zone = |zone| Some(Ok(ZonedIp::new("fe80::1".parse().unwrap(), zone)));
        assert_eq!((read("fe80::1%3"), read("fe80::1%eth0")), (zone(3), zone(7)));
        assert_eq!(read("::ffff:192.0.2.1"), Some(Ok(IpAddr::from([192, 0, 2, 1]).into())));
        for text in ["fe80::1%", "fe80::1%0", "fe80::1%eth1", "fe80::1%4294967296"] {
            assert_eq!(read(text), Some(Err(BadZone::NoInterface)), "{text}");
        }
        assert_eq!(read("2001:db8::1%eth0"), Some(Err(BadZone::NotHere)));
        assert_eq!((read("192.0.2.1%eth0"), read("db%eth0"), read("")), (None, None, None));
        assert!(!ZonedIp::from("fe80::1".parse::<IpAddr>().unwrap()).is_complete());
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
        let backend = BackendAddr::InetClientPort(IpAddr::from([192, 0, 2, 1]).into());
        let dialled = LocalAddr::new("[::ffff:10.0.0.1]:7003".parse().unwrap());
        assert_eq!(backend.resolve(dialled), Some("192.0.2.1:7003".parse().unwrap()));
        assert_eq!(backend.resolve(LocalAddr::Unix), None);
    }

    fn overlapping(a: &str, b: &str) -> bool {
        let only = |text| crate::border::written::listen(text).unwrap().addresses().next().unwrap();
        only(a).overlaps(&only(b))
    }

    #[test]
    fn a_wildcard_overlaps_what_it_contains() {
        assert!(overlapping(":1", "0.0.0.0:1"));
        assert!(overlapping("[::]:1", ":1"));
        assert!(overlapping(":1", "10.0.0.1:1"));
        assert!(overlapping("0.0.0.0:1", "10.0.0.1:1"));
        assert!(overlapping("[::1]:1", "[::]:1"));
        assert!(!overlapping("[::]:1", "0.0.0.0:1"));
        assert!(!overlapping("10.0.0.2:1", "10.0.0.1:1"));
        assert!(!overlapping("[::]:1", "10.0.0.1:1"));
    }
}
