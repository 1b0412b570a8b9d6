//! Text from outside, in a form for our messages: short, quoted, and without terminal control characters.

/// A server that answers a command must not control the user's terminal.
pub fn visible(text: &str) -> String {
    let shown = |letter: char| match commands(letter) {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Characters that control a terminal, or reverse the direction of writing.
pub fn commands(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    letter.is_control() || turns
}

/// A value in the form for a message: in backquotes, short, without control characters.
pub fn quote(text: &str) -> String {
    format!("`{}`", shown(text, 60))
}

/// Text from outside in the form for a message: not too long, without control characters.
pub fn plain(text: &str) -> String {
    shown(text, 200)
}

fn shown(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).flat_map(letters).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn letters(letter: char) -> Vec<char> {
    if letter.is_control() { letter.escape_default().collect() } else { vec![letter] }
}

/// `a`, `b` or `c`.
pub fn list_words<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(quote).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
