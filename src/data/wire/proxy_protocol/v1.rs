//! Version 1, a line of text: `PROXY TCP4 192.0.2.7 198.51.100.1 54321 5432\r\n`. Source: `proxy-protocol.txt`,
//! section 2.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{BadHeader, Ends, Header};
use crate::border::addr::canonical;
use crate::data::wire::Progress;

/// The longest line, with its CRLF.
const MAX_LINE: usize = 107;
const START: &[u8] = b"PROXY ";

/// The line with which `bytes` begin.
pub fn read(bytes: &[u8]) -> Result<Progress<Header>, BadHeader> {
    let known = bytes.len().min(START.len());
    if bytes[..known] != START[..known] {
        return Err(BadHeader::NoHeader);
    }
    let within = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return if within.len() == MAX_LINE {
            Err(BadHeader::TooLong)
        } else {
            Ok(Progress::Partial)
        };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(BadHeader::NoHeader)?;
    let rest = line.strip_prefix(START).ok_or(BadHeader::NoHeader)?;
    Ok(Progress::Whole(Header { length: end + 1, ends: ends(rest)? }))
}

fn ends(rest: &[u8]) -> Result<Option<Ends>, BadHeader> {
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        // Whatever follows it must be ignored, text or not.
        return Ok(None);
    }
    let text = std::str::from_utf8(rest).map_err(|_| BadHeader::Address)?;
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    let parse: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err(BadHeader::Command),
    };
    let mut next = || words.next().ok_or(BadHeader::Address);
    let mut ip = || parse(next()?).ok_or(BadHeader::Address);
    let (from, to) = (ip()?, ip()?);
    let mut port = || port(next()?).ok_or(BadHeader::Address);
    let (from_port, to_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(BadHeader::Address);
    }
    Ok(Some(Ends {
        client: canonical(SocketAddr::new(from, from_port)),
        local: canonical(SocketAddr::new(to, to_port)),
    }))
}

/// Decimal without a sign or a leading zero, as the specification requires.
fn port(word: &str) -> Option<u16> {
    let is_plain = word == "0" || word.starts_with(|first: char| matches!(first, '1'..='9'));
    word.parse().ok().filter(|_| is_plain)
}

/// The line that announces these ends; `None`: the connection has none to announce. Addresses of two families are
/// both written as IPv6, the IPv4 one mapped.
pub fn write(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { client, local }) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let (client, local) = (canonical(client), canonical(local));
    let (from_port, to_port) = (client.port(), local.port());
    let line = match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            format!("PROXY TCP4 {from} {to} {from_port} {to_port}\r\n")
        }
        (from, to) => {
            let (from, to) = (hexadecimal(from), hexadecimal(to));
            format!("PROXY TCP6 {from} {to} {from_port} {to_port}\r\n")
        }
    };
    line.into_bytes()
}

/// Mapped addresses in groups of hexadecimal digits: not every reader knows the dotted form within IPv6.
fn hexadecimal(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [.., high, low] = ip.to_ipv6_mapped().segments();
            format!("::ffff:{high:x}:{low:x}")
        }
        IpAddr::V6(ip) => ip.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(line: &str) -> Result<Option<(String, String)>, BadHeader> {
        match read(format!("{line}payload").as_bytes())? {
            Progress::Partial => panic!("partial: {line:?}"),
            Progress::Whole(header) => {
                assert_eq!(header.length, line.len());
                Ok(header.ends.map(|it| (it.client.to_string(), it.local.to_string())))
            }
        }
    }

    fn both(client: &str, local: &str) -> Result<Option<(String, String)>, BadHeader> {
        Ok(Some((client.to_owned(), local.to_owned())))
    }

    #[test]
    fn lines_as_the_specification_has_them() {
        assert_eq!(
            whole("PROXY TCP4 192.0.2.7 198.51.100.1 54321 5432\r\n"),
            both("192.0.2.7:54321", "198.51.100.1:5432")
        );
        assert_eq!(
            whole("PROXY TCP6 2001:db8::7 2001:db8::1 0 65535\r\n"),
            both("[2001:db8::7]:0", "[2001:db8::1]:65535")
        );
        assert_eq!(
            whole("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 1 2\r\n"),
            both("192.0.2.7:1", "198.51.100.1:2")
        );
        assert_eq!(whole("PROXY UNKNOWN\r\n"), Ok(None));
        assert_eq!(whole("PROXY UNKNOWN ffff:f...f:ffff 65535 whatever\r\n"), Ok(None));
    }

    #[test]
    fn what_follows_unknown_need_not_be_text() {
        let line = b"PROXY UNKNOWN \xff\x9f\r\n";
        let header = Header { length: line.len(), ends: None };
        assert_eq!(read(line), Ok(Progress::Whole(header)));
        assert_eq!(read(b"PROXY UNKNOWN\xff\r\n"), Err(BadHeader::Address));
        assert_eq!(read(b"PROXY UNKNOWNS\r\n"), Err(BadHeader::Command));
    }

    #[test]
    fn whatever_else_is_no_line() {
        for (line, why) in [
            ("PROXY TCP4 192.0.2.7 198.51.100.1 54321\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 54321 5432 1\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.7  198.51.100.1 54321 5432\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 054321 5432\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 65536 5432\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.7 198.51.100.1 +1 5432\r\n", BadHeader::Address),
            ("PROXY TCP4 192.0.2.07 198.51.100.1 1 5432\r\n", BadHeader::Address),
            ("PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n", BadHeader::Address),
            ("PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n", BadHeader::Address),
            ("PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n", BadHeader::Command),
            ("PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n", BadHeader::Command),
            ("PROXY \r\n", BadHeader::Command),
            ("PROXY UNKNOWN\n", BadHeader::NoHeader),
            ("PROXX TCP4", BadHeader::NoHeader),
        ] {
            assert_eq!(read(line.as_bytes()), Err(why), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107));
        assert_eq!(read(long.as_bytes()), Err(BadHeader::TooLong));
    }

    #[test]
    fn every_part_of_a_line_is_waited_for() {
        let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 54321 5432\r\n";
        for end in 0..line.len() {
            assert_eq!(read(&line[..end]), Ok(Progress::Partial), "{end}");
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_LINE - 16));
        assert_eq!(longest.len(), MAX_LINE);
        assert_eq!(whole(&longest), Ok(None));
    }

    fn any_end() -> impl Strategy<Value = SocketAddr> {
        prop_oneof![
            any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from),
            any::<(Ipv6Addr, u16)>().prop_map(SocketAddr::from)
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(client in any_end(), local in any_end()) {
            let ends = Ends { client: canonical(client), local: canonical(local) };
            let line = write(Some(Ends { client, local }));
            prop_assert!(line.len() <= MAX_LINE);
            let length = line.len();
            prop_assert_eq!(read(&line), Ok(Progress::Whole(Header { length, ends: Some(ends) })));
        }
    }
}
