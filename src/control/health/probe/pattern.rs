//! What a probe expects, and whether a reply contains it. Shared by `exchange` and `udp`.

use crate::config::Expect;

/// How much of a reply is examined.
pub(super) const REPLY: usize = 16 * 1024;

/// Bytes of a compiled pattern; `parse` refuses larger ones.
const PATTERN: usize = 1 << 20;

pub(super) enum Pattern {
    Bytes(Vec<u8>),
    Regex(regex::bytes::Regex),
    /// A regular expression that does not compile matches nothing. `parse` refuses such expressions.
    Unfit,
}

impl Pattern {
    pub(super) fn new(expect: &Expect) -> Pattern {
        match expect {
            Expect::Bytes(bytes) => Pattern::Bytes(bytes.clone()),
            Expect::Regex(source) => regex::bytes::RegexBuilder::new(source)
                .size_limit(PATTERN)
                .build()
                .map_or(Pattern::Unfit, Pattern::Regex),
        }
    }

    /// Whether `reply` contains it; the first `seen` bytes alone did not.
    pub(super) fn is_in(&self, reply: &[u8], seen: usize) -> bool {
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
        /// However a reply is split into pieces, the match is found as soon as it is complete, and not before.
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
        assert!(!Pattern::new(&Expect::Regex("(".into())).is_in(b"(", 0));
    }
}
