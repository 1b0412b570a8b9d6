//! How the page writes texts and figures: everything from outside goes through `escape`. Pure.

use std::time::Duration;

/// Unknown, which is not the same as 0.
pub const UNKNOWN: &str = "–";

pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
        escaped
    })
}

/// In groups of thousands, with a narrow no-break space.
pub fn count(count: u64) -> String {
    grouped(&count.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Per second. Anything that happened at all is never shown as 0.
pub fn rate(rate: f32) -> String {
    if rate <= 0.0 {
        "0".to_owned()
    } else if rate < 0.1 {
        "&lt;\u{202f}0.1".to_owned()
    } else if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        grouped(&format!("{rate:.0}"))
    }
}

pub fn bytes(count: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$}\u{a0}{}", UNITS[unit])
}

pub fn byte_rate(rate: f32) -> String {
    if rate <= 0.0 { "0".to_owned() } else { format!("{}/s", bytes(f64::from(rate))) }
}

/// To the two largest units.
pub fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}\u{a0}s"),
        60..3600 => format!("{minutes}\u{a0}min"),
        3600..86_400 => format!("{hours}\u{a0}h\u{a0}{}\u{a0}min", minutes % 60),
        _ => format!("{days}\u{a0}d\u{a0}{}\u{a0}h", hours % 24),
    }
}

/// `one backend`, `3 backends`.
pub fn several(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_says_cannot_become_markup() {
        assert_eq!(escape("<b>\"x\" & 'y'"), "&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;");
    }

    #[test]
    fn figures_are_short_and_only_nothing_is_0() {
        assert_eq!(bytes(1023.0), "1023\u{a0}B");
        assert_eq!(bytes(1536.0), "1.5\u{a0}KiB");
        assert_eq!(bytes(u64::MAX as f64), "16384\u{a0}PiB");
        assert_eq!(
            ["0", "999", "1\u{202f}000"],
            [0, 999, 1000].map(count).each_ref().map(|it| &**it)
        );
        assert_eq!(
            [0.0, 0.04, 0.3, 1234.4].map(rate),
            ["0", "&lt;\u{202f}0.1", "0.3", "1\u{202f}234"]
        );
        assert_eq!([0.0, 2048.0].map(byte_rate), ["0", "2.0\u{a0}KiB/s"]);
    }

    #[test]
    fn ages_have_two_units() {
        let text = |seconds| age(Duration::from_secs(seconds)).replace('\u{a0}', " ");
        assert_eq!([0, 59, 60, 3599].map(text), ["0 s", "59 s", "1 min", "59 min"]);
        assert_eq!([3660, 90_000].map(text), ["1 h 1 min", "1 d 1 h"]);
    }
}
