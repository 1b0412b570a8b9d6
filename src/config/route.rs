//! What the program believes about a route, and the two values that only routes have.

use std::borrow::Cow;
use std::sync::Arc;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::choice::substitutable;
use super::decode::Decode;
use super::dns_name;
use super::fault::{Code, Fault, Faults, quote};
use super::scalar::text_of;
use super::tree::{Node, Span};
use super::value::text_value;

/// A pool for sessions of which everything given holds; of what is empty or `None`, nothing is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub server_name: Vec<NamePattern>,
    pub alpn: Vec<Vec<u8>>,
    pub client: Vec<IpNet>,
    /// The port the client dialled.
    pub port: Option<u16>,
    /// `None`: closed.
    pub pool: Option<Arc<str>>,
}

impl Route {
    /// Whether only the client's first bytes tell if it holds.
    pub fn asks_for_bytes(&self) -> bool {
        !self.server_name.is_empty() || !self.alpn.is_empty()
    }
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

/// A protocol as ALPN names it.
#[derive(Clone, Debug)]
pub struct Alpn(pub String);

text_value!(
    NamePattern,
    "a server name such as `db1.example.com` or `*.example.com`",
    json_schema!({ "type": "string", "pattern": "^(\\*|(\\*\\.)?([A-Za-z0-9_-]{1,63}\\.)*[A-Za-z0-9_-]{1,63}\\.?)$" }),
    |text, at| {
        if text == "*" {
            return Ok(NamePattern::Any);
        }
        let (name, is_below) = match text.strip_prefix("*.") {
            Some(parent) => (parent, true),
            None => (text, false),
        };
        if name.contains('*') {
            let fault =
                Fault::error(Code::Malformed, at, format!("in {} a `*` is amiss", quote(text)));
            return Err(fault.hint("a `*` stands in front and for whole labels: `*.example.com`"));
        }
        let wrong = if name == "." {
            Some(("is the root", "write a name such as `db1.example.com`"))
        } else {
            dns_name::wrong_with(name)
        };
        if let Some((what, hint)) = wrong {
            return Err(
                Fault::error(Code::Malformed, at, format!("{} {what}", quote(text))).hint(hint)
            );
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Ok(if is_below { NamePattern::Below(name) } else { NamePattern::Exact(name) })
    }
);
text_value!(
    Alpn,
    "a protocol such as `postgresql` or `h2`",
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 255 }),
    |text, at| {
        if text.is_empty() || text.len() > 255 {
            let fault = Fault::error(Code::Malformed, at, "this is not a protocol of ALPN");
            return Err(fault.hint("write 1 to 255 letters, such as `postgresql` or `h2`"));
        }
        Ok(Alpn(text.to_owned()))
    }
);

#[cfg(test)]
mod tests {
    use super::*;

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
