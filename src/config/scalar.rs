//! Single values with their ranges: times, counts, sizes, shares, switches, texts; and the words `none`,
//! `auto` and `same` that may stand in for them. A value out of range is told the range.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::choice::{is_off, off_for_none, substitutable};
use super::decode::{Decode, wrong_shape};
use super::fault::{Code, Fault, Faults, quote};
use super::grammar::{self, Wrong, show_size, show_time};
use super::tree::{Node, Span, Value};

/// From `MIN` to `MAX` milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN: u64, const MAX: u64>(pub Duration);

/// A bare integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count<const MIN: u64, const MAX: u64>(pub u64);

/// From `MIN` to `MAX` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size<const MIN: u64, const MAX: u64>(pub u64);

/// From `MIN` to `MAX` percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<const MIN: u64, const MAX: u64>(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch(pub bool);

pub const SECOND: u64 = 1_000;
pub const HOUR: u64 = 3_600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

impl<const MIN: u64, const MAX: u64> Count<MIN, MAX> {
    /// For types that `MAX` fits into.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> Share<MIN, MAX> {
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

/// The text of a node that must be a single value.
pub fn text_of<'a>(node: &'a Node, expected: &str, faults: &mut Faults) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(text) => Some(text),
        _ => {
            wrong_shape(node, expected, faults);
            None
        }
    }
}

/// What distinguishes the four kinds of numbers when one is wrong.
struct Kind {
    noun: &'static str,
    /// A bare number gets this unit in the hint.
    unit: &'static str,
    show: fn(u64) -> String,
    range: (u64, u64),
}

impl Kind {
    fn read(
        &self,
        node: &Node,
        expected: &str,
        parse: fn(&str) -> Result<u64, Wrong>,
        faults: &mut Faults,
    ) -> Option<u64> {
        let text = text_of(node, expected, faults)?;
        let fault = match parse(text) {
            Ok(value) if (self.range.0..=self.range.1).contains(&value) => return Some(value),
            Ok(_) | Err(Wrong::TooLarge) => self.out_of_range(text, node.span),
            Err(Wrong::NoUnit) => self.no_unit(text, node.span),
            Err(Wrong::Malformed) => self.malformed(text, node.span, expected),
        };
        faults.push(fault);
        None
    }

    fn out_of_range(&self, text: &str, at: Span) -> Fault {
        let (min, max) = self.range;
        Fault::error(Code::OutOfRange, at, format!("{} is out of range", quote(text)))
            .hint(format!("allowed: {} to {}", quote(&(self.show)(min)), quote(&(self.show)(max))))
    }

    fn no_unit(&self, text: &str, at: Span) -> Fault {
        let message = format!("{} has no unit", quote(text));
        let fault = Fault::error(Code::NoUnit, at, message);
        let with = |unit: &str| quote(&format!("{text}{unit}"));
        match text.trim_start_matches('0') {
            "" => fault.hint(format!("write {} at least", quote(&(self.show)(self.range.0)))),
            // Elsewhere a bare number of this size is in milliseconds.
            long if self.unit == "s" && long.len() > 2 => {
                fault.hint(format!("did you mean {} or {}?", with("ms"), with("s")))
            }
            _ => fault.hint(format!("did you mean {}?", with(self.unit))),
        }
    }

    fn malformed(&self, text: &str, at: Span, expected: &str) -> Fault {
        if text == "none" || is_off(text) {
            let message =
                format!("{} is not possible here: this cannot be switched off", quote(text));
            return Fault::error(Code::Malformed, at, message)
                .hint(format!("write {expected}, at least {}", quote(&(self.show)(self.range.0))));
        }
        let message = format!("{} is not {}", quote(text), self.noun);
        Fault::error(Code::Malformed, at, message).hint(format!("write {expected}"))
    }
}

fn milliseconds(text: &str) -> Result<u64, Wrong> {
    grammar::time(text).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn show_percent(percent: u64) -> String {
    format!("{percent}%")
}

fn show_milliseconds(milliseconds: u64) -> String {
    show_time(Duration::from_millis(milliseconds))
}

/// The four kinds differ only in their grammar and their words.
macro_rules! number {
    ($type:ident, $parse:expr, $wrap:expr, $noun:literal, $unit:literal, $show:expr, $expected:expr, $schema:expr) => {
        impl<const MIN: u64, const MAX: u64> Decode for $type<MIN, MAX> {
            fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
                let kind = Kind { noun: $noun, unit: $unit, show: $show, range: (MIN, MAX) };
                let wrap: fn(u64) -> Self = $wrap;
                kind.read(node, &Self::expected(), $parse, faults).map(wrap)
            }

            fn expected() -> String {
                let expected: fn(u64, u64) -> String = $expected;
                expected(MIN, MAX)
            }
        }

        impl<const MIN: u64, const MAX: u64> JsonSchema for $type<MIN, MAX> {
            fn schema_name() -> Cow<'static, str> {
                format!("{}_{MIN}_{MAX}", stringify!($type)).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let schema: fn(u64, u64) -> Vec<Schema> = $schema;
                substitutable(schema(MIN, MAX))
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

number!(
    Time,
    milliseconds,
    |value| Time(Duration::from_millis(value)),
    "a time",
    "s",
    show_milliseconds,
    |_, _| "a time such as `5s` or `1h30m`".to_owned(),
    |_, _| vec![json_schema!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" })]
);
number!(
    Count,
    grammar::count,
    Count,
    "a whole number",
    "",
    |value| value.to_string(),
    |min, max| format!("a whole number from {min} to {max}"),
    |min, max| vec![
        json_schema!({ "type": "integer", "minimum": min, "maximum": max }),
        json_schema!({ "type": "string", "pattern": "^[0-9]+$" }),
    ]
);
number!(
    Size,
    grammar::size,
    Size,
    "a size",
    "B",
    show_size,
    |_, _| "a size such as `16KiB` or `4MB`".to_owned(),
    |_, _| vec![json_schema!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|kB|MB|GB)$" })]
);
number!(
    Share,
    grammar::share,
    Share,
    "a share",
    "%",
    show_percent,
    |_, _| "a share such as `10%`".to_owned(),
    |_, _| vec![json_schema!({ "type": "string", "pattern": "^[0-9]+%$" })]
);

impl Decode for Switch {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let text = text_of(node, &Self::expected(), faults)?;
        let (meant, hint) = match text {
            "true" => return Some(Switch(true)),
            "false" => return Some(Switch(false)),
            "yes" | "on" | "Yes" | "On" | "True" | "TRUE" | "1" => (true, "did you mean `true`?"),
            "no" | "off" | "No" | "Off" | "False" | "FALSE" | "0" | "none" => {
                (true, "did you mean `false`?")
            }
            _ => (false, "write `true` or `false`"),
        };
        let code = if meant { Code::UnknownWord } else { Code::Malformed };
        let message = format!("{} is neither `true` nor `false`", quote(text));
        faults.push(Fault::error(code, node.span, message).hint(hint));
        None
    }

    fn expected() -> String {
        "`true` or `false`".to_owned()
    }
}

impl JsonSchema for Switch {
    fn schema_name() -> Cow<'static, str> {
        "Switch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        substitutable(vec![json_schema!({ "enum": [true, false, "true", "false"] })])
    }
}

/// A value, or one word in its place.
macro_rules! or_word {
    ($(#[doc = $doc:literal])+ $type:ident, $word:literal) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $type<T>(pub Option<T>);

        impl<T: Decode> Decode for $type<T> {
            fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
                if let Value::Scalar(text) = &node.value {
                    if text == $word {
                        return Some($type(None));
                    }
                    if let Some(fault) = $type::<()>::meant(text, node.span) {
                        faults.push(fault);
                        return None;
                    }
                } else if matches!(node.value, Value::Sequence(_)) {
                    wrong_shape(node, &Self::expected(), faults);
                    return None;
                }
                let before = faults.count();
                let value = T::decode(node, faults);
                faults.widen_hints(before, node.span.id, concat!(", or `", $word, "`"));
                value.map(|value| $type(Some(value)))
            }

            fn expected() -> String {
                format!("{}, or `{}`", T::expected(), $word)
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                T::keys(path, keys);
            }

            fn merge(self, defaults: &Self) -> Self {
                match (self.0, &defaults.0) {
                    (Some(own), Some(default)) => $type(Some(own.merge(default))),
                    (own, _) => $type(own),
                }
            }
        }

        impl<T: JsonSchema> JsonSchema for $type<T> {
            fn schema_name() -> Cow<'static, str> {
                format!("{}_{}", stringify!($type), T::schema_name()).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let value = generator.subschema_for::<T>();
                json_schema!({ "anyOf": [{ "const": $word }, value] })
            }

            fn inline_schema() -> bool {
                true
            }
        }
    };
}

or_word!(
    /// `none` switches it off.
    OrNone,
    "none"
);
or_word!(
    /// `auto` leaves it to the program.
    OrAuto,
    "auto"
);
or_word!(
    /// `same` takes it from elsewhere.
    OrSame,
    "same"
);

or_word!(
    /// `system` takes what the machine has.
    OrSystem,
    "system"
);

impl OrNone<()> {
    /// Zero and the words for off, where `none` is meant.
    fn meant(text: &str, at: Span) -> Option<Fault> {
        if is_off(text) {
            return Some(off_for_none(text, at));
        }
        let numbers = [milliseconds, grammar::size, grammar::share, grammar::count];
        if !numbers.iter().any(|parse| parse(text) == Ok(0)) {
            return None;
        }
        let message = format!("{} would switch this off, and off is written `none`", quote(text));
        Some(Fault::error(Code::ZeroForNone, at, message).hint("write `none`"))
    }
}

impl OrAuto<()> {
    fn meant(text: &str, at: Span) -> Option<Fault> {
        (text == "none").then(|| {
            Fault::error(Code::UnknownWord, at, "`none` is not possible here")
                .hint("write `auto` or a value")
        })
    }
}

impl OrSystem<()> {
    fn meant(text: &str, at: Span) -> Option<Fault> {
        (text == "none" || text == "auto").then(|| {
            Fault::error(Code::UnknownWord, at, format!("{} is not possible here", quote(text)))
                .hint("write `system` or the path of a file")
        })
    }
}

impl OrSame<()> {
    fn meant(text: &str, at: Span) -> Option<Fault> {
        (text == "none" || text == "auto").then(|| {
            Fault::error(Code::UnknownWord, at, format!("{} is not possible here", quote(text)))
                .hint("write `same` or a value")
        })
    }
}
