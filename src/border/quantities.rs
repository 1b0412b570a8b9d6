//! The small languages of values: times, sizes, shares, counts. Text to number and back; no spans, no keys.

use std::time::{Duration, SystemTime};

/// Why a text is not the value it should be. What to write instead is said by `decode`, which knows the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Malformed,
    /// A bare number where a unit belongs.
    NoUnit,
    /// More than the program can count.
    TooLarge,
}

const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// A moment, in RFC 3339 to the second.
pub fn moment(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.0}"))
}

/// A sum of integers with units: `1h30m`.
pub fn time(text: &str) -> Result<Duration, Wrong> {
    if is_digits(text) {
        return Err(Wrong::NoUnit);
    }
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (number, after) = leading_number(rest)?;
        let unit_length = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let part = number.checked_mul(factor(unit, &TIME_UNITS)?).ok_or(Wrong::TooLarge)?;
        total = total.checked_add(part).ok_or(Wrong::TooLarge)?;
        rest = after;
    }
    if text.is_empty() { Err(Wrong::Malformed) } else { Ok(Duration::from_millis(total)) }
}

/// Bytes: `16KiB`.
pub fn size(text: &str) -> Result<u64, Wrong> {
    if is_digits(text) {
        return Err(Wrong::NoUnit);
    }
    let (number, unit) = leading_number(text)?;
    number.checked_mul(factor(unit, &SIZE_UNITS)?).ok_or(Wrong::TooLarge)
}

/// Percent: `10%`.
pub fn share(text: &str) -> Result<u64, Wrong> {
    if is_digits(text) {
        return Err(Wrong::NoUnit);
    }
    count(text.strip_suffix('%').ok_or(Wrong::Malformed)?)
}

/// A bare integer.
pub fn count(text: &str) -> Result<u64, Wrong> {
    if !is_digits(text) {
        return Err(Wrong::Malformed);
    }
    text.parse().map_err(|_| Wrong::TooLarge)
}

/// The shortest way to write a time; `time` reads it back.
pub fn show_time(time: Duration) -> String {
    let mut rest = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIME_UNITS {
        if rest >= factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    text
}

/// The largest unit without remainder; `size` reads it back.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_UNITS
        .into_iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / factor)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn leading_number(text: &str) -> Result<(u64, &str), Wrong> {
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = text.split_at(length);
    Ok((count(digits)?, rest))
}

fn factor(unit: &str, units: &[(&str, u64)]) -> Result<u64, Wrong> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or(Wrong::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_sums_of_integers_with_units() {
        assert_eq!(time("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(time("0s"), Ok(Duration::ZERO));
        assert_eq!(time("5"), Err(Wrong::NoUnit));
        for bad in ["", "s", "5 s", "1.5s", "-1s", "5sec", "5S", "1h30", "５s", "1e3s"] {
            assert_eq!(time(bad), Err(Wrong::Malformed), "{bad}");
        }
        assert_eq!(time("99999999999999999999s"), Err(Wrong::TooLarge));
        assert_eq!(time("18446744073709551615d"), Err(Wrong::TooLarge));
        assert_eq!(time("18446744073709551615ms1ms"), Err(Wrong::TooLarge));
    }

    #[test]
    fn sizes_have_one_unit() {
        assert_eq!(size("16KiB"), Ok(16_384));
        assert_eq!(size("16kB"), Ok(16_000));
        assert_eq!(size("16"), Err(Wrong::NoUnit));
        for bad in ["", "KiB", "16K", "16kib", "1KiB1B", "1.5MiB"] {
            assert_eq!(size(bad), Err(Wrong::Malformed), "{bad}");
        }
        assert_eq!(size("18446744073709551615GiB"), Err(Wrong::TooLarge));
    }

    #[test]
    fn shares_are_whole_percents_and_counts_are_bare() {
        assert_eq!(share("125%"), Ok(125));
        assert_eq!(share("10"), Err(Wrong::NoUnit));
        assert_eq!(share("%"), Err(Wrong::Malformed));
        assert_eq!(count("4096"), Ok(4_096));
        assert_eq!(count("+1"), Err(Wrong::Malformed));
        assert_eq!(count("1_000"), Err(Wrong::Malformed));
        assert_eq!(count("99999999999999999999"), Err(Wrong::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(milliseconds in any::<u64>(), bytes in any::<u64>()) {
            let shown = Duration::from_millis(milliseconds);
            prop_assert_eq!(time(&show_time(shown)), Ok(shown));
            prop_assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_grammar_panic(text in ".{0,40}") {
            let _ = (time(&text), size(&text), share(&text), count(&text));
        }
    }
}
