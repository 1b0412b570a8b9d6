//! Single values with their ranges: times, counts, sizes, shares, switches, texts; and the words `none`,
//! `auto` and `same` that may stand in for them. A value out of range is told the range.

use std::marker::PhantomData;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::choice::{is_off, off_for_none};
use super::decode::{Key, Row, wrong_shape};
use super::fault::{Code, Fault, Faults, quote};
use super::properties::substitutable;
use super::protocol::Protocol;
use super::tree::{Node, Span, Value};
use crate::border::quantities::{self as grammar, Wrong, show_size, show_time};

/// From `MIN` to `MAX` milliseconds.
pub struct Time<const MIN: u64, const MAX: u64>;

/// A bare integer from `MIN` to `MAX`, as a `T` that it fits into.
pub struct Count<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);

/// From `MIN` to `MAX` bytes.
pub struct Size<const MIN: u64, const MAX: u64, T = u64>(PhantomData<T>);

/// From `MIN` to `MAX` percent.
pub struct Share<const MIN: u64, const MAX: u64>;

pub struct Switch;

pub const SECOND: u64 = 1_000;
pub const HOUR: u64 = 3_600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

/// Numbers that a count or a size may be for the program.
pub trait Number: Copy + TryFrom<u64> + TryInto<u64> {}

impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}

fn narrow<T: Number>(number: u64) -> T {
    T::try_from(number).unwrap_or_else(|_| unreachable!("the range of the key fits its type"))
}

fn widen<T: Number>(number: T) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
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
    grammar::time(text).map(in_milliseconds)
}

fn in_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn show_percent(percent: u64) -> String {
    format!("{percent}%")
}

fn show_milliseconds(milliseconds: u64) -> String {
    show_time(Duration::from_millis(milliseconds))
}

/// In the documentation: `1 … 100 000`.
fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

/// The four kinds differ only in their grammar and their words.
macro_rules! number {
    ($type:ident $(<$number:ident>)?, $own:ty, $parse:expr, $narrow:expr, $widen:expr, $noun:literal, $unit:literal, $show:expr,
     $written:expr, $range:expr, $expected:expr, $schema:expr) => {
        impl<const MIN: u64, const MAX: u64 $(, $number: Number)?> Key for $type<MIN, MAX $(, $number)?> {
            type Given = $own;
            type Settled = $own;

            fn decode(node: &Node, faults: &mut Faults) -> Option<$own> {
                let kind = Kind { noun: $noun, unit: $unit, show: $show, range: (MIN, MAX) };
                kind.read(node, &Self::expected(), $parse, faults).map($narrow)
            }

            fn settle(given: &$own) -> $own {
                *given
            }

            fn describe(settled: &$own, _: Option<Protocol>) -> Json {
                let written: fn(u64) -> Json = $written;
                written($widen(*settled))
            }

            fn expected() -> String {
                let expected: fn(u64, u64) -> String = $expected;
                expected(MIN, MAX)
            }

            fn values() -> String {
                let range: fn(u64) -> String = $range;
                format!("{} … {}", range(MIN), range(MAX))
            }

            fn schema(_: &mut Map<String, Json>) -> Json {
                let schema: fn(u64, u64) -> Vec<Json> = $schema;
                substitutable(schema(MIN, MAX))
            }
        }
    };
}

number!(
    Time,
    Duration,
    milliseconds,
    Duration::from_millis,
    in_milliseconds,
    "a time",
    "s",
    show_milliseconds,
    |it| show_milliseconds(it).into(),
    show_milliseconds,
    |_, _| "a time such as `5s` or `1h30m`".to_owned(),
    |_, _| vec![json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$" })]
);
number!(
    Count<T>,
    T,
    grammar::count,
    narrow,
    widen,
    "a whole number",
    "",
    |value| value.to_string(),
    Into::into,
    show_count,
    |min, max| format!("a whole number from {min} to {max}"),
    |min, max| vec![
        json!({ "type": "integer", "minimum": min, "maximum": max }),
        json!({ "type": "string", "pattern": "^[0-9]+$" }),
    ]
);
number!(
    Size<T>,
    T,
    grammar::size,
    narrow,
    widen,
    "a size",
    "B",
    show_size,
    |it| show_size(it).into(),
    show_size,
    |_, _| "a size such as `16KiB` or `4MB`".to_owned(),
    |_, _| vec![json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|kB|MB|GB)$" })]
);
number!(
    Share,
    u32,
    grammar::share,
    narrow,
    widen,
    "a share",
    "%",
    show_percent,
    |it| show_percent(it).into(),
    |it| format!("{}%", show_count(it)),
    |_, _| "a share such as `10%`".to_owned(),
    |_, _| vec![json!({ "type": "string", "pattern": "^[0-9]+%$" })]
);

impl Key for Switch {
    type Given = bool;
    type Settled = bool;

    fn decode(node: &Node, faults: &mut Faults) -> Option<bool> {
        let text = text_of(node, &Self::expected(), faults)?;
        let (meant, hint) = match text {
            "true" => return Some(true),
            "false" => return Some(false),
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

    fn settle(given: &bool) -> bool {
        *given
    }

    fn describe(settled: &bool, _: Option<Protocol>) -> Json {
        (*settled).into()
    }

    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn schema(_: &mut Map<String, Json>) -> Json {
        substitutable([json!({ "enum": [true, false, "true", "false"] })])
    }
}

/// A value, or one word in its place.
macro_rules! or_word {
    ($(#[doc = $doc:literal])+ $type:ident, $word:literal) => {
        $(#[doc = $doc])+
        pub struct $type<T>(PhantomData<T>);

        impl<T: Key> Key for $type<T> {
            type Given = Option<T::Given>;
            type Settled = Option<T::Settled>;

            fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
                if let Value::Scalar(text) = &node.value {
                    if text == $word {
                        return Some(None);
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
                value.map(Some)
            }

            fn settle(given: &Self::Given) -> Self::Settled {
                given.as_ref().map(T::settle)
            }

            fn describe(settled: &Self::Settled, of: Option<Protocol>) -> Json {
                settled.as_ref().map_or_else(|| $word.into(), |it| T::describe(it, of))
            }

            fn expected() -> String {
                format!("{}, or `{}`", T::expected(), $word)
            }

            fn values() -> String {
                format!("`{}`, or {}", $word, T::values())
            }

            fn schema(names: &mut Map<String, Json>) -> Json {
                json!({ "anyOf": [{ "const": $word }, T::schema(names)] })
            }

            fn rows(path: &str, rows: &mut Vec<Row>) {
                T::rows(path, rows);
            }

            fn merge(own: Self::Given, defaults: &Self::Given) -> Self::Given {
                match (own, defaults) {
                    (Some(own), Some(default)) => Some(T::merge(own, default)),
                    (own, _) => own,
                }
            }

            fn require(given: &Self::Given, faults: &mut Faults) {
                given.iter().for_each(|own| T::require(own, faults));
            }

            fn only(given: &mut Self::Given, protocol: Protocol, out: &mut dyn FnMut(&str, Span)) {
                given.iter_mut().for_each(|own| T::only(own, protocol, out));
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
