//! `--name value` of the command line, each bounded. Not a parser for others: the program's own few flags.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub struct Flags {
    given: HashMap<String, String>,
}

impl Flags {
    /// A flag that is followed by another one, or by nothing, is a switch.
    pub fn parse(words: impl Iterator<Item = String>) -> Result<Flags, String> {
        let mut given = HashMap::new();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else {
                return Err(format!("`{word}` is no flag"));
            };
            let value = words.next_if(|next| !next.starts_with("--")).unwrap_or_default();
            given.insert(name.to_owned(), value);
        }
        Ok(Flags { given })
    }

    /// Every flag given is to be one of these.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.given.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(format!("`--{name}` is none of --{}", known.join(", --"))),
            None => Ok(()),
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    pub fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("--{name}: `{text}` is not understood"))
    }

    pub fn needed<T: FromStr>(&self, name: &str) -> Result<T, String> {
        self.value(name)?.ok_or_else(|| format!("--{name} is missing"))
    }

    pub fn number<T>(&self, name: &str, default: T, range: RangeInclusive<T>) -> Result<T, String>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let value = self.value(name)?.unwrap_or(default);
        if range.contains(&value) {
            return Ok(value);
        }
        Err(format!("--{name}: {value} is not within {} … {}", range.start(), range.end()))
    }
}
