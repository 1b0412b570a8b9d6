//! Version 2, binary, in front of a stream. Source: `proxy-protocol.txt`, section 2.2.
//!
//! ```text
//!   0             12  13  14    16
//!   ┌─────────────┬───┬───┬─────┬───────────────────────────────┬──────────────────────────┐
//!   │ signature   │ 21│ 11│ len │ client, local, ports          │ TLVs: type, length, value│
//!   └─────────────┴───┴───┴─────┴───────────────────────────────┴──────────────────────────┘
//!                   │   └ family and transport: 11 IPv4, 21 IPv6, 00 unknown; addresses of 4 or 16 bytes
//!                   └ version 2 and command: 20 LOCAL, 21 PROXY
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::header::{BadHeader, Ends, Header};
use crate::border::addr::canonical;
use crate::data::wire::Progress;

pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The fixed part: signature, command, family, length.
const FIXED: usize = 16;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPEC: u8 = 0x00;
const IPV4_STREAM: u8 = 0x11;
const IPV6_STREAM: u8 = 0x21;

const TLV_ALPN: u8 = 0x01;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_CRC32C: u8 = 0x03;
const TLV_TLS: u8 = 0x20;
/// What comes before TLVs of its own: what the client did, and whether its certificate was valid.
const TLS_FIXED: usize = 5;

/// The header with which `bytes` begin, of at most `most` bytes.
pub fn read(bytes: &[u8], most: usize) -> Result<Progress<Header>, BadHeader> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(BadHeader::NoHeader);
    }
    let [command, family, high, low] = match bytes.get(SIGNATURE.len()..FIXED) {
        Some(&[command, family, high, low]) => [command, family, high, low],
        _ => return Ok(Progress::Partial),
    };
    if command != LOCAL && command != PROXY {
        return Err(BadHeader::Command);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > most {
        return Err(BadHeader::TooLong);
    }
    // Its first fields are checked before all of it has arrived.
    let addresses = if command == LOCAL { None } else { Some(addresses(family)?) };
    if addresses.is_some_and(|bytes| FIXED + bytes > length) {
        return Err(BadHeader::Length);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Progress::Partial) };
    // The specification: the content of a LOCAL header must be ignored.
    let Some(addresses) = addresses else {
        return Ok(Progress::Whole(Header { length, ends: None }));
    };
    check_tlvs(header, FIXED + addresses)?;
    Ok(Progress::Whole(Header { length, ends: ends(family, &header[FIXED..]) }))
}

/// How many bytes of addresses that family has.
fn addresses(family: u8) -> Result<usize, BadHeader> {
    match (family >> 4, family & 0xf) {
        (0, 0..=2) => Ok(0),
        (1, 0..=2) => Ok(12),
        (2, 0..=2) => Ok(36),
        (3, 0..=2) => Ok(216),
        _ => Err(BadHeader::Command),
    }
}

/// Only for streams: otherwise the connection's own ends count, as with UNSPEC.
fn ends(family: u8, addresses: &[u8]) -> Option<Ends> {
    let port = |bytes: &[u8]| bytes.try_into().map(u16::from_be_bytes).ok();
    let (from, to, ports): (IpAddr, IpAddr, &[u8]) = match family {
        IPV4_STREAM => {
            let ip = |at: usize| <[u8; 4]>::try_from(addresses.get(at..at + 4)?).ok();
            (Ipv4Addr::from(ip(0)?).into(), Ipv4Addr::from(ip(4)?).into(), addresses.get(8..12)?)
        }
        IPV6_STREAM => {
            let ip = |at: usize| <[u8; 16]>::try_from(addresses.get(at..at + 16)?).ok();
            (Ipv6Addr::from(ip(0)?).into(), Ipv6Addr::from(ip(16)?).into(), addresses.get(32..36)?)
        }
        _ => return None,
    };
    Some(Ends {
        client: canonical(SocketAddr::new(from, port(&ports[..2])?)),
        local: canonical(SocketAddr::new(to, port(&ports[2..])?)),
    })
}

/// Each TLV ends within the header, each of TLS' own within that one, and the checksum is right.
fn check_tlvs(header: &[u8], from: usize) -> Result<(), BadHeader> {
    let mut has_checksum = false;
    each_tlv(header, from, |kind, at| {
        let value = &header[at.clone()];
        match kind {
            TLV_TLS => each_tlv(value, TLS_FIXED, |_, _| Ok(())),
            TLV_CRC32C => {
                let value: [u8; 4] = value.try_into().map_err(|_| BadHeader::Tlv)?;
                if std::mem::replace(&mut has_checksum, true) {
                    return Err(BadHeader::Tlv);
                }
                let sum = [&header[..at.start], &[0; 4], &header[at.end..]]
                    .iter()
                    .fold(0, |sum, part| crc32c::crc32c_append(sum, part));
                if sum == u32::from_be_bytes(value) { Ok(()) } else { Err(BadHeader::Checksum) }
            }
            _ => Ok(()),
        }
    })
}

/// Shows where the value of each TLV is, all from `from` on.
fn each_tlv(
    bytes: &[u8],
    from: usize,
    mut see: impl FnMut(u8, Range<usize>) -> Result<(), BadHeader>,
) -> Result<(), BadHeader> {
    let mut rest = bytes.get(from..).ok_or(BadHeader::Tlv)?;
    while !rest.is_empty() {
        let Some((&[kind, high, low], behind)) = rest.split_first_chunk() else {
            return Err(BadHeader::Tlv);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let start = bytes.len() - behind.len();
        rest = behind.get(length..).ok_or(BadHeader::Tlv)?;
        see(kind, start..start + length)?;
    }
    Ok(())
}

/// What a header carries besides addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The name the client asked for.
    pub authority: Option<&'a str>,
    /// The protocol that was agreed on.
    pub alpn: Option<&'a [u8]>,
    pub checksum: bool,
}

/// The header of a connection of maitred's own, such as a probe's.
pub fn write_local() -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([LOCAL, UNSPEC, 0, 0]);
    header
}

/// The header that announces these ends; `None`: the client has none (a unix socket), which is UNSPEC. Addresses of
/// two families are both written as IPv6, the IPv4 one mapped.
pub fn write(ends: Option<Ends>, extras: Extras<'_>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(PROXY);
    let ends = ends.map(|it| (canonical(it.client), canonical(it.local)));
    let family = match ends {
        None => UNSPEC,
        Some((client, local)) if client.is_ipv4() && local.is_ipv4() => IPV4_STREAM,
        Some(_) => IPV6_STREAM,
    };
    header.extend([family, 0, 0]);
    if let Some((client, local)) = ends {
        for end in [client, local] {
            match (end.ip(), family) {
                (IpAddr::V4(ip), IPV4_STREAM) => header.extend(ip.octets()),
                (IpAddr::V4(ip), _) => header.extend(ip.to_ipv6_mapped().octets()),
                (IpAddr::V6(ip), _) => header.extend(ip.octets()),
            }
        }
        header.extend(client.port().to_be_bytes());
        header.extend(local.port().to_be_bytes());
    }
    if let Some(alpn) = extras.alpn {
        put_tlv(&mut header, TLV_ALPN, alpn);
    }
    if let Some(authority) = extras.authority {
        put_tlv(&mut header, TLV_AUTHORITY, authority.as_bytes());
    }
    let checksum_at = header.len() + 3;
    if extras.checksum {
        put_tlv(&mut header, TLV_CRC32C, &[0; 4]);
    }
    // Far below 65 535: a name and a protocol have at most 255 bytes each.
    let length = u16::try_from(header.len() - FIXED).unwrap_or(u16::MAX);
    header[14..FIXED].copy_from_slice(&length.to_be_bytes());
    if extras.checksum {
        let sum = crc32c::crc32c(&header);
        header[checksum_at..].copy_from_slice(&sum.to_be_bytes());
    }
    header
}

/// At most 255 bytes of it.
fn put_tlv(header: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let value = &value[..value.len().min(255)];
    let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
    header.extend([kind, 0, length]);
    header.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 16 << 10;

    fn ends_of(client: &str, local: &str) -> Ends {
        Ends { client: client.parse().unwrap(), local: local.parse().unwrap() }
    }

    fn with(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    #[test]
    fn ipv4_byte_by_byte() {
        let ends = ends_of("192.0.2.7:54321", "198.51.100.1:5432");
        let bytes = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54,
            0x0a, // signature
            0x21, 0x11, 0x00, 0x0c, // version and command, family and transport, length
            192, 0, 2, 7, 198, 51, 100, 1, // addresses
            0xd4, 0x31, 0x15, 0x38, // ports 54321 and 5432
        ];
        assert_eq!(write(Some(ends), Extras::default()), bytes);
        let whole = Header { length: 28, ends: Some(ends) };
        assert_eq!(read(&bytes, MOST), Ok(Progress::Whole(whole)));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end], MOST), Ok(Progress::Partial), "{end}");
        }
    }

    #[test]
    fn what_names_no_ends_of_a_stream_leaves_the_connections_own() {
        for (command, family, length) in [
            (LOCAL, 0, 0),
            (LOCAL, 0x11, 12),
            (LOCAL, 0xff, 3),
            (PROXY, 0, 0),
            (PROXY, 0, 5),
            (PROXY, 0x12, 12),
            (PROXY, 0x31, 216),
        ] {
            // With UNSPEC, five bytes are one TLV: a NOOP of two.
            let rest: Vec<u8> =
                [4, 0, 2].into_iter().chain(std::iter::repeat(0)).take(length).collect();
            let bytes = with(command, family, &rest);
            let whole = Header { length: bytes.len(), ends: None };
            assert_eq!(read(&bytes, MOST), Ok(Progress::Whole(whole)), "{command:x} {family:x}");
        }
    }

    /// A header with nothing but what a sender says about the client's TLS.
    fn tls_tlv(value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        with(PROXY, 0x11, &[&[0; 12], &[TLV_TLS, 0, length][..], value].concat())
    }

    #[test]
    fn what_is_said_of_tls_is_read_past() {
        for value in [&[1, 0, 0, 0, 0][..], b"\x07\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x02db"] {
            let bytes = tls_tlv(value);
            assert!(
                matches!(read(&bytes, MOST), Ok(Progress::Whole(it)) if it.length == bytes.len())
            );
        }
    }

    #[test]
    fn lengths_and_words_are_not_believed() {
        for (bytes, why) in [
            (with(PROXY, 0x11, &[0; 11]), BadHeader::Length),
            (with(PROXY, 0x11, &[]), BadHeader::Length),
            (with(PROXY, 0x21, &[0; 35]), BadHeader::Length),
            (with(PROXY, 0x31, &[0; 215]), BadHeader::Length),
            (with(PROXY, 0x41, &[0; 36]), BadHeader::Command),
            (with(PROXY, 0x13, &[0; 36]), BadHeader::Command),
            (with(0x22, 0x11, &[0; 12]), BadHeader::Command),
            (with(0x11, 0x11, &[0; 12]), BadHeader::Command),
            (with(PROXY, 0x11, &[0; 13]), BadHeader::Tlv),
            (with(PROXY, 0x11, &[[0; 12].as_slice(), &[4, 0, 2, 0]].concat()), BadHeader::Tlv),
            (tls_tlv(&[1, 0, 0, 0]), BadHeader::Tlv),
            (tls_tlv(&[]), BadHeader::Tlv),
            (tls_tlv(&[1, 0, 0, 0, 0, 0x22, 0, 3, b'x']), BadHeader::Tlv),
            (tls_tlv(&[1, 0, 0, 0, 0, 0x22, 0]), BadHeader::Tlv),
            (with(PROXY, 0x11, &[0; MOST - 15]), BadHeader::TooLong),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), BadHeader::NoHeader),
        ] {
            assert_eq!(read(&bytes, MOST), Err(why), "{bytes:?}");
        }
        // The fixed part alone decides.
        assert_eq!(read(&with(PROXY, 0x11, &[0; 11])[..FIXED], MOST), Err(BadHeader::Length));
    }

    #[test]
    fn extras_are_written_and_a_wrong_checksum_is_seen() {
        let ends = ends_of("[2001:db8::7]:1", "198.51.100.1:2");
        let extras =
            Extras { authority: Some("db.example.com"), alpn: Some(b"postgresql"), checksum: true };
        let mut bytes = write(Some(ends), extras);
        let tlvs =
            [b"\x01\x00\x0apostgresql".as_slice(), b"\x02\x00\x0edb.example.com", b"\x03\x00\x04"];
        assert!(bytes[FIXED + 36..].starts_with(&tlvs.concat()));
        let whole = Header { length: bytes.len(), ends: Some(ends) };
        assert_eq!(read(&bytes, MOST), Ok(Progress::Whole(whole)));
        for at in FIXED..bytes.len() - 7 {
            bytes[at] ^= 1;
            assert!(read(&bytes, MOST).is_err(), "{at}");
            bytes[at] ^= 1;
        }
        let twice = [&bytes[FIXED..], b"\x03\x00\x04\0\0\0\0"].concat();
        assert!(read(&with(PROXY, IPV6_STREAM, &twice), MOST).is_err());
    }

    fn any_end() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from),
            any::<(Ipv6Addr, u16)>().prop_map(SocketAddr::from),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            ends in proptest::option::of((any_end(), any_end())),
            name in proptest::option::of("[a-z.]{1,255}"),
            checksum: bool,
        ) {
            let ends = ends.map(|(client, local)| Ends { client, local });
            let bytes = write(ends, Extras { authority: name.as_deref(), alpn: None, checksum });
            let canonical = |it: Ends| Ends { client: canonical(it.client), local: canonical(it.local) };
            let whole = Header { length: bytes.len(), ends: ends.map(canonical) };
            prop_assert_eq!(read(&bytes, MOST), Ok(Progress::Whole(whole)));
        }
    }
}
