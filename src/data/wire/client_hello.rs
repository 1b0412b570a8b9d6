//! The first message of a TLS connection, as far as routing needs it: the server name, and the protocols (ALPN) that
//! the client offers. Sources: RFC 8446, sections 4.1.2 and 5.1; RFC 6066, section 3; RFC 7301, section 3.1. The
//! message may be spread over several records, and each of those over many segments.

use std::borrow::Cow;

use super::Progress;

/// What a client offers before anything is agreed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// In lower case, without a dot at the end.
    pub server_name: Option<String>,
    /// In the client's order.
    pub alpn: Protocols,
}

/// Protocols as they are sent, each after its length: one block, however many a client invents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocols(Box<[u8]>);

impl Protocols {
    fn read(list: &[u8]) -> Result<Protocols, BadHello> {
        let mut rest = Reader(list);
        while !rest.0.is_empty() {
            if rest.vector8()?.is_empty() {
                return Err(BadHello::Malformed);
            }
        }
        Ok(Protocols(list.into()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = Reader(&self.0);
        std::iter::from_fn(move || rest.vector8().ok())
    }

    pub fn contains(&self, protocol: &[u8]) -> bool {
        self.iter().any(|own| own == protocol)
    }
}

/// At most 255 bytes each, as the protocol has it; longer ones are left out.
impl<'a> FromIterator<&'a [u8]> for Protocols {
    fn from_iter<T: IntoIterator<Item = &'a [u8]>>(protocols: T) -> Self {
        let mut list = Vec::new();
        for protocol in protocols {
            if let Ok(length) = u8::try_from(protocol.len()) {
                list.push(length);
                list.extend(protocol);
            }
        }
        Protocols(list.into())
    }
}

/// Why bytes are not a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHello {
    /// Not TLS at all, by its first bytes.
    NotTls,
    /// A length that does not fit into the one around it.
    Malformed,
    /// A server name that is not a valid name.
    ServerName,
    TooLong,
}

impl BadHello {
    pub fn as_str(self) -> &'static str {
        match self {
            BadHello::NotTls => "it does not speak TLS",
            BadHello::Malformed => "its ClientHello is malformed",
            BadHello::ServerName => "the server name in its ClientHello is not a valid name",
            BadHello::TooLong => "its ClientHello is longer than `preread_size`",
        }
    }
}

const HANDSHAKE: u8 = 22;
const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
/// Bytes before a record's content: type, version, length.
const RECORD_HEADER: usize = 5;
/// The most bytes of a record.
const MAX_RECORD: usize = 1 << 14;
/// Bytes before the message's content: type, length.
const MESSAGE_HEADER: usize = 4;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;
/// Letters of a DNS name.
const MAX_NAME: usize = 253;

/// The hello with which `bytes` begin, records included, within `most` bytes.
pub fn read(bytes: &[u8], most: usize) -> Result<Progress<Hello>, BadHello> {
    let Some(message) = message(bytes, most)? else { return Ok(Progress::Partial) };
    hello(&message).map(Progress::Whole)
}

/// The message without its header, once it is whole.
fn message(bytes: &[u8], most: usize) -> Result<Option<Cow<'_, [u8]>>, BadHello> {
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE)
        || bytes.get(1).is_some_and(|version| *version != MAJOR_VERSION)
    {
        return Err(BadHello::NotTls);
    }
    let mut read: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    while let Some((record, behind)) = record(rest)? {
        match &mut read {
            Cow::Borrowed(b"") => read = Cow::Borrowed(record),
            read => read.to_mut().extend_from_slice(record),
        }
        rest = behind;
        let (Some(&kind), length) = (read.first(), length_of(&read)) else { continue };
        if kind != CLIENT_HELLO {
            return Err(BadHello::Malformed);
        }
        let Some(end) = length.map(|length| MESSAGE_HEADER + length) else { continue };
        if end > most {
            return Err(BadHello::TooLong);
        }
        if read.len() >= end {
            return Ok(Some(match read {
                Cow::Borrowed(read) => Cow::Borrowed(&read[MESSAGE_HEADER..end]),
                Cow::Owned(read) => Cow::Owned(read[MESSAGE_HEADER..end].to_vec()),
            }));
        }
    }
    // The bytes of an unfinished record must be those of a hello, too.
    let begun = if read.is_empty() { rest.get(RECORD_HEADER..).unwrap_or_default() } else { &read };
    if begun.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(BadHello::Malformed);
    }
    if bytes.len() >= most || length_of(begun).is_some_and(|length| length > most) {
        return Err(BadHello::TooLong);
    }
    Ok(None)
}

type RecordAndRest<'a> = (&'a [u8], &'a [u8]);

/// The bytes of the first record, and what follows it; `None`: it is not whole yet.
fn record(bytes: &[u8]) -> Result<Option<RecordAndRest<'_>>, BadHello> {
    let Some((&[kind, major, _, high, low], rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if kind != HANDSHAKE || major != MAJOR_VERSION || length == 0 || length > MAX_RECORD {
        return Err(BadHello::Malformed);
    }
    Ok(rest.split_at_checked(length))
}

fn length_of(message: &[u8]) -> Option<usize> {
    let &[_, a, b, c] = message.first_chunk()?;
    Some(u32::from_be_bytes([0, a, b, c]) as usize)
}

fn hello(message: &[u8]) -> Result<Hello, BadHello> {
    let mut rest = Reader(message);
    rest.take(2 + 32)?; // version, random
    rest.vector8()?; // session
    rest.vector16()?; // cipher suites
    rest.vector8()?; // compression methods
    let mut hello = Hello::default();
    if rest.0.is_empty() {
        // TLS 1.2 and before may have no extensions.
        return Ok(hello);
    }
    let mut extensions = Reader(rest.vector16()?);
    if !rest.0.is_empty() {
        return Err(BadHello::Malformed);
    }
    let (mut has_name, mut has_alpn) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let mut body = Reader(extensions.vector16()?);
        let seen = match kind {
            SERVER_NAME => &mut has_name,
            ALPN => &mut has_alpn,
            _ => continue,
        };
        if std::mem::replace(seen, true) {
            // Two of a kind are forbidden: a backend that took the other one would see another name.
            return Err(BadHello::Malformed);
        }
        let list = body.vector16()?;
        if !body.0.is_empty() || list.is_empty() {
            return Err(BadHello::Malformed);
        }
        match kind {
            SERVER_NAME => hello.server_name = server_name(list)?,
            _ => hello.alpn = Protocols::read(list)?,
        }
    }
    Ok(hello)
}

/// The first host name of the list.
fn server_name(list: &[u8]) -> Result<Option<String>, BadHello> {
    let mut list = Reader(list);
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME && found.is_none() {
            found = Some(host_name(name)?);
        }
    }
    Ok(found)
}

fn host_name(name: &[u8]) -> Result<String, BadHello> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_known = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.iter().all(is_known);
    if !is_name || name.split(|byte| *byte == b'.').any(<[u8]>::is_empty) {
        return Err(BadHello::ServerName);
    }
    Ok(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect())
}

/// Takes from the front; missing bytes are malformed.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadHello::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, BadHello> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, BadHello> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes after their length.
    fn vector8(&mut self) -> Result<&'a [u8], BadHello> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Result<&'a [u8], BadHello> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 16 << 10;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes(), vector16(body).as_slice()].concat()
    }

    fn name_list(names: &[(u8, &str)]) -> Vec<u8> {
        let names = names
            .iter()
            .map(|(kind, name)| [&[*kind], vector16(name.as_bytes()).as_slice()].concat());
        extension(SERVER_NAME, &vector16(&names.collect::<Vec<_>>().concat()))
    }

    fn alpn(protocols: &[&str]) -> Vec<u8> {
        let list =
            protocols.iter().map(|it| [&[u8::try_from(it.len()).unwrap()], it.as_bytes()].concat());
        extension(ALPN, &vector16(&list.collect::<Vec<_>>().concat()))
    }

    fn message_with(extensions: &[u8]) -> Vec<u8> {
        let body = [
            [3, 3].as_slice(),
            &[7; 32],
            &[2, 9, 9],
            &vector16(&[0x13, 1]),
            &[1, 0],
            &vector16(extensions),
        ];
        let body = body.concat();
        [&[CLIENT_HELLO], &u32::try_from(body.len()).unwrap().to_be_bytes()[1..], &body].concat()
    }

    fn records(message: &[u8], each: usize) -> Vec<u8> {
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1], vector16(part).as_slice()].concat();
        message.chunks(each).map(record).collect::<Vec<_>>().concat()
    }

    fn read_one(extensions: &[u8]) -> Result<Hello, BadHello> {
        match read(&records(&message_with(extensions), MAX_RECORD), MOST)? {
            Progress::Partial => panic!("partial"),
            Progress::Whole(hello) => Ok(hello),
        }
    }

    #[test]
    fn the_first_name_and_all_protocols() {
        let extensions = [
            extension(10, &[0, 2, 0, 29]),
            name_list(&[(7, "other"), (0, "DB1.Example.com."), (0, "db2.example.com")]),
            alpn(&["postgresql", "h2"]),
        ];
        let hello = read_one(&extensions.concat()).unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("db1.example.com"));
        assert!(hello.alpn.iter().eq([&b"postgresql"[..], b"h2"]));
        assert_eq!(read_one(&[]), Ok(Hello::default()));
    }

    /// However it is split into records, and wherever it ends for now.
    #[test]
    fn every_cut_gives_the_same() {
        let message = message_with(&[extension(21, &[0; 300]), name_list(&[(0, "a.b")])].concat());
        for each in [1, 2, 3, 5, 100, 200, message.len()] {
            let bytes = records(&message, each);
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end], MOST), Ok(Progress::Partial), "{each} {end}");
            }
            let Ok(Progress::Whole(hello)) = read(&[&bytes, b"more".as_slice()].concat(), MOST)
            else {
                panic!("{each}")
            };
            assert_eq!(hello.server_name.as_deref(), Some("a.b"));
        }
    }

    #[test]
    fn the_first_byte_that_tells() {
        for bytes in [b"P".as_slice(), b"\0", b"\x80", b"\x16\x02", b"\x16P"] {
            assert_eq!(read(bytes, MOST), Err(BadHello::NotTls), "{bytes:?}");
        }
        for bytes in [
            b"\x16\x03\x01\0\0".as_slice(),
            b"\x16\x03\x01\x40\x01",
            b"\x16\x03\x01\0\x05\x02",
            b"\x16\x03\x01\0\x01\x01\x17",
            b"\x16\x03\x01\0\x01\x01\x17\x03\x01\0\x01",
        ] {
            let told = read(bytes, MOST);
            let waits = bytes.len() == 7;
            assert_eq!(told.is_ok(), waits, "{bytes:?} {told:?}");
        }
        assert_eq!(read(b"\x16\x03\x01\x02\0\x01\x00\x40\x01", MOST), Err(BadHello::TooLong));
        assert_eq!(read(b"\x16\x03\x01\x02\0\x01\xff\xff\xff", MOST), Err(BadHello::TooLong));
    }

    #[test]
    fn no_length_is_believed() {
        let name = |body: &[u8]| extension(SERVER_NAME, body);
        for (extensions, why) in [
            (name(&[]), BadHello::Malformed),
            (name(&[0, 0]), BadHello::Malformed),
            (name(&[0, 1, 0]), BadHello::Malformed),
            (name(&[0, 4, 0, 0xff, 0xff, b'a']), BadHello::Malformed),
            (name(&[0, 4, 0, 0, 1, b'a', 0]), BadHello::Malformed),
            (name_list(&[(0, "")]), BadHello::ServerName),
            (name_list(&[(0, ".")]), BadHello::ServerName),
            (name_list(&[(0, "a..b")]), BadHello::ServerName),
            (name_list(&[(0, "a\nb")]), BadHello::ServerName),
            (name_list(&[(0, "b\u{fc}cher.de")]), BadHello::ServerName),
            (name_list(&[(0, &"a".repeat(254))]), BadHello::ServerName),
            ([name_list(&[(0, "a")]), name_list(&[(0, "b")])].concat(), BadHello::Malformed),
            (alpn(&["", "h2"]), BadHello::Malformed),
            (extension(ALPN, &[0, 3, 9, b'h', b'2']), BadHello::Malformed),
            (vec![0, 0, 0xff, 0xff], BadHello::Malformed),
            (vec![0], BadHello::Malformed),
        ] {
            assert_eq!(read_one(&extensions), Err(why), "{extensions:?}");
        }
    }

    #[test]
    fn no_more_than_was_allowed_is_waited_for() {
        let message = message_with(&extension(21, &[0; 4096]));
        let bytes = records(&message, 1000);
        assert!(matches!(read(&bytes, MOST), Ok(Progress::Whole(_))));
        assert_eq!(read(&bytes, 4096), Err(BadHello::TooLong));
        // Very small records: their headers count.
        let bytes = records(&message, 1);
        assert_eq!(read(&bytes[..8192], 8192), Err(BadHello::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, MOST);
            let _ = read(&records(&bytes, 50), MOST);
            let _ = hello(&bytes);
        }
    }
}
