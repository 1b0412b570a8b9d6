//! Single values with a shape of their own: addresses, names, payloads of probes, status codes, the
//! version. Each is checked as far as it can be without looking at another key.

use std::borrow::Cow;
use std::net::SocketAddr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::address::{self, BadAddress, HostPort, ListenRange};
use super::choice::{Chosen, Options, is_off, off_for_none, substitutable};
use super::decode::{Decode, NAME_PATTERN, bad_name, decode_node};
use super::fault::{Code, Fault, Faults, quote};
use super::grammar;
use super::scalar::{Count, text_of};
use super::tree::{Node, Span, Value};
use super::{Expect, StatusRange};
use crate::border::addr::{BackendAddr, ZonedIp};

/// One item of `bind`; a range of ports is several addresses.
#[derive(Clone, Debug)]
pub struct Bind(pub ListenRange);

/// Where a backend is, or what to ask for where.
#[derive(Clone, Debug)]
pub enum BackendAddress {
    At(BackendAddr),
    Named(HostPort),
}

impl BackendAddress {
    /// `None`: of a host name.
    pub fn at(&self) -> Option<&BackendAddr> {
        match self {
            BackendAddress::At(address) => Some(address),
            BackendAddress::Named(_) => None,
        }
    }

    /// The host, if the port is to be the one that the client dialled.
    pub fn without_port(&self) -> Option<String> {
        match self {
            BackendAddress::At(BackendAddr::InetClientPort(ip)) => Some(ip.to_string()),
            BackendAddress::Named(HostPort { host, port: None }) => Some(host.clone()),
            BackendAddress::At(_) | BackendAddress::Named(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct AdminAddress(pub SocketAddr);

#[derive(Clone, Copy, Debug)]
pub struct SourceAddress(pub ZonedIp);

#[derive(Clone, Debug)]
pub struct Name(pub String);

/// The pool of a listener; `none`: its sessions are closed.
#[derive(Clone, Debug)]
pub struct PoolName(pub Option<String>);

/// What a probe sends.
#[derive(Clone, Debug)]
pub struct Payload(pub Option<Vec<u8>>);

/// What a probe expects.
#[derive(Clone, Debug)]
pub struct Expectation(pub Option<Expect>);

#[derive(Clone, Debug)]
pub struct RequestPath(pub String);

#[derive(Clone, Debug)]
pub struct HostText(pub String);

#[derive(Clone, Copy, Debug)]
pub struct Statuses(pub StatusRange);

/// Of the lookup table of consistent hashing; prime, so that every backend's walk visits every slot.
#[derive(Clone, Copy, Debug)]
pub struct TableSize(pub u32);

#[derive(Clone, Copy, Debug)]
pub struct Version;

/// A probe looks at no more of a reply, and there is no reason to send more.
const MAX_PAYLOAD: usize = 16 << 10;
const MAX_TABLE_SIZE: u64 = 5_000_011;
/// A pattern whose automaton needs more is refused: it would cost every probe.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// A single value whose text is read by one function.
macro_rules! text_value {
    ($type:ident, $expected:literal, $schema:expr, $read:expr) => {
        impl Decode for $type {
            fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
                let text = text_of(node, $expected, faults)?;
                let read: fn(&str, Span) -> Result<Self, Fault> = $read;
                match read(text, node.span) {
                    Ok(value) => Some(value),
                    Err(fault) => {
                        faults.push(fault);
                        None
                    }
                }
            }

            fn expected() -> String {
                $expected.to_owned()
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                substitutable(vec![$schema])
            }
        }
    };
}

text_value!(
    Bind,
    "an address such as `:5432`",
    json_schema!({ "type": "string", "pattern": "^(unix:/.+|.*:[0-9]+(-[0-9]+)?)$" }),
    |text, at| address::listen(text).map(Bind).map_err(|bad| address_fault(bad, at))
);
text_value!(
    BackendAddress,
    "an address such as `10.0.0.11:5432`",
    json_schema!({ "type": "string", "pattern": "^(unix:/.+|[0-9a-zA-Z._:\\[\\]-]+)$" }),
    |text, at| address::backend_or_name(text).map_err(|bad| address_fault(bad, at))
);
text_value!(
    AdminAddress,
    "an address such as `127.0.0.1:9900`",
    json_schema!({ "type": "string", "pattern": "^.*:[0-9]+$" }),
    |text, at| address::admin(text).map(AdminAddress).map_err(|bad| address_fault(bad, at))
);
text_value!(
    SourceAddress,
    "an address such as `10.0.0.5`",
    json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F.:]+(%.+)?$" }),
    |text, at| address::ip(text).map(SourceAddress).map_err(|bad| address_fault(bad, at))
);
text_value!(
    Name,
    "a name",
    json_schema!({ "type": "string", "pattern": NAME_PATTERN, "not": { "enum": ["none", "auto"] } }),
    |text, at| bad_name(text, at).map_or_else(|| Ok(Name(text.to_owned())), Err)
);
text_value!(
    RequestPath,
    "a path such as `/healthz`",
    json_schema!({ "type": "string", "pattern": "^/[!-~]*$" }),
    |text, at| {
        if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(RequestPath(text.to_owned()));
        }
        Err(Fault::error(
            Code::Malformed,
            at,
            format!("{} is not the path of a request", quote(text)),
        )
        .hint("begin with `/`; write spaces and other letters as `%20` and the like"))
    }
);
text_value!(
    HostText,
    "a host such as `db.example.com`",
    json_schema!({ "type": "string", "pattern": "^[!-~]+$" }),
    |text, at| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(HostText(text.to_owned()));
        }
        Err(Fault::error(Code::Malformed, at, format!("{} cannot be a Host header", quote(text)))
            .hint("write a host such as `db.example.com`, or `none` for the backend's address"))
    }
);
text_value!(
    Statuses,
    "a status or a range such as `200-399`",
    json_schema!({ "type": ["string", "integer"], "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" }),
    |text, at| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| {
            grammar::count(text)
                .ok()
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| (100..600).contains(n))
        };
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Statuses(StatusRange { first, last })),
            _ => Err(Fault::error(
                Code::Malformed,
                at,
                format!("{} is not an HTTP status", quote(text)),
            )
            .hint("write a status from 100 to 599, or a range such as `200-399`")),
        }
    }
);
text_value!(Version, "`1`", json_schema!({ "enum": [1, "1"] }), |text, at| {
    if text == "1" {
        return Ok(Version);
    }
    Err(Fault::error(Code::UnknownVersion, at, format!("version {} is not known", quote(text)))
        .hint("this program reads `version: 1`"))
});
text_value!(
    PoolName,
    "the name of a pool, or `none`",
    json_schema!({ "type": "string", "pattern": NAME_PATTERN }),
    |text, at| match text {
        "none" => Ok(PoolName(None)),
        // Whether such a pool exists is not known here; a name is what it says.
        _ => bad_name(text, at).map_or_else(|| Ok(PoolName(Some(text.to_owned()))), Err),
    }
);

fn address_fault(bad: BadAddress, at: Span) -> Fault {
    Fault::error(bad.code, at, bad.message).hint(bad.hint)
}

impl Decode for TableSize {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Count(size) = Count::<2, MAX_TABLE_SIZE>::decode(node, faults)?;
        if is_prime(size) {
            return Some(TableSize(u32::try_from(size).unwrap_or(u32::MAX)));
        }
        let below = (2..size).rev().find(|number| is_prime(*number)).unwrap_or(2);
        let above =
            (size..=MAX_TABLE_SIZE).find(|number| is_prime(*number)).unwrap_or(MAX_TABLE_SIZE);
        let message = format!("{size} is not a prime number");
        faults.push(
            Fault::error(Code::NotPrime, node.span, message)
                .hint(format!("the nearest primes are `{below}` and `{above}`")),
        );
        None
    }

    fn expected() -> String {
        "a prime number".to_owned()
    }
}

impl JsonSchema for TableSize {
    fn schema_name() -> Cow<'static, str> {
        "TableSize".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Count::<2, MAX_TABLE_SIZE>::json_schema(generator)
    }
}

/// By trial: the largest number asked about has a root of 2237.
fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|d| d * d <= number).all(|d| !number.is_multiple_of(d))
}

impl Decode for Payload {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        const FORMS: Options =
            Options { words: &["none", "some text"], mappings: &["hex"], later: &[] };
        match &node.value {
            Value::Scalar(text) if text == "none" => Some(Payload(None)),
            Value::Scalar(text) => {
                plain_bytes(text, node.span, faults).map(|bytes| Payload(Some(bytes)))
            }
            _ => match FORMS.choose(node, faults)? {
                Chosen::Mapping(_, value) => {
                    decode_node::<Hex>(value, faults).map(|hex| Payload(Some(hex.0)))
                }
                Chosen::Word(_) => None,
            },
        }
    }

    fn expected() -> String {
        "a text, `{hex: …}` or `none`".to_owned()
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(format!("{path}.hex"));
    }
}

impl JsonSchema for Payload {
    fn schema_name() -> Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let hex = generator.subschema_for::<Hex>();
        json_schema!({ "anyOf": [any_text(), only_key("hex", hex)] })
    }
}

impl Decode for Expectation {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        const FORMS: Options =
            Options { words: &["none", "some text"], mappings: &["hex", "regex"], later: &[] };
        match &node.value {
            Value::Scalar(text) if text == "none" => Some(Expectation(None)),
            Value::Scalar(text) => plain_bytes(text, node.span, faults)
                .map(|bytes| Expectation(Some(Expect::Bytes(bytes)))),
            _ => match FORMS.choose(node, faults)? {
                Chosen::Mapping("hex", value) => decode_node::<Hex>(value, faults)
                    .map(|hex| Expectation(Some(Expect::Bytes(hex.0)))),
                Chosen::Mapping(_, value) => decode_node::<Pattern>(value, faults)
                    .map(|regex| Expectation(Some(Expect::Regex(regex.0)))),
                Chosen::Word(_) => None,
            },
        }
    }

    fn expected() -> String {
        "a text, `{hex: …}`, `{regex: …}` or `none`".to_owned()
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.extend([format!("{path}.hex"), format!("{path}.regex")]);
    }
}

impl JsonSchema for Expectation {
    fn schema_name() -> Cow<'static, str> {
        "Expectation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (hex, regex) = (generator.subschema_for::<Hex>(), generator.subschema_for::<Pattern>());
        json_schema!({ "anyOf": [any_text(), only_key("hex", hex), only_key("regex", regex)] })
    }
}

#[derive(Clone, Debug)]
struct Hex(Vec<u8>);

#[derive(Clone, Debug)]
struct Pattern(String);

text_value!(
    Hex,
    "bytes in hexadecimal, such as `0a 0d`",
    json_schema!({ "type": ["string", "integer"], "pattern": "^[0-9a-fA-F\\s]+$" }),
    |text, at| {
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let fault = |message: String| {
            Err(Fault::error(Code::Malformed, at, message)
                .hint("write two digits for each byte, as in `0a 0d ff`"))
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
            Some(digits) => Ok(Hex(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())),
        }
    }
);
text_value!(
    Pattern,
    "a regular expression",
    json_schema!({ "type": "string", "minLength": 1 }),
    |text, at| {
        match regex::bytes::RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).build() {
            Ok(_) if text.is_empty() => {
                Err(Fault::error(Code::BadPattern, at, "an empty pattern matches everything")
                    .hint("for no check of the reply write `expect: none`"))
            }
            Ok(_) => Ok(Pattern(text.to_owned())),
            Err(regex::Error::CompiledTooBig(_)) => {
                Err(Fault::error(Code::BadPattern, at, "this regular expression is too large")
                    .hint("lower its repetitions, or look for a plain text"))
            }
            Err(error) => {
                Err(Fault::error(Code::BadPattern, at, "this is not a regular expression")
                    .hint(last_line(&error.to_string())))
            }
        }
    }
);

pub(super) use text_value;

/// The library draws its own caret; only its verdict is of use under ours.
fn last_line(text: &str) -> String {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn plain_bytes(text: &str, at: Span, faults: &mut Faults) -> Option<Vec<u8>> {
    if is_off(text) && text != "null" {
        // Could be meant as a payload, but far more often it is not; `{hex: …}` says it beyond doubt.
        faults.push(off_for_none(text, at));
        return None;
    }
    let message = match text.len() {
        0 => "this text is empty",
        length if length > MAX_PAYLOAD => "this text is longer than 16 KiB",
        _ => return Some(text.as_bytes().to_vec()),
    };
    faults.push(
        Fault::error(Code::OutOfRange, at, message)
            .hint("write `none` for nothing, or 1 byte to 16 KiB"),
    );
    None
}

fn any_text() -> Schema {
    json_schema!({ "type": ["string", "integer", "number"] })
}

fn only_key(key: &str, schema: Schema) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { key: schema },
        "required": [key],
        "additionalProperties": false,
    })
}
