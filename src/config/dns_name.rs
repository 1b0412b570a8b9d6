//! The name that a `dns` probe asks for. Only its form is checked here: it is never looked up.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::choice::substitutable;
use super::decode::Decode;
use super::fault::{Code, Fault, Faults, quote};
use super::scalar::text_of;
use super::tree::{Node, Span};
use super::value::text_value;

/// Labels of 1 to 63 letters, digits, `-` and `_`, at most 253 letters in all (RFC 1035, section 2.3.4, less the
/// lengths of the first label and of the root); a dot at the end changes nothing, and `.` alone is the root.
#[derive(Clone, Debug)]
pub struct DnsName(pub String);

const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

text_value!(
    DnsName,
    "a name such as `example.com`",
    json_schema!({ "type": "string", "pattern": "^(\\.|([A-Za-z0-9_-]{1,63}\\.)*[A-Za-z0-9_-]{1,63}\\.?)$" }),
    |text, at| match wrong_with(text) {
        None => Ok(DnsName(text.to_owned())),
        Some((what, hint)) => {
            Err(Fault::error(Code::Malformed, at, format!("{} {what}", quote(text))).hint(hint))
        }
    }
);

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
}
