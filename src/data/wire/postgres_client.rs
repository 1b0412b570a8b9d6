//! The client's side of PostgreSQL's protocol 3.0, as far as a probe needs it: log in, ask one question, say goodbye
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).

use md5::{Digest, Md5};

use super::Progress;

/// Ends a session; the server then closes without a line in its log.
pub const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

/// A longer message is none that a probe asks for.
pub const MOST: usize = 64 << 10;

/// One message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u8,
    pub body: &'a [u8],
}

/// Not a message of this protocol, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

/// The first message, and how many bytes it takes.
pub fn read(bytes: &[u8]) -> Result<Progress<(Message<'_>, usize)>, Bad> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(Progress::Partial) };
    if !kind.is_ascii_alphanumeric() {
        return Err(Bad);
    }
    let Some((length, rest)) = rest.split_first_chunk() else { return Ok(Progress::Partial) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Bad)?;
    let of_body = length.checked_sub(4).filter(|it| *it <= MOST).ok_or(Bad)?;
    Ok(match rest.get(..of_body) {
        Some(body) => Progress::Whole((Message { kind: *kind, body }, 5 + of_body)),
        None => Progress::Partial,
    })
}

/// How the server wants the password (`R`).
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// It is satisfied.
    Nothing,
    Cleartext,
    Md5([u8; 4]),
    /// The names of mechanisms.
    Sasl(Vec<&'a str>),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// GSSAPI, SSPI and the like, by the number.
    Other(u32),
}

pub fn wanted(body: &[u8]) -> Option<Wanted<'_>> {
    let (number, rest) = body.split_first_chunk()?;
    Some(match u32::from_be_bytes(*number) {
        0 => Wanted::Nothing,
        3 => Wanted::Cleartext,
        5 => Wanted::Md5(*rest.first_chunk()?),
        10 => {
            let names = rest.split(|byte| *byte == 0).take_while(|name| !name.is_empty());
            Wanted::Sasl(names.filter_map(|name| str::from_utf8(name).ok()).collect())
        }
        11 => Wanted::SaslContinue(rest),
        12 => Wanted::SaslFinal(rest),
        other => Wanted::Other(other),
    })
}

/// What the server says in an `E`: severity, SQLSTATE and message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told<'a> {
    pub severity: &'a [u8],
    pub code: &'a [u8],
    pub message: &'a [u8],
}

pub fn told(body: &[u8]) -> Told<'_> {
    let mut told = Told::default();
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'S', text)) => told.severity = text,
            Some((b'C', text)) => told.code = text,
            Some((b'M', text)) => told.message = text,
            _ => {}
        }
    }
    told
}

/// The columns of a row (`D`); `None`: NULL.
pub fn columns(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (count, mut rest) = body.split_first_chunk()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk()?;
        let length = i32::from_be_bytes(*length);
        let (column, after) = match usize::try_from(length) {
            Ok(length) => (Some(after.get(..length)?), &after[length..]),
            Err(_) => (None, after),
        };
        columns.push(column);
        rest = after;
    }
    Some(columns)
}

/// The first message of a client.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    let pairs = [("user", user), ("database", database), ("application_name", "maitred")];
    for text in pairs.into_iter().flat_map(|(key, value)| [key, value]) {
        body.extend(text.bytes());
        body.push(0);
    }
    body.push(0);
    [&length(body.len()), &*body].concat()
}

/// The answer to `Wanted::Cleartext` and `Wanted::Md5`.
pub fn password(text: &[u8]) -> Vec<u8> {
    message(b'p', &[text, b"\0"])
}

/// The first answer to `Wanted::Sasl`.
pub fn sasl_first(mechanism: &str, data: &[u8]) -> Vec<u8> {
    message(b'p', &[mechanism.as_bytes(), b"\0", &big_endian(data.len()), data])
}

pub fn sasl_next(data: &[u8]) -> Vec<u8> {
    message(b'p', &[data])
}

/// A question in SQL.
pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"])
}

/// `md5` of PostgreSQL: the digest of password and user, and the digest of that with the server's salt.
pub fn md5(user: &str, password: &[u8], salt: [u8; 4]) -> String {
    let hex = |parts: &[&[u8]]| {
        let mut digest = Md5::new();
        parts.iter().for_each(|part| digest.update(part));
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let inner = hex(&[password, user.as_bytes()]);
    format!("md5{}", hex(&[inner.as_bytes(), &salt]))
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[kind][..], &length(body.len()), &body].concat()
}

/// The length counts itself.
fn length(of_body: usize) -> [u8; 4] {
    big_endian(of_body + 4)
}

/// Texts of a configuration are far shorter than 2^32.
fn big_endian(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_or_not_at_all() {
        let bytes = b"Z\0\0\0\x05Irest";
        for end in 0..6 {
            assert_eq!(read(&bytes[..end]), Ok(Progress::Partial));
        }
        let whole = (Message { kind: b'Z', body: b"I" }, 6);
        assert_eq!(read(bytes), Ok(Progress::Whole(whole)));
        for bad in [&b"\0"[..], b"R\0\0\0\x03", b"R\xff\xff\xff\xff", b"D\x00\x01\x00\x05"] {
            assert_eq!(read(bad), Err(Bad), "{bad:?}");
        }
    }

    #[test]
    fn what_the_server_wants() {
        assert_eq!(wanted(b"\0\0\0\0"), Some(Wanted::Nothing));
        assert_eq!(wanted(b"\0\0\0\x05salt"), Some(Wanted::Md5(*b"salt")));
        let names = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let both = vec!["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"];
        assert_eq!(wanted(names), Some(Wanted::Sasl(both)));
        assert_eq!(wanted(b"\0\0\0\x07"), Some(Wanted::Other(7)));
        assert_eq!(wanted(b"\0\0\0\x05sal"), None);
    }

    #[test]
    fn errors_and_rows() {
        let told = told(b"SFATAL\0VFATAL\0C28P01\0Mno\0\0");
        assert_eq!((told.code, told.message), (&b"28P01"[..], &b"no"[..]));
        assert_eq!(
            columns(b"\0\x03\0\0\0\x01t\xff\xff\xff\xff\0\0\0\0"),
            Some(vec![Some(&b"t"[..]), None, Some(&b""[..])])
        );
        assert_eq!(columns(b"\0\x01\0\0\0\x02t"), None);
        assert_eq!(columns(b"\xff\xff"), None);
    }

    #[test]
    fn what_is_sent_byte_by_byte() {
        let expected = b"\0\0\0\x34\0\x03\0\0user\0u\0database\0d\0application_name\0maitred\0\0";
        assert_eq!(startup("u", "d"), expected);
        assert_eq!(query("x"), b"Q\0\0\0\x06x\0");
        assert_eq!(sasl_first("S", b"n"), b"p\0\0\0\x0bS\0\0\0\0\x01n");
        // `select 'md5' || md5(md5('secretu') || 'salt')`
        assert_eq!(md5("u", b"secret", *b"salt"), "md5f0e7c406521852962c8b0cf264d8bcbd");
    }
}
