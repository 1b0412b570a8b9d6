//! What probes send and expect: a text, bytes, or a pattern.

use serde_json::{Map, Value as Json, json};

use super::choice::{Chosen, Options, is_off, off_for_none};
use super::decode::{Key, Presence, Row, decode_node};
use super::fault::{Code, Fault, Faults, quote};
use super::properties::only_key;
use super::protocol::Protocol;
use super::tree::{Node, Span, Value};
use super::value::text_value;

/// What a probe sends.
pub struct Payload;

/// What a probe expects.
pub struct Expectation;

/// Found anywhere in the first 16 KiB of the reply = passed.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Bytes(Vec<u8>),
    /// Source of a regular expression over bytes; `parse` has compiled it once to prove it.
    Regex(String),
}

/// A probe looks at no more of a reply, and there is no reason to send more.
const MAX_PAYLOAD: usize = 16 << 10;
/// A pattern whose automaton needs more is refused: it would cost every probe.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A text, or one of these in its place.
const SENT: Options = Options { words: &["none", "some text"], mappings: &["hex"] };
const EXPECTED: Options = Options { mappings: &["hex", "regex"], ..SENT };

impl Key for Payload {
    type Given = Option<Vec<u8>>;
    type Settled = Option<Vec<u8>>;

    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
        match &node.value {
            Value::Scalar(text) if text == "none" => Some(None),
            Value::Scalar(text) => plain_bytes(text, node.span, faults).map(Some),
            _ => match SENT.choose(node, faults)? {
                Chosen::Mapping(_, value) => decode_node::<Hex>(value, faults).map(Some),
                Chosen::Word(_) => None,
            },
        }
    }

    fn settle(given: &Self::Given) -> Self::Settled {
        given.clone()
    }

    fn describe(settled: &Self::Settled, _: Option<Protocol>) -> Json {
        settled.as_ref().map_or_else(|| "none".into(), |it| written(it))
    }

    fn expected() -> String {
        "a text, `{hex: …}` or `none`".to_owned()
    }

    fn values() -> String {
        "`none`, a text, or mapping".to_owned()
    }

    fn schema(names: &mut Map<String, Json>) -> Json {
        json!({ "anyOf": [any_text(), only_key("hex", Hex::schema(names))] })
    }

    fn rows(path: &str, rows: &mut Vec<Row>) {
        rows.push(form(path, "hex", Hex::values(), "\"50 49 4e 47\"", "Bytes."));
    }
}

impl Key for Expectation {
    type Given = Option<Expect>;
    type Settled = Option<Expect>;

    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
        match &node.value {
            Value::Scalar(_) => Payload::decode(node, faults).map(|sent| sent.map(Expect::Bytes)),
            _ => match EXPECTED.choose(node, faults)? {
                Chosen::Mapping("hex", value) => {
                    decode_node::<Hex>(value, faults).map(|bytes| Some(Expect::Bytes(bytes)))
                }
                Chosen::Mapping(_, value) => {
                    decode_node::<Pattern>(value, faults).map(|regex| Some(Expect::Regex(regex)))
                }
                Chosen::Word(_) => None,
            },
        }
    }

    fn settle(given: &Self::Given) -> Self::Settled {
        given.clone()
    }

    fn describe(settled: &Self::Settled, _: Option<Protocol>) -> Json {
        match settled {
            None => "none".into(),
            Some(Expect::Bytes(it)) => written(it),
            Some(Expect::Regex(it)) => json!({ "regex": it }),
        }
    }

    fn expected() -> String {
        "a text, `{hex: …}`, `{regex: …}` or `none`".to_owned()
    }

    fn values() -> String {
        Payload::values()
    }

    fn schema(names: &mut Map<String, Json>) -> Json {
        let (hex, regex) = (Hex::schema(names), Pattern::schema(names));
        json!({ "anyOf": [any_text(), only_key("hex", hex), only_key("regex", regex)] })
    }

    fn rows(path: &str, rows: &mut Vec<Row>) {
        Payload::rows(path, rows);
        rows.push(form(path, "regex", Pattern::values(), "\"^.PONG\"", "Over bytes."));
    }
}

fn form(
    path: &str,
    key: &str,
    values: String,
    example: &'static str,
    sentence: &'static str,
) -> Row {
    let (path, presence) = (format!("{path}.{key}"), Presence::Option(example));
    Row { path, values, presence, protocol: None, needs_restart: false, sentence }
}

/// A text where it can be one, else hexadecimal.
fn written(bytes: &[u8]) -> Json {
    match str::from_utf8(bytes) {
        Ok(text) if text != "none" => text.into(),
        _ => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

text_value!(
    /// Bytes.
    struct Hex(Vec<u8>),
    "bytes in hexadecimal, such as `0a 0d`",
    [json!({ "type": ["string", "integer"], "pattern": "^[0-9a-fA-F\\s]+$" })],
    |text, at| {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let fault = |message: String| {
            let hint = "write two digits for each byte, as in `0a 0d ff`";
            Err(Fault::error(Code::Malformed, at, message, hint))
        };
        match digits {
            None => fault(format!("{} is not hexadecimal", quote(text))),
            Some(digits) if digits.is_empty() => fault("there are no bytes here".to_owned()),
            Some(digits) if digits.len() % 2 == 1 => {
                fault("this is an odd number of digits".to_owned())
            }
            Some(digits) if digits.len() / 2 > MAX_PAYLOAD => {
                fault("this is more than 16 KiB".to_owned())
            }
            Some(digits) => Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()),
        }
    },
    |it| written(it),
);
text_value!(
    /// A regular expression over bytes.
    struct Pattern(String),
    "a regular expression",
    [json!({ "type": "string", "minLength": 1 })],
    |text, at| {
        let fault = |message, hint: &str| Err(Fault::error(Code::BadPattern, at, message, hint));
        match regex::bytes::RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build() {
            Ok(_) if text.is_empty() => fault(
                "an empty pattern matches everything",
                "for no check of the reply write `expect: none`",
            ),
            Ok(_) => Ok(text.to_owned()),
            Err(regex::Error::CompiledTooBig(_)) => fault(
                "this regular expression is too large",
                "lower its repetitions, or look for a plain text",
            ),
            Err(error) => fault("this is not a regular expression", last_line(&error.to_string())),
        }
    },
    |it| it.as_str().into(),
);

/// The library draws its own caret; only its verdict is of use under ours.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

fn plain_bytes(text: &str, at: Span, faults: &mut Faults) -> Option<Vec<u8>> {
    if is_off(text) && text != "null" {
        // Could be meant as a payload, but far more often it is not; `{hex: …}` says it beyond doubt.
        return faults.refuse(off_for_none(text, at));
    }
    let message = match text.len() {
        0 => "this text is empty",
        length if length > MAX_PAYLOAD => "this text is longer than 16 KiB",
        _ => return Some(text.as_bytes().to_vec()),
    };
    let hint = "write `none` for nothing, or 1 byte to 16 KiB";
    faults.refuse(Fault::error(Code::OutOfRange, at, message, hint))
}

fn any_text() -> Json {
    json!({ "type": ["string", "integer", "number"] })
}
