//! A configuration file as a tree of nodes that remember where they stand. Knows neither YAML nor the
//! meaning of any key: `parse` builds it, `decode` reads it, `error` points into it.

use std::collections::{HashMap, HashSet};

/// A place in one source, and the identity of the node that stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Index into the sources of the load.
    pub source: u32,
    /// Unique within the load, so that a fault finds its key path; an anchor replayed by an alias gets new ones.
    pub id: u32,
    /// Bytes; no source is anywhere near 4 GiB.
    pub start: u32,
    pub end: u32,
    /// Both counted from one; the column in characters.
    pub line: u32,
    pub column: u32,
}

impl Span {
    pub fn source(&self) -> usize {
        self.source as usize
    }

    pub fn bytes(&self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A place as it is kept; what does not fit is so far off that the last line will do.
pub fn to_u32(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    /// The key this node belongs to, else the node itself: what to point at when something is missing in it.
    pub anchor: Span,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    Mapping(Vec<(Key, Node)>),
    /// Nothing was written, or `~` or `null` without quotes.
    Null,
    /// The text as written, whatever type YAML would give it: unquoted `off` is the text `off`.
    Scalar(String),
    Sequence(Vec<Node>),
    /// Already reported; whoever reads it keeps silent.
    Unreadable,
}

#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// Where to point when the node as a whole is meant: a scalar stands for itself, a mapping or a list
    /// begins at its first item, which would look as if that were meant.
    pub fn place(&self) -> Span {
        match self.value {
            Value::Scalar(_) => self.span,
            _ => self.anchor,
        }
    }

    /// What it is, for "expected …, found …".
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Mapping(_) => "a mapping",
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Unreadable => "something unreadable",
        }
    }

    /// The key paths (`pools.db.backends[1].weight`) of the nodes and keys with these identities.
    pub fn paths(&self, wanted: &HashSet<u32>) -> HashMap<u32, String> {
        let mut found = HashMap::new();
        if !wanted.is_empty() {
            self.walk(&mut String::new(), wanted, &mut found);
        }
        found
    }

    fn walk(&self, path: &mut String, wanted: &HashSet<u32>, found: &mut HashMap<u32, String>) {
        if wanted.contains(&self.span.id) {
            found.insert(self.span.id, path.clone());
        }
        let length = path.len();
        match &self.value {
            Value::Mapping(entries) => {
                for (key, node) in entries {
                    push_key(path, &super::secret::word_of(&key.text));
                    if wanted.contains(&key.span.id) {
                        found.insert(key.span.id, path.clone());
                    }
                    node.walk(path, wanted, found);
                    path.truncate(length);
                }
            }
            Value::Sequence(items) => {
                for (index, node) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    node.walk(path, wanted, found);
                    path.truncate(length);
                }
            }
            Value::Null | Value::Scalar(_) | Value::Unreadable => {}
        }
    }
}

/// A name with a dot in it is set in brackets, so that the path stays unambiguous.
fn push_key(path: &mut String, key: &str) {
    if key.is_empty() || key.contains(['.', '[', ' ', '\n']) {
        path.push_str(&format!("[{key:?}]"));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}
