//! The client's side of the protocol of Redis and Valkey (RESP 2), as far as a probe needs it
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use super::Progress;

/// The most that is read of one reply.
pub const MOST: usize = 64 << 10;

/// Not a reply of this protocol, or one that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// `+OK`, `:1`.
    Plain(&'a [u8]),
    Failed(&'a [u8]),
    /// `None`: a null.
    Text(Option<&'a [u8]>),
}

/// The first reply, and how many bytes it takes.
pub fn read(bytes: &[u8]) -> Result<Progress<(Reply<'_>, usize)>, Bad> {
    let Some((kind, rest)) = bytes.split_first() else { return Ok(Progress::Partial) };
    if !b"+-:$".contains(kind) {
        return Err(Bad);
    }
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
        return if rest.len() > MOST { Err(Bad) } else { Ok(Progress::Partial) };
    };
    let (line, taken) = (&rest[..end], 1 + end + 2);
    Ok(Progress::Whole(match kind {
        b'+' | b':' => (Reply::Plain(line), taken),
        b'-' => (Reply::Failed(line), taken),
        _ if line == b"-1" => (Reply::Text(None), taken),
        _ => {
            let length = str::from_utf8(line).ok().and_then(|line| line.parse().ok());
            let length: usize = length.filter(|it| *it <= MOST).ok_or(Bad)?;
            let Some(text) = bytes.get(taken..taken + length + 2) else {
                return Ok(Progress::Partial);
            };
            let text = text.strip_suffix(b"\r\n").ok_or(Bad)?;
            (Reply::Text(Some(text)), taken + length + 2)
        }
    }))
}

/// A command and its arguments.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    command.into_bytes()
}

/// The value of a line of INFO.
pub fn info<'a>(text: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut lines = text.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.trim_ascii_end().strip_prefix(key.as_bytes())?.strip_prefix(b":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_whole_or_not_at_all() {
        let bytes = b"$5\r\nab\r\nc\r\n+OK\r\n";
        for end in 0..11 {
            assert_eq!(read(&bytes[..end]), Ok(Progress::Partial), "{end}");
        }
        let text = Reply::Text(Some(b"ab\r\nc"));
        assert_eq!(read(bytes), Ok(Progress::Whole((text, 11))));
        assert_eq!(read(b"-ERR x\r\n"), Ok(Progress::Whole((Reply::Failed(b"ERR x"), 8))));
        assert_eq!(read(b"$-1\r\n"), Ok(Progress::Whole((Reply::Text(None), 5))));
        for bad in [&b"HTTP"[..], b"$-2\r\n", b"$x\r\n", b"$99999999\r\n", b"$1\r\nabc"] {
            assert_eq!(read(bad), Err(Bad), "{bad:?}");
        }
        assert_eq!(read(&[&b"+"[..], &[b'x'; MOST + 2]].concat()), Err(Bad));
    }

    #[test]
    fn a_command_and_the_lines_of_info() {
        assert_eq!(command(&["AUTH", "pä"]), "*2\r\n$4\r\nAUTH\r\n$3\r\npä\r\n".as_bytes());
        let text = b"# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n";
        assert_eq!(info(text, "role"), Some(&b"slave"[..]));
        assert_eq!(info(text, "master_link"), None);
    }
}
