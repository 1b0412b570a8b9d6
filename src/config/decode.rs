//! How a tree becomes typed values: the `Decode` trait, fields that remember where they stand, and the
//! forms that hold others (a mapping with known keys, a mapping from names, a list). Which keys there are is
//! said in `raw`; choices are in `choice`, single values in `scalar`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::elsewhere::elsewhere;
use super::fault::{Code, Fault, Faults, quote};
use super::nearest::nearest;
use super::tree::{Key, Node, Span, Value};

/// Something a node can be read as. Faults go to `faults`; `None` means that at least one was.
pub trait Decode: Clone + JsonSchema {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self>;

    /// What to write, as the object of "write …" and "expected …".
    fn expected() -> String;

    /// Adds the path of every key below `path`; `[]` stands for any item, `*` for any name.
    fn keys(_path: &str, _keys: &mut Vec<String>) {}

    /// Fills what is not given here from `defaults`. Only mappings merge; everything else replaces.
    fn merge(self, _defaults: &Self) -> Self {
        self
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Placed<T> {
    pub value: T,
    pub span: Span,
}

/// The value of a key that may be left out.
#[derive(Clone, Debug, Default)]
pub enum Field<T> {
    #[default]
    Absent,
    /// Given, but wrong, and reported as such.
    Faulty,
    Given(Placed<T>),
}

impl<T: Decode> Field<T> {
    pub fn decode(node: Option<&Node>, faults: &mut Faults) -> Self {
        let Some(node) = node else { return Field::Absent };
        match decode_node(node, faults) {
            Some(value) => Field::Given(Placed { value, span: node.place() }),
            None => Field::Faulty,
        }
    }

    pub fn merge(self, defaults: &Self) -> Self {
        match (self, defaults) {
            (Field::Given(own), Field::Given(default)) => {
                Field::Given(Placed { value: own.value.merge(&default.value), span: own.span })
            }
            (Field::Absent, default) => default.clone(),
            (own, _) => own,
        }
    }
}

impl<T> Field<T> {
    pub fn given(&self) -> Option<&Placed<T>> {
        match self {
            Field::Given(placed) => Some(placed),
            Field::Absent | Field::Faulty => None,
        }
    }

    pub fn value(&self) -> Option<&T> {
        self.given().map(|placed| &placed.value)
    }

    pub fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub fn span(&self) -> Option<Span> {
        self.given().map(|placed| placed.span)
    }

    /// Reports a key that must be given and is not.
    pub fn require(&self, key: &str, holder: Span, hint: &str, faults: &mut Faults) {
        if self.is_absent() {
            let message = format!("the key {} is missing here", quote(key));
            faults.push(Fault::error(Code::MissingKey, holder, message).hint(hint));
        }
    }
}

impl<T: Copy> Field<T> {
    pub fn copied(&self) -> Option<T> {
        self.value().copied()
    }
}

/// Reads any node, after what is wrong whatever was expected.
pub fn decode_node<T: Decode>(node: &Node, faults: &mut Faults) -> Option<T> {
    match node.value {
        Value::Unreadable => None,
        Value::Null => {
            let hint = format!("write {}, or leave the key out", T::expected());
            faults.push(
                Fault::error(Code::EmptyValue, node.anchor, "a value is missing here").hint(hint),
            );
            None
        }
        _ => T::decode(node, faults),
    }
}

/// Reports a node of the wrong form.
pub fn wrong_shape(node: &Node, expected: &str, faults: &mut Faults) {
    let message = format!("{} cannot stand here", node.kind());
    let fault = Fault::error(Code::WrongShape, node.place(), message);
    faults.push(fault.hint(format!("write {expected}")));
}

/// The keys of a mapping: those of this version, and those that a later one will know.
pub struct Keys {
    pub now: &'static [&'static str],
    pub later: &'static [&'static str],
}

/// The values of a mapping in the order of `keys.now`; unknown keys are reported.
pub fn entries<'a>(
    node: &'a Node,
    keys: &Keys,
    expected: &str,
    faults: &mut Faults,
) -> Option<Vec<Option<&'a Node>>> {
    let Value::Mapping(given) = &node.value else {
        wrong_shape(node, expected, faults);
        return None;
    };
    let mut slots = vec![None; keys.now.len()];
    for (key, value) in given {
        match keys.now.iter().position(|known| *known == key.text) {
            Some(index) => slots[index] = Some(value),
            None => faults.push(unknown_key(key, keys)),
        }
    }
    Some(slots)
}

fn unknown_key(key: &Key, keys: &Keys) -> Fault {
    let name = quote(&key.text);
    if keys.later.contains(&key.text.as_str()) {
        let message = format!("{name} is planned, but this version does not know it yet");
        return Fault::error(Code::NotYet, key.span, message).hint("remove it for now");
    }
    let known = elsewhere(&key.text, keys.now);
    let hint = match known.or_else(|| nearest(&key.text, keys.now.iter().copied())) {
        Some(known) => format!("did you mean {}?", quote(known)),
        None => format!("known here: {}", keys.now.join(", ")),
    };
    Fault::error(Code::UnknownKey, key.span, format!("unknown key {name}")).hint(hint)
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Value::Sequence(items) = &node.value else {
            wrong_shape(node, &Self::expected(), faults);
            return None;
        };
        // A faulty item is left out: it is reported, and the others are still checked against each other.
        let read: Vec<T> = items.iter().filter_map(|item| decode_node(item, faults)).collect();
        if read.is_empty() && !items.is_empty() { None } else { Some(read) }
    }

    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(&format!("{path}[]"), keys);
    }
}

impl<T: Decode> Decode for Placed<T> {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        Some(Placed { value: T::decode(node, faults)?, span: node.span })
    }

    fn expected() -> String {
        T::expected()
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }
}

/// One item, or a list of them.
#[derive(Clone, Debug)]
pub struct OneOrList<T>(pub Vec<T>);

impl<T: Decode> Decode for OneOrList<T> {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        match &node.value {
            Value::Sequence(_) => Vec::decode(node, faults).map(OneOrList),
            _ => T::decode(node, faults).map(|one| OneOrList(vec![one])),
        }
    }

    fn expected() -> String {
        format!("{}, or a list of such", T::expected())
    }
}

impl<T: JsonSchema> JsonSchema for OneOrList<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrList_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A mapping from names of the operator's choice.
///
/// A value that could not be read is `None`: its name still exists for those who refer to it.
#[derive(Clone, Debug)]
pub struct Named<T>(pub Vec<(Placed<String>, Option<T>)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<T: Decode> Decode for Named<T> {
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self> {
        let Value::Mapping(entries) = &node.value else {
            let message = format!("{} cannot stand here", node.kind());
            let fault = Fault::error(Code::WrongShape, node.place(), message);
            faults.push(fault.hint("names belong here: write `name: {…}` for each, without `-`"));
            return None;
        };
        let mut named = Vec::with_capacity(entries.len());
        for (key, child) in entries {
            if let Some(fault) = bad_name(&key.text, key.span) {
                faults.push(fault);
            }
            let name = Placed { value: key.text.clone(), span: key.span };
            named.push((name, decode_node(child, faults)));
        }
        Some(Named(named))
    }

    fn expected() -> String {
        format!("a mapping from names to {}", T::expected())
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(&format!("{path}.*"), keys);
    }
}

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": NAME_PATTERN, "not": { "enum": ["none", "auto"] } },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

pub const NAME_PATTERN: &str = "^[A-Za-z0-9_.-]{1,63}$";

/// The fault of a name that breaks the rules for names.
pub fn bad_name(name: &str, at: Span) -> Option<Fault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let message = if name == "none" || name == "auto" {
        format!("{} has a meaning of its own and cannot be a name", quote(name))
    } else if name.is_empty() {
        "a name must not be empty".to_owned()
    } else if let Some(bad) = name.chars().find(|c| !allowed(*c)) {
        format!("the name {} holds {}", quote(name), quote(&bad.to_string()))
    } else if name.len() > 63 {
        format!("the name {} is longer than 63 characters", quote(name))
    } else {
        return None;
    };
    let hint = "names are 1 to 63 letters, digits, `_`, `.` and `-`, and neither `none` nor `auto`";
    Some(Fault::error(Code::BadName, at, message).hint(hint))
}

/// The key of a struct's field; raw identifiers (`r#for`) are those whose key is a word of Rust's.
pub const fn key_of(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// What a mapping is, for messages: its keys, unless they are too many to read.
pub fn describe_keys(keys: &Keys) -> String {
    match keys.now {
        few if few.len() <= 6 => format!("a mapping with {}", few.join(", ")),
        [first, second, third, ..] => format!("a mapping with {first}, {second}, {third}, …"),
        _ => "a mapping".to_owned(),
    }
}

/// A mapping with known keys: the struct, how it is read, merged and described, from one list of keys.
/// `required` is for the schema; the reader's own check knows what to write, and is in `check`.
macro_rules! mapping {
    ($(#[doc = $about:literal])+ $name:ident, $(required [$($required:literal),+],)? later [$($later:literal),* $(,)?], {
        $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $name {
            /// Where to point when a key is missing.
            pub span: $crate::config::tree::Span,
            $($(#[doc = $doc])+ pub $field: $crate::config::decode::Field<$type>,)+
        }

        impl $name {
            pub const KEYS: $crate::config::decode::Keys = $crate::config::decode::Keys {
                now: &[$($crate::config::decode::key_of(stringify!($field))),+],
                later: &[$($later),*],
            };
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::tree::Node,
                faults: &mut $crate::config::fault::Faults,
            ) -> Option<Self> {
                let expected = <Self as $crate::config::decode::Decode>::expected();
                let slots = $crate::config::decode::entries(node, &Self::KEYS, &expected, faults)?;
                let mut slots = slots.into_iter();
                Some($name {
                    span: node.anchor,
                    $($field: $crate::config::decode::Field::decode(slots.next().flatten(), faults),)+
                })
            }

            fn expected() -> String {
                $crate::config::decode::describe_keys(&Self::KEYS)
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                $(
                    let dot = if path.is_empty() { "" } else { "." };
                    let key = format!("{path}{dot}{}", $crate::config::decode::key_of(stringify!($field)));
                    keys.push(key.clone());
                    <$type as $crate::config::decode::Decode>::keys(&key, keys);
                )+
            }

            fn merge(self, defaults: &Self) -> Self {
                $name { span: self.span, $($field: self.$field.merge(&defaults.$field),)+ }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut properties = serde_json::Map::new();
                $(
                    let mut property = generator.subschema_for::<$type>();
                    property.insert("description".to_owned(), concat!($($doc, " "),+).trim().into());
                    properties.insert(
                        $crate::config::decode::key_of(stringify!($field)).to_owned(),
                        property.to_value(),
                    );
                )+
                let required: &[&str] = &[$($($required),+)?];
                schemars::json_schema!({
                    "type": "object",
                    "required": required,
                    "description": concat!($($about, " "),+).trim(),
                    "properties": properties,
                    "additionalProperties": false,
                })
            }
        }
    };
}
pub(super) use mapping;
