//! From YAML text to a tree of nodes: the one place that knows the YAML library.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::NonFiniteFloatPolicy;
use serde_yaml::{Location, Spanned};

use super::error::Source;
use super::fault::{Code, Fault, plain, quote};
use super::tree::{Key, Node, Span, Value, to_u32};

/// Enough for 200 000 backends with every key. A node is some hundred times the text that it costs.
const MAX_NODES: usize = 2_000_000;
/// Values below anchors, those of nested anchors counted again: what a few lines of aliases of aliases multiply.
const MAX_ANCHORED: usize = 200_000;
/// The deepest key has eight levels above it.
const MAX_DEPTH: usize = 32;

/// Hands out node identities; zero is for places that are no node.
#[derive(Default)]
pub struct Ids(u32);

/// The tree of one source; `index` is its place among the sources.
pub fn parse(source: &Source, index: usize, ids: &mut Ids) -> Result<Node, Box<Fault>> {
    let mut options = serde_yaml::options! {
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        ignore_binary_tag_for_string: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    let budget = options.budget.get_or_insert_default();
    budget.max_nodes = MAX_NODES;
    budget.max_events = 2 * MAX_NODES;
    budget.max_depth = MAX_DEPTH;
    budget.max_recorded_anchor_events = MAX_ANCHORED;
    budget.max_documents = 1;
    let read: Spanned<RawNode> = serde_yaml::from_str_with_options(&source.text, options)
        .map_err(|error| Box::new(syntax_fault(&error, source, index)))?;
    Converter { source, index, ids }.node(read, None)
}

/// The library's error in our words.
fn syntax_fault(error: &serde_yaml::Error, source: &Source, index: usize) -> Fault {
    let place = error.location().filter(|place| place.line() > 0);
    let span = place.map_or_else(
        || place_of(source, index, 1, 1),
        |place| {
            // What does not fit is no place in a file of ours.
            let number = |number: u64| usize::try_from(number).unwrap_or(1);
            let (line, column) = (number(place.line()), number(place.column()));
            Span { end: 0, ..place_of(source, index, line, column) }
        },
    );
    let text = error.render();
    let text = text.split(" at line ").next().unwrap_or_default();
    if let Some(rest) = text.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(", set DuplicateKeyPolicy").next().unwrap_or(rest);
        let message = format!("the key {} is given twice here", quote(key));
        let span = Span { end: span.start + to_u32(key.len()), ..span };
        let hint = "keep one of the two; in YAML the other would be lost without a word";
        return Fault::error(Code::DuplicateKey, span, message, hint);
    }
    let span = Span { end: span.start + 1, ..span };
    let (message, hint) = explain_syntax(text);
    Fault::error(Code::Syntax, span, message, hint)
}

/// The commonest slips get the cure; for the rest the library's words are clear enough.
fn explain_syntax(text: &str) -> (String, &'static str) {
    let cures = [
        ("tabs disallowed", "a tab where YAML wants spaces", "indent with spaces"),
        ("unclosed quote", "this quote is never closed", "add the closing quote on the same line"),
        ("unclosed bracket", "this bracket is never closed", "add the closing bracket"),
        (
            "mapping values are not allowed",
            "a second `key:` where a value was expected",
            "if this `:` belongs to a value, quote the value; if not, check the indentation of this line, \
             and the space after the `:` of the line before",
        ),
        (
            "did not find expected key",
            "the value ended before this",
            "indent this line as its siblings are; or quote the whole value, as in `\"[::]:5432\"`",
        ),
        (
            "simple key expected",
            "a line that is neither `key: value` nor `- item`",
            "put a space after the `:` or the `-`",
        ),
        (
            "invalid trailing content",
            "something follows a closing quote",
            "check the quotes on this line and above: one may never be closed",
        ),
        (
            "Documents {",
            "a second document begins here",
            "remove the `---`, or put it into a file of its own",
        ),
        ("Depth {", "nested too deeply", "no key lies deeper than eight levels"),
        (
            "budget breached",
            "up to here there are more values than can be read",
            "use fewer aliases, or fewer and larger ranges",
        ),
        ("unexpected character", "a value cannot begin with this character", "quote the value"),
        (
            "unknown anchor",
            "this alias names an anchor that is not defined above",
            "define `&name` first",
        ),
    ];
    for (pattern, message, hint) in cures {
        if text.contains(pattern) {
            return (message.to_owned(), hint);
        }
    }
    (format!("not readable as YAML: {}", plain(text)), "")
}

/// The library counts lines and columns always, bytes not always.
fn place_of(source: &Source, index: usize, line: usize, column: usize) -> Span {
    let line_start: usize = source.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = &source.text[line_start..];
    let offset =
        rest.char_indices().nth(column.saturating_sub(1)).map_or(rest.len(), |(byte, _)| byte);
    let start = to_u32(line_start + offset);
    Span {
        source: to_u32(index),
        id: 0,
        start,
        end: start,
        line: to_u32(line),
        column: to_u32(column),
    }
}

/// What the library tells about a node. Whatever type it sees in a scalar, we want the text.
enum RawNode {
    Mapping(Vec<(Spanned<RawNode>, Spanned<RawNode>)>),
    Null,
    Sequence(Vec<Spanned<RawNode>>),
    Text(String),
    /// A number or a boolean; its text stands in the source.
    Typed,
}

impl<'de> Deserialize<'de> for RawNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

/// The library asks for no other types where any may stand.
struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawNode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<RawNode, E> {
        Ok(RawNode::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<RawNode, E> {
        Ok(RawNode::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<RawNode, E> {
        Ok(RawNode::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<RawNode, E> {
        Ok(RawNode::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<RawNode, E> {
        Ok(RawNode::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<RawNode, E> {
        Ok(RawNode::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawNode, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawNode::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawNode, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawNode::Mapping(entries))
    }
}

/// Turns the library's nodes into ours.
struct Converter<'a> {
    source: &'a Source,
    index: usize,
    ids: &'a mut Ids,
}

impl Converter<'_> {
    fn node(&mut self, read: Spanned<RawNode>, key: Option<Span>) -> Result<Node, Box<Fault>> {
        let span = self.span(&read.referenced);
        let anchor = key.unwrap_or(span);
        let value = match read.value {
            RawNode::Null => Value::Null,
            RawNode::Text(text) => Value::Scalar(text),
            // An alias stands where it is used; its text where it is defined.
            RawNode::Typed => Value::Scalar(self.text(&read.defined)),
            RawNode::Sequence(items) => {
                let nodes: Result<_, _> =
                    items.into_iter().map(|item| self.node(item, None)).collect();
                Value::Sequence(nodes?)
            }
            RawNode::Mapping(entries) => {
                let mut nodes = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    let key = self.key(key)?;
                    let value = self.node(value, Some(key.span))?;
                    nodes.push((key, value));
                }
                Value::Mapping(nodes)
            }
        };
        Ok(Node { span, anchor, value })
    }

    fn key(&mut self, read: Spanned<RawNode>) -> Result<Key, Box<Fault>> {
        let span = self.span(&read.referenced);
        let text = match read.value {
            RawNode::Text(text) => text,
            RawNode::Typed => self.text(&read.defined),
            RawNode::Mapping(_) | RawNode::Null | RawNode::Sequence(_) => {
                let hint = "if this is a value with brackets or braces, quote it";
                let message = "a key must be a single word";
                return Err(Box::new(Fault::error(Code::Syntax, span, message, hint)));
            }
        };
        Ok(Key { text, span })
    }

    fn span(&mut self, place: &Location) -> Span {
        self.ids.0 = self.ids.0.wrapping_add(1);
        let (start, end) = bytes(place);
        Span {
            source: to_u32(self.index),
            id: self.ids.0,
            start: to_u32(start),
            end: to_u32(end),
            line: to_u32(place.line()),
            column: to_u32(place.column()),
        }
    }

    fn text(&self, place: &Location) -> String {
        let (start, end) = bytes(place);
        self.source.text.get(start..end).unwrap_or_default().to_owned()
    }
}

fn bytes(place: &Location) -> (usize, usize) {
    let to_usize = |number: Option<u64>| number.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let start = to_usize(place.span().byte_offset());
    (start, start + to_usize(place.span().byte_len()))
}
