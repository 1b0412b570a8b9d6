//! The client's side of the protocol of MySQL and MariaDB, as far as a probe needs it: log in, ask, say goodbye
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>).

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::UnwrapErr;
use rsa::{Oaep, PublicKey};

use super::Progress;

/// The most that is read of one packet: the status of a replica lists the transactions it has.
pub const MOST: usize = 1 << 20;

/// What a client may do; a server is told only what it can do, too.
pub mod can {
    pub const LONG_PASSWORD: u32 = 1;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const TLS: u32 = 1 << 11;
    pub const TRANSACTIONS: u32 = 1 << 13;
    pub const SECURE: u32 = 1 << 15;
    pub const PLUGINS: u32 = 1 << 19;
    pub const ALL: u32 = LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE | PLUGINS;
}

/// `utf8mb4_general_ci`, which every server has.
const UTF8: u8 = 45;

pub const NATIVE: &str = "mysql_native_password";
pub const SHA2: &str = "caching_sha2_password";

/// Not a packet of this protocol, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    pub number: u8,
    pub body: &'a [u8],
}

/// The first packet, and how many bytes it takes.
pub fn read(bytes: &[u8]) -> Result<Progress<(Packet<'_>, usize)>, Bad> {
    let [a, b, c, number, rest @ ..] = bytes else { return Ok(Progress::Partial) };
    let length = u32::from_le_bytes([*a, *b, *c, 0]);
    let length = usize::try_from(length).ok().filter(|it| *it <= MOST).ok_or(Bad)?;
    Ok(match rest.get(..length) {
        Some(body) => Progress::Whole((Packet { number: *number, body }, 4 + length)),
        None => Progress::Partial,
    })
}

/// `body` is far below 2^24.
pub fn packet(number: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length[..3], &[number], body].concat()
}

/// The server's first words.
#[derive(Debug, PartialEq, Eq)]
pub struct Greeting {
    pub can: u32,
    pub nonce: Vec<u8>,
    pub plugin: String,
}

pub fn greeting(body: &[u8]) -> Option<Greeting> {
    let rest = body.strip_prefix(&[10])?;
    let (_version, rest) = text(rest)?;
    let rest = rest.get(4..)?;
    let (first, rest) = rest.split_first_chunk::<8>()?;
    let [0, low_a, low_b, _charset, _, _, high_a, high_b, length, rest @ ..] = rest else {
        return None;
    };
    let can = u32::from_le_bytes([*low_a, *low_b, *high_a, *high_b]);
    let rest = rest.get(10..)?;
    // With the zero at its end.
    let length = usize::from(*length).saturating_sub(8).max(13);
    let second = rest.get(..length)?;
    let nonce = [first, second.strip_suffix(&[0]).unwrap_or(second)].concat();
    let plugin = rest.get(length..).and_then(text).map_or(&[][..], |(name, _)| name);
    let plugin = if plugin.is_empty() { NATIVE.into() } else { String::from_utf8_lossy(plugin) };
    Some(Greeting { can, nonce, plugin: plugin.into_owned() })
}

/// The request to go on in TLS.
pub fn tls_request(can: u32) -> Vec<u8> {
    login_head(can | can::TLS)
}

fn login_head(can: u32) -> Vec<u8> {
    let mut body = can.to_le_bytes().to_vec();
    body.extend((1_u32 << 24).to_le_bytes());
    body.push(UTF8);
    body.extend([0; 23]);
    body
}

/// `proof` is at most 32 bytes long.
pub fn login(can: u32, user: &str, proof: &[u8], plugin: &str) -> Vec<u8> {
    let mut body = login_head(can);
    body.extend(user.bytes());
    body.push(0);
    body.push(u8::try_from(proof.len()).unwrap_or(0));
    body.extend(proof);
    if can & can::PLUGINS > 0 {
        body.extend(plugin.bytes());
        body.push(0);
    }
    body
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    Done,
    Failed(Told<'a>),
    /// Another way to prove the password.
    Switch {
        plugin: &'a [u8],
        nonce: &'a [u8],
    },
    More(&'a [u8]),
    /// The head of rows: how many columns.
    Rows(u64),
    /// The end of columns or of rows.
    End,
    Other,
}

/// What the server says in an error: number and message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    pub number: u16,
    pub message: &'a [u8],
}

/// Of a login.
pub fn reply(body: &[u8]) -> Reply<'_> {
    match body {
        [0, ..] => Reply::Done,
        [0xff, rest @ ..] => failed(rest),
        [1, rest @ ..] => Reply::More(rest),
        [0xfe, rest @ ..] => match text(rest) {
            Some((plugin, nonce)) => {
                Reply::Switch { plugin, nonce: nonce.strip_suffix(&[0]).unwrap_or(nonce) }
            }
            None => Reply::Other,
        },
        _ => Reply::Other,
    }
}

/// Of a question.
pub fn answer(body: &[u8]) -> Reply<'_> {
    match body {
        [0, ..] => Reply::Done,
        [0xff, rest @ ..] => failed(rest),
        [0xfe, ..] if body.len() < 9 => Reply::End,
        // It asks for a file of ours.
        [0xfb, ..] => Reply::Other,
        _ => number(body).map_or(Reply::Other, |(count, _)| Reply::Rows(count)),
    }
}

/// An error, or the end, in place of a column or a row.
pub fn row_reply(body: &[u8]) -> Option<Reply<'_>> {
    match body {
        [0xff, rest @ ..] => Some(failed(rest)),
        [0xfe, ..] if body.len() < 9 => Some(Reply::End),
        _ => None,
    }
}

fn failed(rest: &[u8]) -> Reply<'_> {
    let Some((code, message)) = rest.split_first_chunk() else { return Reply::Other };
    // The state is missing before the login.
    let message = match message {
        [b'#', _, _, _, _, _, message @ ..] => message,
        message => message,
    };
    Reply::Failed(Told { number: u16::from_le_bytes(*code), message })
}

/// A question in SQL.
pub fn query(sql: &str) -> Vec<u8> {
    packet(0, &[b"\x03", sql.as_bytes()].concat())
}

/// The server answers that it is there.
pub fn ping() -> Vec<u8> {
    packet(0, b"\x0e")
}

/// The server then closes.
pub fn quit() -> Vec<u8> {
    packet(0, b"\x01")
}

/// The name in the description of a column.
pub fn column_name(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    // Catalogue, schema, table, original table.
    for _ in 0..4 {
        rest = counted(rest)?.1;
    }
    counted(rest)?.0
}

/// The columns of a row; `None`: NULL.
pub fn columns(body: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let (mut columns, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        let (column, after) = counted(rest)?;
        columns.push(column);
        rest = after;
    }
    Some(columns)
}

/// A text with its length before it.
fn counted(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(&[0xfb]) {
        return Some((None, rest));
    }
    let (length, rest) = number(bytes)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Some(text), rest))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xfa => return Some((u64::from(*first), rest)),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xfb | 0xff => return None,
    };
    let (digits, rest) = rest.split_at_checked(width)?;
    let number = digits.iter().rev().fold(0, |sum, digit| sum << 8 | u64::from(*digit));
    Some((number, rest))
}

/// A text with a zero at its end.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// What proves the password to the server, by its first words; an empty password needs no proof. `None`: this plugin is
/// not known.
pub fn proof(plugin: &str, password: &str, nonce: &[u8]) -> Option<Vec<u8>> {
    match plugin {
        NATIVE | SHA2 if password.is_empty() => Some(Vec::new()),
        NATIVE => Some(native(password, nonce)),
        SHA2 => Some(sha2(password, nonce)),
        _ => None,
    }
}

/// SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))).
fn native(password: &str, nonce: &[u8]) -> Vec<u8> {
    let sha1 = |parts: &[&[u8]]| digest(Context::new(&SHA1_FOR_LEGACY_USE_ONLY), parts);
    let once = sha1(&[password.as_bytes()]);
    xor(&once, &sha1(&[nonce, &sha1(&[&once])]))
}

/// SHA256(password) xor SHA256(SHA256(SHA256(password)), nonce).
fn sha2(password: &str, nonce: &[u8]) -> Vec<u8> {
    let sha256 = |parts: &[&[u8]]| digest(Context::new(&SHA256), parts);
    let once = sha256(&[password.as_bytes()]);
    xor(&once, &sha256(&[&sha256(&[&once]), nonce]))
}

fn digest(mut context: Context, parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

fn xor(one: &[u8], other: &[u8]) -> Vec<u8> {
    one.iter().zip(other).map(|(one, other)| one ^ other).collect()
}

/// The password where the server does not know its digest yet, under the server's public key: with OAEP, after a xor with
/// the nonce. `None`: this is no such key.
pub fn sealed(password: &str, nonce: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let key = PublicKey::from_public_key_pem(str::from_utf8(key).ok()?.trim()).ok()?;
    let whole = [password.as_bytes(), b"\0"].concat();
    let mixed: Vec<u8> =
        whole.iter().zip(nonce.iter().cycle()).map(|(one, other)| one ^ other).collect();
    let padding = Oaep::<sha1::Sha1>::new();
    key.encrypt(&mut UnwrapErr(getrandom::SysRng), padding, &mixed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &[u8] = b"12345678901234567890";

    fn greet(version: &[u8], plugin: &[u8]) -> Vec<u8> {
        let mut body = [b"\x0a", version, b"\0\x07\0\0\0", &NONCE[..8], b"\0"].concat();
        body.extend(b"\xff\xf7\x2d\x02\x00\x0f\x80\x15");
        body.extend([0; 10]);
        body.extend([&NONCE[8..], b"\0", plugin, b"\0"].concat());
        body
    }

    #[test]
    fn the_first_words_of_a_server() {
        let greeting = greeting(&greet(b"8.0.36", b"caching_sha2_password")).unwrap();
        assert_eq!((&*greeting.plugin, &*greeting.nonce), (SHA2, NONCE));
        assert_eq!(greeting.can, 0x800f_f7ff);
        let body = greet(b"5.5.5-10.11", b"");
        assert_eq!(super::greeting(&body).unwrap().plugin, NATIVE);
        for end in 0..body.len() - 2 {
            let _ = super::greeting(&body[..end]);
        }
        assert!(super::greeting(b"\x09old\0").is_none());
    }

    #[test]
    fn packets_come_whole_or_not_at_all() {
        let bytes = packet(3, b"body");
        assert_eq!(bytes, b"\x04\0\0\x03body");
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(Progress::Partial));
        }
        let whole = (Packet { number: 3, body: b"body" }, 8);
        assert_eq!(read(&bytes), Ok(Progress::Whole(whole)));
        assert_eq!(read(b"\xff\xff\xff\0"), Err(Bad));
    }

    #[test]
    fn replies() {
        let denied = Told { number: 1045, message: b"denied" };
        assert_eq!(reply(b"\xff\x15\x04#28000denied"), Reply::Failed(denied));
        let blocked = Told { number: 1129, message: b"blocked" };
        assert_eq!(reply(b"\xff\x69\x04blocked"), Reply::Failed(blocked));
        let switch = Reply::Switch { plugin: b"x", nonce: b"abc" };
        assert_eq!(reply(b"\xfex\0abc\0"), switch);
        assert_eq!(reply(b"\x01\x04"), Reply::More(b"\x04"));
        assert_eq!(answer(b"\x02"), Reply::Rows(2));
        assert_eq!(answer(b"\xfb/etc/passwd"), Reply::Other);
        assert_eq!(row_reply(b"\xfe\0\0\x02\0"), Some(Reply::End));
        assert_eq!(row_reply(b"\x01a"), None);
    }

    #[test]
    fn rows_and_names() {
        assert_eq!(columns(b"\x011\xfb\0"), Some(vec![Some(&b"1"[..]), None, Some(&b""[..])]));
        assert_eq!(columns(b"\x05abc"), None);
        let long = [&b"\xfc\x2c\x01"[..], &[b'x'; 300]].concat();
        assert_eq!(columns(&long).unwrap()[0].unwrap().len(), 300);
        assert_eq!(column_name(b"\x03def\0\0\0\x01x\x01y"), Some(&b"x"[..]));
    }

    /// Made with the `hashlib` of Python.
    #[test]
    fn proofs_of_a_password() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|it| format!("{it:02x}")).collect::<String>();
        assert_eq!(hex(native("secret", NONCE)), "0f8b9033e0897c0a8338ebe3dea9010dda47ab56");
        assert_eq!(
            hex(sha2("secret", NONCE)),
            "51ecd6dedbd34d5445c0a190d4f51acf0d23b94db66c91f3f789faa9193751cd"
        );
        assert_eq!(proof(NATIVE, "", NONCE), Some(Vec::new()));
        assert_eq!(proof("dialog", "secret", NONCE), None);
    }

    #[test]
    fn a_key_that_is_none_is_refused_and_a_password_longer_than_the_key_allows() {
        assert_eq!(sealed("secret", NONCE, b"-----BEGIN PUBLIC KEY-----\n"), None);
        let key = include_bytes!("test_key.pem");
        assert_eq!(sealed("secret", NONCE, key).unwrap().len(), 256);
        assert_eq!(sealed(&"x".repeat(256), NONCE, key), None);
    }
}
