//! How a tree becomes typed values: the `Key` trait, fields that remember where they stand, and the forms that hold
//! others (a list, a mapping from names). Mappings with known keys are made by `mapping`, choices by `choice`; single
//! values are in `scalar` and `value`. Which keys there are is said in `keys`.

use serde_json::{Map, Value as Json, json};

use super::elsewhere::elsewhere;
use super::error::Source;
use super::fault::{Code, Fault, Faults, Text, quote};
use super::parse::{Ids, parse};
use super::protocol::Protocol;
use super::secret::word_of;
use super::tree::{Key as TreeKey, Node, Span, Value};
use crate::border::nearest::nearest;

/// What can be said of a key's value: how it is read, what it means, how it is written again.
pub trait Key {
    /// What a file says, with the places that checks point to.
    type Given: Clone;
    /// What the program believes.
    type Settled;

    /// Faults go to `faults`; `None` means that at least one was.
    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given>;

    /// With the defaults of what is not given.
    fn settle(given: &Self::Given) -> Self::Settled;

    /// In the grammar of the file, every default said; of a listener, only what its protocol has.
    fn describe(settled: &Self::Settled, of: Option<Protocol>) -> Json;

    /// What to write, as the object of "write …" and "expected …".
    fn expected() -> String;

    /// What may be written, for the documentation.
    fn values() -> String {
        Self::expected()
    }

    /// As JSON Schema. What has a name goes to `names`.
    fn schema(names: &mut Map<String, Json>) -> Json;

    /// Adds every key below `path`.
    fn rows(_path: &str, _rows: &mut Vec<Row>) {}

    /// Fills what is not given here from `defaults`. Only mappings merge; everything else replaces.
    fn merge(own: Self::Given, _defaults: &Self::Given) -> Self::Given {
        own
    }

    /// Reports what must be given and is not.
    fn require(_given: &Self::Given, _faults: &mut Faults) {}

    /// Takes out what only the other protocol has, and tells what that was.
    fn only(_given: &mut Self::Given, _protocol: Protocol, _out: &mut dyn FnMut(&str, Span)) {}
}

/// What a file says of a key of this type.
pub type Given<T> = <T as Key>::Given;

/// One key, for those who list them all.
#[derive(Clone, Debug)]
pub struct Row {
    /// `[]` stands for any item, `*` for any name.
    pub path: String,
    /// What may be written there.
    pub values: String,
    pub presence: Presence,
    /// Of the other protocol it is an error, or without meaning.
    pub protocol: Option<Protocol>,
    /// A reload refuses another value.
    pub needs_restart: bool,
    pub sentence: &'static str,
}

/// What holds where a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In words, and an example of what may be given.
    Absent(&'static str, &'static str),
    /// As a file would write it.
    Default(&'static str),
    /// One of several mappings of which one is chosen; this is an example of it.
    Option(&'static str),
    /// It must be given, here or in `defaults`; this is an example.
    Expected(&'static str),
    /// It must be given; this is an example.
    Required(&'static str),
}

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
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

impl<T: Clone> Field<T> {
    pub fn decode<K: Key<Given = T>>(node: Option<&Node>, faults: &mut Faults) -> Self {
        let Some(node) = node else { return Field::Absent };
        match decode_node::<K>(node, faults) {
            Some(value) => Field::Given(Placed { value, span: node.place() }),
            None => Field::Faulty,
        }
    }

    pub fn merge<K: Key<Given = T>>(self, defaults: &Self) -> Self {
        match (self, defaults) {
            (Field::Given(own), Field::Given(default)) => {
                Field::Given(Placed { value: K::merge(own.value, &default.value), span: own.span })
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
            faults.error(Code::MissingKey, holder, message, hint);
        }
    }
}

impl<T> Field<Option<T>> {
    /// What is given and is not switched off.
    pub fn on(&self) -> Option<Placed<&T>> {
        let given = self.given()?;
        Some(Placed { value: given.value.as_ref()?, span: given.span })
    }
}

impl<T> Field<Vec<T>> {
    /// None of a list that is not there.
    pub fn items(&self) -> &[T] {
        self.value().map_or(&[], Vec::as_slice)
    }
}

/// Reads any node, after what is wrong whatever was expected.
pub fn decode_node<K: Key>(node: &Node, faults: &mut Faults) -> Option<K::Given> {
    match node.value {
        Value::Unreadable => None,
        Value::Null => {
            let hint = format!("write {}, or leave the key out", K::expected());
            let message = "a value is missing here";
            faults.refuse(Fault::error(Code::EmptyValue, node.anchor, message, hint))
        }
        _ => K::decode(node, faults),
    }
}

/// A default, written as a file would write it.
pub fn declared<K: Key>(text: &str) -> K::Settled {
    let source = Source { name: "default".to_owned(), text: text.to_owned() };
    let node = parse(&source, 0, &mut Ids::default()).ok();
    let given = node.and_then(|node| decode_node::<K>(&node, &mut Faults::default()));
    // A test reads them all.
    K::settle(&given.unwrap_or_else(|| unreachable!("the default {text:?} can be read")))
}

/// Reports a node of the wrong form.
pub fn wrong_shape<T>(node: &Node, hint: impl Text, faults: &mut Faults) -> Option<T> {
    let message = format!("{} cannot stand here", node.kind());
    faults.refuse(Fault::error(Code::WrongShape, node.place(), message, hint))
}

/// The keys of a mapping: those of this version, and those that a later one will know.
pub struct Keys {
    pub now: &'static [&'static str],
    pub later: &'static [&'static str],
}

impl Keys {
    /// What the mapping is, for messages: its keys, unless they are too many to read.
    pub fn expected(&self) -> String {
        match self.now {
            few if few.len() <= 6 => format!("a mapping with {}", few.join(", ")),
            [first, second, third, ..] => format!("a mapping with {first}, {second}, {third}, …"),
            _ => "a mapping".to_owned(),
        }
    }

    /// The values in the order of the keys; unknown keys are reported.
    pub fn entries<'a>(
        &self,
        node: &'a Node,
        expected: &str,
        faults: &mut Faults,
    ) -> Option<Vec<Option<&'a Node>>> {
        let Value::Mapping(given) = &node.value else {
            return wrong_shape(node, format!("write {expected}"), faults);
        };
        let mut slots = vec![None; self.now.len()];
        for (key, value) in given {
            match self.now.iter().position(|known| *known == key.text) {
                Some(index) => slots[index] = Some(value),
                None => faults.push(self.unknown(key)),
            }
        }
        Some(slots)
    }

    fn unknown(&self, key: &TreeKey) -> Fault {
        let name = quote(&word_of(&key.text));
        if self.later.contains(&key.text.as_str()) {
            let message = format!("{name} is planned, but this version does not know it yet");
            return Fault::error(Code::NotYet, key.span, message, "remove it for now");
        }
        let known = elsewhere(&key.text, self.now);
        let hint = match known.or_else(|| nearest(&key.text, self.now.iter().copied())) {
            Some(known) => format!("did you mean {}?", quote(known)),
            None => format!("known here: {}", self.now.join(", ")),
        };
        Fault::error(Code::UnknownKey, key.span, format!("unknown key {name}"), hint)
    }
}

impl<T: Key> Key for Vec<T> {
    type Given = Vec<Placed<T::Given>>;
    type Settled = Vec<T::Settled>;

    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
        let Value::Sequence(items) = &node.value else {
            return wrong_shape(node, format!("write {}", Self::expected()), faults);
        };
        // A faulty item is left out: it is reported, and the others are still checked against each other.
        let read = items.iter().filter_map(|item| {
            decode_node::<T>(item, faults).map(|value| Placed { value, span: item.span })
        });
        let read: Self::Given = read.collect();
        if read.is_empty() && !items.is_empty() { None } else { Some(read) }
    }

    fn settle(given: &Self::Given) -> Self::Settled {
        given.iter().map(|item| T::settle(&item.value)).collect()
    }

    fn describe(settled: &Self::Settled, of: Option<Protocol>) -> Json {
        settled.iter().map(|item| T::describe(item, of)).collect()
    }

    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn values() -> String {
        match T::values().as_str() {
            "mapping" => "list of mappings".to_owned(),
            one => format!("list, each {one}"),
        }
    }

    fn schema(names: &mut Map<String, Json>) -> Json {
        json!({ "type": "array", "items": T::schema(names) })
    }

    fn rows(path: &str, rows: &mut Vec<Row>) {
        T::rows(&format!("{path}[]"), rows);
    }

    fn require(given: &Self::Given, faults: &mut Faults) {
        given.iter().for_each(|item| T::require(&item.value, faults));
    }
}

/// One item, or a list of them.
pub struct OneOrList<T>(std::marker::PhantomData<T>);

impl<T: Key> Key for OneOrList<T> {
    type Given = Given<Vec<T>>;
    type Settled = Vec<T::Settled>;

    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
        match &node.value {
            Value::Sequence(_) => Vec::<T>::decode(node, faults),
            _ => T::decode(node, faults).map(|value| vec![Placed { value, span: node.span }]),
        }
    }

    fn settle(given: &Self::Given) -> Self::Settled {
        Vec::<T>::settle(given)
    }

    fn describe(settled: &Self::Settled, of: Option<Protocol>) -> Json {
        Vec::<T>::describe(settled, of)
    }

    fn expected() -> String {
        format!("{}, or a list of such", T::expected())
    }

    fn schema(names: &mut Map<String, Json>) -> Json {
        let one = T::schema(names);
        json!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}

/// A mapping from names of the operator's choice.
pub struct Named<T>(std::marker::PhantomData<T>);

impl<T: Key> Key for Named<T> {
    /// A value that could not be read is `None`: its name still exists for those who refer to it.
    type Given = Vec<(Placed<String>, Option<T::Given>)>;
    type Settled = Vec<(String, T::Settled)>;

    fn decode(node: &Node, faults: &mut Faults) -> Option<Self::Given> {
        let Value::Mapping(entries) = &node.value else {
            let hint = "names belong here: write `name: {…}` for each, without `-`";
            return wrong_shape(node, hint, faults);
        };
        let mut named = Vec::with_capacity(entries.len());
        for (key, child) in entries {
            faults.extend(bad_name(&key.text, key.span));
            let name = Placed { value: key.text.clone(), span: key.span };
            named.push((name, decode_node::<T>(child, faults)));
        }
        Some(named)
    }

    fn settle(given: &Self::Given) -> Self::Settled {
        let read = |(name, value): &(Placed<String>, Option<T::Given>)| {
            Some((name.value.clone(), T::settle(value.as_ref()?)))
        };
        given.iter().filter_map(read).collect()
    }

    fn describe(settled: &Self::Settled, of: Option<Protocol>) -> Json {
        settled.iter().map(|(name, value)| (name.clone(), T::describe(value, of))).collect()
    }

    fn expected() -> String {
        format!("a mapping from names to {}", T::expected())
    }

    fn values() -> String {
        "mapping by name".to_owned()
    }

    fn schema(names: &mut Map<String, Json>) -> Json {
        json!({
            "type": "object",
            "propertyNames": { "pattern": NAME_PATTERN, "not": { "enum": ["none", "auto"] } },
            "additionalProperties": T::schema(names),
        })
    }

    fn rows(path: &str, rows: &mut Vec<Row>) {
        T::rows(&format!("{path}.*"), rows);
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
    Some(Fault::error(Code::BadName, at, message, hint))
}
