//! The PROXY protocol, version 2, as it is sent to a backend of UDP flows: the header in front of a datagram that
//! names the client and the address to which it sent. Source: HAProxy, `doc/proxy-protocol.txt`, section 2.2. This
//! module knows nothing of the kernel and of sockets.
//!
//! ```text
//!   0             12  13  14    16                                          28 or 52
//!   ┌─────────────┬───┬───┬─────┬────────┬────────┬─────────────┬────────────┐
//!   │ signature   │ 21│ 12│ len │ client │ local  │ client port │ local port │
//!   └─────────────┴───┴───┴─────┴────────┴────────┴─────────────┴────────────┘
//!                   │   └ 12: IPv4 datagrams, 22: IPv6 datagrams; addresses of 4 or 16 bytes
//!                   └ version 2, command PROXY
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::border::addr::canonical;

/// The length of a header for IPv6. For IPv4 it is 28.
pub const MAX_HEADER: usize = 52;

use super::v2::SIGNATURE;
const VERSION_2_PROXY: u8 = 0x21;
const IPV4_DATAGRAM: u8 = 0x12;
const IPV6_DATAGRAM: u8 = 0x22;

/// Writes the header of a datagram that `client` sent to `local`, and returns its length: 28 or 52 bytes. Addresses
/// of two families are both written as IPv6, the IPv4 one mapped (`::ffff:192.0.2.7`); two IPv4-mapped ones as IPv4.
pub fn header(client: SocketAddr, local: SocketAddr, out: &mut [u8; MAX_HEADER]) -> usize {
    let mut writer = Writer { out, at: 0 };
    writer.put(&SIGNATURE);
    let (client, local) = (canonical(client), canonical(local));
    match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            writer.put(&[VERSION_2_PROXY, IPV4_DATAGRAM, 0, 12]);
            writer.put(&from.octets());
            writer.put(&to.octets());
        }
        (from, to) => {
            writer.put(&[VERSION_2_PROXY, IPV6_DATAGRAM, 0, 36]);
            writer.put(&as_v6(from).octets());
            writer.put(&as_v6(to).octets());
        }
    }
    writer.put(&client.port().to_be_bytes());
    writer.put(&local.port().to_be_bytes());
    writer.at
}

fn as_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

struct Writer<'a> {
    out: &'a mut [u8; MAX_HEADER],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn written(client: &str, local: &str) -> Vec<u8> {
        let mut out = [0xee; MAX_HEADER];
        let length = header(client.parse().unwrap(), local.parse().unwrap(), &mut out);
        assert!(out[length..].iter().all(|byte| *byte == 0xee), "nothing behind it is touched");
        out[..length].to_vec()
    }

    #[test]
    fn ipv4_byte_by_byte() {
        let expected = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
            0x0a, // signature
            0x21, 0x12, 0x00, 0x0c, // version and command, family and transport, length
            192, 0, 2, 7, 198, 51, 100, 1, // addresses
            0xd4, 0x31, 0x00, 0x35, // ports 54321 and 53
        ];
        assert_eq!(written("192.0.2.7:54321", "198.51.100.1:53"), expected);
        assert_eq!(written("[::ffff:192.0.2.7]:54321", "198.51.100.1:53"), expected);
    }

    /// Reads a header by the specification's own words, sharing nothing with the writer.
    fn read(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let rest = bytes.strip_prefix(b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A")?;
        let [version_command, family_transport, high, low, addresses @ ..] = rest else {
            return None;
        };
        let is_proxy = version_command >> 4 == 2 && version_command & 0xf == 1;
        let is_datagram = family_transport & 0xf == 2;
        let is_whole = usize::from(*high) * 256 + usize::from(*low) == addresses.len();
        if !is_proxy || !is_datagram || !is_whole {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
        match (family_transport >> 4, addresses.len()) {
            (1, 12) => {
                let ip = |at: usize| <[u8; 4]>::try_from(&addresses[at..at + 4]).unwrap();
                Some(((ip(0), port(8)).into(), (ip(4), port(10)).into()))
            }
            (2, 36) => {
                let ip = |at: usize| <[u8; 16]>::try_from(&addresses[at..at + 16]).unwrap();
                Some(((ip(0), port(32)).into(), (ip(16), port(34)).into()))
            }
            _ => None,
        }
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
        let mapped =
            any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into());
        (prop_oneof![v4, v6, mapped], any::<u16>()).prop_map(SocketAddr::from)
    }

    proptest! {
        #[test]
        fn whoever_reads_it_gets_both_addresses(client in any_address(), local in any_address()) {
            let mut out = [0; MAX_HEADER];
            let length = header(client, local, &mut out);
            let (from, to) = read(&out[..length]).expect("a header");
            prop_assert_eq!(canonical(from), canonical(client));
            prop_assert_eq!(canonical(to), canonical(local));
            let both_v4 = canonical(client).is_ipv4() && canonical(local).is_ipv4();
            prop_assert_eq!(length, if both_v4 { 28 } else { 52 });
        }
    }
}
