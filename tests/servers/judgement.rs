//! What the specifications say of a client's first bytes, read anew: nothing here is maitred's, so that a mistake of its
//! parsers is not the tests' as well. Only what is whole and right counts: whether bytes are wrong or merely too few is
//! all the same, for neither may reach a backend.

use std::net::{IpAddr, SocketAddr};

/// `preread_size` of the listeners.
pub const MOST: usize = 16 << 10;

/// A PROXY header (`proxy-protocol.txt`, sections 2.1 and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    pub length: usize,
    /// The client and what it dialled, IPv4-mapped addresses as IPv4. `None`: nobody is announced.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

/// What a client asks for that may go on to a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What of its bytes is not the backend's: how it asked for encryption before.
    pub taken: usize,
    /// What it is answered meanwhile.
    pub answers: Vec<u8>,
    pub name: Option<String>,
    pub protocols: Vec<Vec<u8>>,
}

pub fn proxied(bytes: &[u8]) -> Option<Proxied> {
    if bytes.starts_with(b"PROXY ") { line(bytes) } else { binary(bytes) }
}

fn line(bytes: &[u8]) -> Option<Proxied> {
    // A line ends at its first LF, which a CR stands before, and has at most 107 bytes.
    let length = 1 + bytes.iter().take(107).position(|byte| *byte == b'\n')?;
    let line = bytes[..length].strip_suffix(b"\r\n")?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    if words.get(1) == Some(&b"UNKNOWN".as_slice()) {
        return Some(Proxied { length, ends: None });
    }
    let [_, family, client, local, client_port, local_port] = words[..] else { return None };
    let end = |ip: &[u8], port: &[u8]| {
        let ip: IpAddr = std::str::from_utf8(ip).ok()?.parse().ok()?;
        let port = std::str::from_utf8(port).ok()?;
        let number: u16 = port.parse().ok()?;
        let is_of_family = family == if ip.is_ipv4() { b"TCP4" } else { b"TCP6" };
        // Neither a sign nor noughts in front.
        (is_of_family && number.to_string() == port)
            .then(|| SocketAddr::new(ip.to_canonical(), number))
    };
    Some(Proxied { length, ends: Some((end(client, client_port)?, end(local, local_port)?)) })
}

fn binary(bytes: &[u8]) -> Option<Proxied> {
    let rest = bytes.strip_prefix(b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A")?;
    let [command, family, high, low, rest @ ..] = rest else { return None };
    let announced = usize::from(*high) * 256 + usize::from(*low);
    let (body, length) = (rest.get(..announced)?, 16 + announced);
    let nobody = Proxied { length, ends: None };
    if length > MOST {
        return None;
    }
    match command {
        0x20 => return Some(nobody),
        0x21 => {}
        _ => return None,
    }
    let size = *[0, 12, 36, 216].get(usize::from(family >> 4))?;
    if family & 0xf > 2 {
        return None;
    }
    tlvs_hold(&bytes[..length], 16 + size).then_some(())?;
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    let ends = match family {
        0x11 => {
            let ip = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&body[at..at + 4]).unwrap());
            Some(((ip(0), port(8)).into(), (ip(4), port(10)).into()))
        }
        0x21 => {
            let ip = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&body[at..at + 16]).unwrap());
            let ip = |at: usize| ip(at).to_canonical();
            Some(((ip(0), port(32)).into(), (ip(16), port(34)).into()))
        }
        _ => None,
    };
    Some(Proxied { length, ends })
}

/// Whether each TLV is whole, and the checksum, of which there is at most one, right.
fn tlvs_hold(header: &[u8], mut at: usize) -> bool {
    let mut checksums = 0;
    while at != header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return false };
        let value = at + 3..at + 3 + usize::from(*high) * 256 + usize::from(*low);
        let Some(given) = header.get(value.clone()) else { return false };
        if *kind == 3 {
            let mut zeroed = header.to_vec();
            zeroed[value.clone()].fill(0);
            checksums += 1;
            if checksums > 1 || given != crc32c(&zeroed).to_be_bytes() {
                return false;
            }
        }
        at = value.end;
    }
    true
}

/// Bit by bit, as RFC 3720 defines it.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |sum: u32| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| bit(sum)))
}

/// A PostgreSQL client may ask for TLS, and before that for another encryption; then comes a ClientHello, or anything
/// else that is no TLS.
pub fn asked(bytes: &[u8]) -> Option<Asked> {
    const TLS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
    let mut asked = Asked::default();
    while asked.taken < 16 && !asked.answers.ends_with(b"S") {
        let rest = &bytes[asked.taken..];
        if TLS.starts_with(rest) && rest != TLS || GSS.starts_with(rest) && rest != GSS {
            return None;
        }
        match rest.get(..8) {
            Some(TLS) => asked.answers.push(b'S'),
            Some(GSS) => asked.answers.push(b'N'),
            _ => break,
        }
        asked.taken += 8;
    }
    let rest = &bytes[asked.taken..];
    match rest {
        [] | [22] => return None,
        [22, 3, ..] => {}
        // No TLS; but who asked for it is held to it.
        _ => return (!asked.answers.ends_with(b"S")).then_some(asked),
    }
    let (name, protocols) = hello(&message(rest)?)?;
    Some(Asked { name, protocols, ..asked })
}

/// The first handshake message, from as many whole records as it takes (RFC 8446, section 5.1), without its head.
fn message(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    loop {
        let ([22, 3, _, high, low], behind) = rest.split_first_chunk()? else { return None };
        let length = usize::from(*high) * 256 + usize::from(*low);
        if length == 0 || length > 1 << 14 {
            return None;
        }
        message.extend(behind.get(..length)?);
        rest = &behind[length..];
        let [kind, high, middle, low, body @ ..] = &message[..] else {
            if message.first().is_some_and(|kind| *kind != 1) {
                return None;
            }
            continue;
        };
        let length =
            [high, middle, low].iter().fold(0, |sum, byte| sum * 256 + usize::from(**byte));
        if *kind != 1 || length + 4 > MOST {
            return None;
        }
        if let Some(body) = body.get(..length) {
            return Some(body.to_vec());
        }
    }
}

/// Cuts off what a length of `size` bytes announces.
fn vector<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_at_checked(size)?;
    let length = length.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte));
    let (taken, behind) = behind.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

/// RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 7301, section 3.1.
fn hello(body: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut rest = body.get(34..)?;
    for size in [1, 2, 1] {
        vector(&mut rest, size)?;
    }
    let (mut name, mut protocols) = (None, Vec::new());
    if rest.is_empty() {
        return Some((name, protocols));
    }
    let mut extensions = vector(&mut rest, 2)?;
    let mut seen = Vec::new();
    while !extensions.is_empty() {
        let (kind, behind) = extensions.split_first_chunk::<2>()?;
        extensions = behind;
        let mut inner = vector(&mut extensions, 2)?;
        if *kind != [0, 0] && *kind != [0, 16] {
            continue;
        }
        let mut list = vector(&mut inner, 2)?;
        if seen.contains(kind) || list.is_empty() || !inner.is_empty() {
            return None;
        }
        seen.push(*kind);
        while !list.is_empty() {
            if *kind == [0, 16] {
                let protocol = vector(&mut list, 1)?;
                (!protocol.is_empty()).then(|| protocols.push(protocol.to_vec()))?;
                continue;
            }
            let (kind, behind) = list.split_first()?;
            list = behind;
            let given = vector(&mut list, 2)?;
            if *kind == 0 && name.is_none() {
                name = Some(host_name(given)?);
            }
        }
    }
    rest.is_empty().then_some((name, protocols))
}

/// Letters, digits, `-`, `_`, and dots between them; case and a dot at the end do not matter.
fn host_name(given: &[u8]) -> Option<String> {
    let given = std::str::from_utf8(given).ok()?.to_ascii_lowercase();
    let given = given.strip_suffix('.').unwrap_or(&given);
    let is_label = |label: &str| {
        let is_known = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        !label.is_empty() && label.chars().all(is_known)
    };
    (given.len() <= 253 && given.split('.').all(is_label)).then(|| given.to_owned())
}
