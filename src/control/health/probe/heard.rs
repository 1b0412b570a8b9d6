//! The first bytes of a backend's reply, to be shown if it was not what a probe expects: bounded, escaped, and
//! without the text that the probe sent, which may be a password that the server repeats in its error message.

use std::cell::{Cell, RefCell};

use crate::border::text::visible;

/// Bytes kept.
const KEPT: usize = 512;

/// Bytes shown.
const SHOWN: usize = 96;

/// Anything shorter is not a secret, and hiding it would make words unreadable.
const SECRET: usize = 3;

/// A server may truncate what it repeats: this much of the beginning is hidden, too.
const BEGINNING: usize = 6;

#[derive(Debug, Default)]
pub(super) struct Heard {
    bytes: RefCell<Vec<u8>>,
    /// An empty datagram is an answer, too.
    is_anything: Cell<bool>,
}

impl Heard {
    pub fn note(&self, bytes: &[u8]) {
        let mut kept = self.bytes.borrow_mut();
        let room = KEPT - kept.len();
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// A reply that came in one piece replaces the bytes before.
    pub fn note_only(&self, bytes: &[u8]) {
        self.bytes.borrow_mut().clear();
        self.note(bytes);
        self.is_anything.set(true);
    }

    /// It was a whole message, and understood.
    pub fn forget(&self) {
        self.bytes.borrow_mut().clear();
    }

    pub fn is_nothing(&self) -> bool {
        !self.is_anything.get() && self.bytes.borrow().is_empty()
    }

    /// In quotes; `sent` is hidden.
    pub fn shown(&self, sent: &[u8]) -> String {
        let words: Vec<&[u8]> = sent
            .split(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
            .filter(|word| word.len() >= SECRET)
            .collect();
        let heard = self.bytes.borrow();
        let (mut text, mut at) = (String::from("\""), 0);
        while at < heard.len() && text.len() < SHOWN {
            let rest = &heard[at..];
            let hidden = words.iter().map(|word| repeated(word, rest)).max().unwrap_or(0);
            if hidden > 0 {
                text.push('…');
                at += hidden;
            } else {
                text.extend(rest[0].escape_ascii().map(char::from));
                at += 1;
            }
        }
        text.push('"');
        if at < heard.len() || heard.len() == KEPT {
            text.push('…');
        }
        text
    }
}

/// What a server says in an error, in one line and not without end.
pub(super) fn readable(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(text);
    let text = visible(text.trim());
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The same text without the secret: whole or cut off, also where quotes and backslashes were added, and without each run
/// of its letters and digits.
pub(super) fn hide(text: &str, secret: &str) -> String {
    let is_noise = |letter: char| matches!(letter, '\'' | '"' | '\\');
    let whole: Vec<char> = secret.chars().filter(|it| !is_noise(*it)).collect();
    let runs =
        secret.split(|it: char| !it.is_ascii_alphanumeric()).map(|run| run.chars().collect());
    let words: Vec<Vec<char>> =
        runs.chain([whole]).filter(|word: &Vec<char>| word.len() >= SECRET).collect();
    let text: Vec<char> = text.chars().collect();
    let (mut shown, mut at) = (String::new(), 0);
    while at < text.len() {
        // How much of the text from here is a word, or enough of its beginning.
        let length = |word: &Vec<char>| {
            let (mut known, mut end) = (0, 0);
            for (index, letter) in text[at..].iter().enumerate() {
                if known < word.len() && *letter == word[known] {
                    (known, end) = (known + 1, index + 1);
                } else if known == 0 || !is_noise(*letter) {
                    break;
                }
            }
            let enough = BEGINNING.min((word.len() * 2 / 3).max(SECRET));
            if known >= enough { end } else { 0 }
        };
        match words.iter().map(length).max().unwrap_or(0) {
            0 => {
                shown.push(text[at]);
                at += 1;
            }
            length => {
                shown.push('…');
                at += length;
            }
        }
    }
    shown
}

/// The number of bytes at the beginning of `heard` that are the sent text, or too much of its beginning.
fn repeated(word: &[u8], heard: &[u8]) -> usize {
    let same = word.iter().zip(heard).take_while(|(one, other)| one == other).count();
    let is_cut_off = same == heard.len() && same >= SECRET;
    if same == word.len() || same >= BEGINNING || is_cut_off { same } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(heard: &[u8], sent: &[u8]) -> String {
        let it = Heard::default();
        it.note(heard);
        it.shown(sent)
    }

    #[test]
    fn what_was_said_is_escaped_and_bounded() {
        assert_eq!(shown(b"-LOADING\r\n", b"PING\r\n"), r#""-LOADING\r\n""#);
        assert_eq!(shown(b"\x1b[2J\xff\"", b""), r#""\x1b[2J\xff\"""#);
        let long = shown(&[b'a'; 10_000], b"");
        assert!(long.ends_with("a\"…") && long.len() < SHOWN + 10, "{long}");
    }

    #[test]
    fn what_we_sent_is_not_shown() {
        let sent = b"AUTH probe s3cret-of-ours\r\nPING\r\n";
        let reply =
            b"-ERR unknown command `AUTH`, with args beginning with: `probe` `s3cret-of-ours` \r\n";
        let text = shown(reply, sent);
        assert_eq!(text, r#""-ERR unknown command `…`, with args beginning with: `…` `…` \r\n""#);
        // Truncated by the server, and by us.
        assert_eq!(shown(b"no: s3cret-o!", sent), "\"no: …!\"");
        assert_eq!(shown(b"no: s3c", sent), "\"no: …\"");
    }

    proptest! {
        #[test]
        fn no_word_of_ours_is_ever_shown(
            before in "[a-c]{0,9}",
            secret in "[a-c]{6,9}",
            after in "[a-c]{0,9}",
        ) {
            let reply = format!("{before}{secret}{after}");
            prop_assert!(!shown(reply.as_bytes(), secret.as_bytes()).contains(&secret));
        }

        #[test]
        fn nothing_but_plain_text_is_shown(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let text = shown(&bytes, &bytes[..bytes.len() / 2]);
            prop_assert!(text.chars().all(|it| it == '…' || it.is_ascii_graphic() || it == ' '));
            prop_assert!(text.len() < SHOWN + 20);
        }
    }
}
