//! Names of DNS: their form, and patterns of server names. Nothing is looked up.

use std::fmt;

use super::text::quote;

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What is wrong with it, and what to write instead.
pub fn wrong_with(text: &str) -> Option<(&'static str, &'static str)> {
    if text == "." {
        return None;
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_NAME {
        return Some(("is too long for a DNS name", "names have at most 253 letters"));
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Some((
                "is not a DNS name: there is nothing between two dots",
                "write a name such as `example.com`, or `.` for the root",
            ));
        }
        if label.len() > MAX_LABEL {
            return Some(("is not a DNS name", "between two dots there are at most 63 letters"));
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Some((
                "is not a DNS name",
                "names hold letters, digits, `-` and `_`; write others as `xn--…`",
            ));
        }
    }
    None
}

/// A server name, or all below one. In lower case, without a dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// `*`: whoever names a server.
    Any,
    /// `*.example.com`: any number of labels in front of this, but at least one.
    Below(String),
    Exact(String),
}

impl NamePattern {
    /// As a configuration writes it; `Err`: what is wrong with it, and what to write instead.
    pub fn read(text: &str) -> Result<NamePattern, (String, &'static str)> {
        if text == "*" {
            return Ok(NamePattern::Any);
        }
        let (name, is_below) = match text.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (text, false),
        };
        if name.contains('*') {
            let hint = "a `*` stands in front and for whole labels: `*.example.com`";
            return Err((format!("in {} a `*` is amiss", quote(text)), hint));
        }
        let wrong = match name {
            "." => Some(("is the root", "write a name such as `db1.example.com`")),
            _ => wrong_with(name),
        };
        if let Some((what, hint)) = wrong {
            return Err((format!("{} {what}", quote(text)), hint));
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Ok(if is_below { NamePattern::Below(name) } else { NamePattern::Exact(name) })
    }

    /// `name` as a ClientHello's is read: in lower case, without a dot at the end.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            NamePattern::Any => true,
            NamePattern::Below(parent) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            NamePattern::Exact(own) => own == name,
        }
    }

    /// Whether whatever `other` matches is matched here, too.
    pub fn covers(&self, other: &NamePattern) -> bool {
        match (self, other) {
            (NamePattern::Any, _) => true,
            (_, NamePattern::Any) => false,
            (_, NamePattern::Exact(name)) => self.matches(name),
            (NamePattern::Below(_), NamePattern::Below(parent)) => {
                self == other || self.matches(parent)
            }
            (NamePattern::Exact(_), NamePattern::Below(_)) => false,
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamePattern::Any => f.write_str("*"),
            NamePattern::Below(parent) => write!(f, "*.{parent}"),
            NamePattern::Exact(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_within_the_bounds_of_dns() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), 253);
        for good in [".", "com", "example.com.", "_dns._udp.example.com", &label, &longest] {
            assert!(wrong_with(good).is_none(), "{good}");
        }
        let dotted = format!("{longest}.");
        assert!(wrong_with(&dotted).is_none());
        let (long_label, long_name) = (format!("{label}a.com"), format!("{longest}a"));
        for bad in ["", "..", ".com", "a..b", "exa mple.com", "bücher.de", &long_label, &long_name]
        {
            assert!(wrong_with(bad).is_some(), "{bad}");
        }
    }

    fn below(name: &str) -> NamePattern {
        NamePattern::Below(name.to_owned())
    }

    fn exact(name: &str) -> NamePattern {
        NamePattern::Exact(name.to_owned())
    }

    #[test]
    fn a_star_stands_for_one_label_and_more() {
        let pattern = below("example.com");
        assert!(pattern.matches("a.example.com") && pattern.matches("a.b.example.com"));
        for other in ["example.com", "aexample.com", ".example.com", "example.com.evil", "com"] {
            assert!(!pattern.matches(other), "{other}");
        }
        assert!(exact("a.b").matches("a.b") && !exact("a.b").matches("x.a.b"));
        assert!(NamePattern::Any.matches("a"));
    }

    #[test]
    fn what_covers_what() {
        assert!(NamePattern::Any.covers(&below("a")) && !below("a").covers(&NamePattern::Any));
        assert!(below("b.c").covers(&below("b.c")) && below("c").covers(&below("b.c")));
        assert!(!below("b.c").covers(&below("c")) && !exact("b.c").covers(&below("b.c")));
        assert!(below("c").covers(&exact("b.c")) && !below("c").covers(&exact("c")));
    }
}
