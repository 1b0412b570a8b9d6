//! The `exchange` probe: say something, hear something. What is expected may stand anywhere in the first 16 KiB of
//! the reply and arrive in pieces; whether the backend closes then does not matter.

use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Fault;
use crate::config::Expect;

/// How much of a reply is looked at.
const REPLY: usize = 16 * 1024;

/// Read at once; a reply is short as a rule.
const PIECE: usize = 1024;

/// Bytes of a compiled pattern; `parse` refuses larger ones.
const PATTERN: usize = 1 << 20;

pub(super) struct Exchange {
    send: Option<Vec<u8>>,
    expect: Option<Pattern>,
}

enum Pattern {
    Bytes(Vec<u8>),
    Regex(regex::bytes::Regex),
    /// A regular expression that does not compile: nothing is like it. `parse` lets none through.
    Unfit,
}

impl Exchange {
    pub(super) fn new(send: Option<&[u8]>, expect: Option<&Expect>) -> Exchange {
        let expect = expect.map(|expect| match expect {
            Expect::Bytes(bytes) => Pattern::Bytes(bytes.clone()),
            Expect::Regex(source) => regex::bytes::RegexBuilder::new(source)
                .size_limit(PATTERN)
                .build()
                .map_or(Pattern::Unfit, Pattern::Regex),
        });
        Exchange { send: send.map(<[u8]>::to_vec), expect }
    }

    pub(super) async fn run(&self, mut stream: TcpStream) -> Result<(), Fault> {
        if let Some(bytes) = &self.send {
            stream.write_all(bytes).await.map_err(|error| Fault::talking(&error))?;
        }
        let Some(pattern) = &self.expect else {
            if self.send.is_some() {
                // A reset would take back what was sent; this once the close is an orderly one.
                let _ = SockRef::from(&stream).set_linger(None::<Duration>);
            }
            return Ok(());
        };
        let mut reply = Vec::with_capacity(PIECE);
        while reply.len() < REPLY {
            let seen = reply.len();
            let room = (REPLY - seen).min(PIECE) as u64;
            let count = (&mut stream).take(room).read_buf(&mut reply).await;
            match count {
                Ok(0) => return Err(Fault::mismatch("it closed without the expected reply")),
                Ok(_) if pattern.is_in(&reply, seen) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(Fault::talking(&error)),
            }
        }
        Err(Fault::mismatch("not the expected reply"))
    }
}

impl Pattern {
    /// Whether `reply` contains it; it did not while only the first `seen` bytes were there.
    fn is_in(&self, reply: &[u8], seen: usize) -> bool {
        match self {
            Pattern::Bytes(bytes) if bytes.is_empty() => true,
            Pattern::Bytes(bytes) => {
                let from = seen.saturating_sub(bytes.len() - 1);
                reply[from..].windows(bytes.len()).any(|window| window == bytes)
            }
            Pattern::Regex(regex) => regex.is_match(reply),
            Pattern::Unfit => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However a reply is cut into pieces, it is found as soon as it is whole, and not before.
        #[test]
        fn bytes_are_found_across_pieces(
            before in "[ab]{0,12}",
            wanted in "[ab]{1,4}",
            after in "[ab]{0,12}",
            piece in 1..6_usize,
        ) {
            let reply = format!("{before}{wanted}{after}").into_bytes();
            let pattern = Pattern::Bytes(wanted.clone().into_bytes());
            let whole = |end: usize| {
                std::str::from_utf8(&reply[..end]).unwrap().contains(&wanted)
            };
            let mut seen = 0;
            while seen < reply.len() {
                let end = (seen + piece).min(reply.len());
                let found = pattern.is_in(&reply[..end], seen);
                prop_assert_eq!(found, whole(end));
                if found {
                    return Ok(());
                }
                seen = end;
            }
            prop_assert!(false, "never found");
        }
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_in_nothing() {
        let exchange = Exchange::new(None, Some(&Expect::Regex("(".into())));
        assert!(!exchange.expect.unwrap().is_in(b"(", 0));
    }
}
