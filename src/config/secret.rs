//! Lines of a configuration that no report quotes: they hold a password. The text is looked at, not what was made of it, as
//! a text that cannot be read may hold one, too, and so may a key that is misspelt.

/// A password does not go on for longer.
const MOST_LINES: usize = 32;

/// Whether the line that holds this byte may hold a secret: one with such a key, or one that its value goes on in.
pub fn stands_in(text: &str, byte: usize) -> bool {
    let (mut start, line) = line_around(text, byte);
    if has_key(line) || is_of_login(text, start, line) {
        return true;
    }
    let own = indent(line);
    for _ in 0..MOST_LINES {
        let Some(before) = start.checked_sub(1) else { return false };
        let line;
        (start, line) = line_around(text, before);
        if has_key(line) {
            return is_open(line) && (own > indent(line) || line.contains(['{', '"', '\'']));
        }
    }
    false
}

/// A line of a probe that logs in, where any key may be `password` misspelt.
fn is_of_login(text: &str, start: usize, line: &str) -> bool {
    let begins = |line: &str| {
        let mut words = line.split(|it: char| !it.is_ascii_alphanumeric());
        words.any(|word| ["postgres", "mysql", "redis"].contains(&word))
    };
    if line.contains("probe") && begins(line) {
        return true;
    }
    // The keys around it: those of the lines before that are indented less and less.
    let (mut start, mut depth, mut was_login) = (start, indent(line), begins(line));
    for _ in 0..MOST_LINES {
        let Some(before) = start.checked_sub(1) else { return false };
        let line;
        (start, line) = line_around(text, before);
        if line.trim().is_empty() || indent(line) >= depth {
            continue;
        }
        if line.contains("probe") && (was_login || begins(line)) {
            return true;
        }
        (depth, was_login) = (indent(line), was_login || begins(line));
    }
    false
}

/// A key as it may be shown: a password may have got into one that is none of ours.
pub fn word_of(key: &str) -> String {
    let is_of_word = |letter: char| letter.is_alphanumeric() || "_-.".contains(letter);
    let end = key.find(|letter| !is_of_word(letter)).unwrap_or(key.len());
    let word = key[..end].to_ascii_lowercase();
    let is_secret = ["pas", "pw", "secret"].iter().any(|it| word.contains(it));
    if is_secret && end < key.len() { format!("{}…", &key[..end]) } else { key.to_owned() }
}

/// A key such as `password`, but none that names a file.
fn has_key(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let ends =
        line.match_indices(':').map(|(colon, _)| line[..colon].trim_end_matches(['"', '\'', ' ']));
    ends.into_iter().any(|before| {
        let is_of_key = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
        let key = &before[before.trim_end_matches(is_of_key).len()..];
        !key.ends_with("file") && ["passw", "pwd", "secret"].iter().any(|it| key.contains(it))
    })
}

/// Whether the last value of a line goes on in the next: there is none yet, a block begins, or a quote is open.
fn is_open(line: &str) -> bool {
    let line = line.trim_end();
    let is_quote_open = |quote| line.matches(quote).count() % 2 == 1;
    line.ends_with([':', '|', '>', '-', '+']) || is_quote_open('"') || is_quote_open('\'')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The line that holds this byte, without its end, and where it starts.
pub fn line_around(text: &str, byte: usize) -> (usize, &str) {
    let byte = text.floor_char_boundary(byte.min(text.len()));
    let start = text[..byte].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[byte..].find('\n').map_or(text.len(), |newline| byte + newline);
    (start, text[start..end].trim_end_matches('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_a_secret() {
        let shown = |text: &str| !stands_in(text, text.len() - 1);
        assert!(!shown("password: hunter2"));
        assert!(!shown("  postgres: {user: u, password: hunter2, rol: primary}"));
        assert!(!shown("{\"password\": \"hunter2\"}"));
        assert!(!shown("passwrod: hunter2") && !shown("PASSWORD : hunter2"));
        assert!(!shown("password:\n  hunter2"));
        assert!(!shown("password: |\n  hunter2"));
        assert!(!shown("password: >-\n\n  hunter2"));
        assert!(!shown("password: \"hun\n  ter2"));
        assert!(shown("password: hunter2\nuser: x"));
        assert!(!shown("probe: {postgres: {user: u, pasword: hunter2}}"));
        assert!(!shown("probe:\n  redis:\n    pass: hunter2"));
        assert!(!shown("probe:\n  redis: {user: x,\n    pass: hunter2"));
        assert!(shown("postgres:\n  bind: x") && shown("redis: {backends: []}"));
        assert!(shown("probe: {postgres: {user: u}}\ninterval: x"));
        assert_eq!((&*word_of("password:hunter2"), &*word_of("my key")), ("password…", "my key"));
        assert!(shown("password_file: /etc/x") && shown("user: password") && shown("x: 1"));
        assert!(shown("password:\n  hunter2\nuser: x"));
    }
}
