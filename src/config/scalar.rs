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
        _ => wrong_shape(node, format!("write {expected}"), faults),
    }
}

/// What distinguishes the four kinds of numbers when one is wrong.
struct Kind {
    noun: &'static str,
    /// A bare number gets this unit in the hint.
    unit: &'static str,
    parse: fn(&str) -> Result<u64, Wrong>,
    show: fn(u64) -> String,
    range: (u64, u64),
}

impl Kind {
    fn read(&self, text: &str, at: Span, expected: &str) -> Result<u64, Fault> {
        match (self.parse)(text) {
            Ok(value) if (self.range.0..=self.range.1).contains(&value) => Ok(value),
            Ok(_) | Err(Wrong::TooLarge) => Err(self.out_of_range(text, at)),
            Err(Wrong::NoUnit) => Err(self.no_unit(text, at)),
            Err(Wrong::Malformed) => Err(self.malformed(text, at, expected)),
        }
    }

    fn out_of_range(&self, text: &str, at: Span) -> Fault {
        let (min, max) = self.range;
        let message = format!("{} is out of range", quote(text));
        let hint = format!("allowed: {} to {}", quote(&(self.show)(min)), quote(&(self.show)(max)));
        Fault::error(Code::OutOfRange, at, message, hint)
    }

    fn no_unit(&self, text: &str, at: Span) -> Fault {
        let message = format!("{} has no unit", quote(text));
        let with = |unit: &str| quote(&format!("{text}{unit}"));
        let hint = match text.trim_start_matches('0') {
            "" => format!("write {} at least", quote(&(self.show)(self.range.0))),
            // Elsewhere a bare number of this size is in milliseconds.
            long if self.unit == "s" && long.len() > 2 => {
                format!("did you mean {} or {}?", with("ms"), with("s"))
            }
            _ => format!("did you mean {}?", with(self.unit)),
        };
        Fault::error(Code::NoUnit, at, message, hint)
    }

    fn malformed(&self, text: &str, at: Span, expected: &str) -> Fault {
        if text == "none" || is_off(text) {
            let message =
                format!("{} is not possible here: this cannot be switched off", quote(text));
            let hint = format!("write {expected}, at least {}", quote(&(self.show)(self.range.0)));
            return Fault::error(Code::Malformed, at, message, hint);
        }
        let message = format!("{} is not {}", quote(text), self.noun);
        Fault::error(Code::Malformed, at, message, format!("write {expected}"))
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
     $written:expr, $range:expr, $expected:expr, $forms:expr) => {
        impl<const MIN: u64, const MAX: u64 $(, $number: Number)?> $type<MIN, MAX $(, $number)?> {
            pub fn read(text: &str, at: Span) -> Result<$own, Fault> {
                let kind = Kind { noun: $noun, unit: $unit, parse: $parse, show: $show, range: (MIN, MAX) };
                kind.read(text, at, &Self::expected()).map($narrow)
            }

            pub fn forms() -> Vec<Json> {
                let forms: fn(u64, u64) -> Vec<Json> = $forms;
                forms(MIN, MAX)
            }
        }

        impl<const MIN: u64, const MAX: u64 $(, $number: Number)?> Key for $type<MIN, MAX $(, $number)?> {
            type Given = $own;
            type Settled = $own;

            fn decode(node: &Node, faults: &mut Faults) -> Option<$own> {
                let text = text_of(node, &Self::expected(), faults)?;
                Self::read(text, node.span).map_err(|fault| faults.push(fault)).ok()
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
                substitutable(Self::forms())
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

/// A value, or one word in its place.
macro_rules! or_word {
    ($(#[doc = $doc:literal])+ $type:ident, $word:literal, $meant:expr) => {
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
                    // What is meant by another word.
                    let meant: fn(&str, Span) -> Option<Fault> = $meant;
                    if let Some(fault) = meant(text, node.span) {
                        return faults.refuse(fault);
                    }
                } else if matches!(node.value, Value::Sequence(_)) {
                    return wrong_shape(node, format!("write {}", Self::expected()), faults);
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
    "none",
    none_is_meant
);
or_word!(
    /// `auto` leaves it to the program.
    OrAuto,
    "auto",
    |text, at| not_here(text, at, &["none"], "write `auto` or a value")
);
or_word!(
    /// `same` takes it from elsewhere.
    OrSame,
    "same",
    |text, at| not_here(text, at, &["none", "auto"], "write `same` or a value")
);
or_word!(
    /// `system` takes what the machine has.
    OrSystem,
    "system",
    |text, at| not_here(text, at, &["none", "auto"], "write `system` or the path of a file")
);

/// Zero and the words for off, where `none` is meant.
fn none_is_meant(text: &str, at: Span) -> Option<Fault> {
    if is_off(text) {
        return Some(off_for_none(text, at));
    }
    let numbers = [milliseconds, grammar::size, grammar::share, grammar::count];
    if !numbers.iter().any(|parse| parse(text) == Ok(0)) {
        return None;
    }
    let message = format!("{} would switch this off, and off is written `none`", quote(text));
    Some(Fault::error(Code::ZeroForNone, at, message, "write `none`"))
}

/// The words for what cannot be had here.
fn not_here(text: &str, at: Span, words: &[&str], hint: &str) -> Option<Fault> {
    let message = || format!("{} is not possible here", quote(text));
    words.contains(&text).then(|| Fault::error(Code::UnknownWord, at, message(), hint))
}
