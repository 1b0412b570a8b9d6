//! Choices: one word, or a mapping with exactly one key.

use schemars::{Schema, json_schema};

use super::decode::wrong_shape;
use super::elsewhere::elsewhere;
use super::fault::{Code, Fault, Faults, list_words, quote};
use super::nearest::nearest;
use super::tree::{Key, Node, Span, Value};

/// The words and the one-key mappings of a choice.
pub struct Options {
    pub words: &'static [&'static str],
    pub mappings: &'static [&'static str],
    pub later: &'static [&'static str],
}

/// What was chosen.
pub enum Chosen<'a> {
    Mapping(&'static str, &'a Node),
    Word(&'static str),
}

impl Options {
    pub fn expected(&self) -> String {
        let mappings: Vec<String> =
            self.mappings.iter().map(|name| format!("{{{name}: …}}")).collect();
        list_words(self.words.iter().copied().chain(mappings.iter().map(String::as_str)))
    }

    /// One word, or a mapping with exactly one key.
    pub fn choose<'a>(&self, node: &'a Node, faults: &mut Faults) -> Option<Chosen<'a>> {
        match &node.value {
            Value::Scalar(text) => match self.words.iter().find(|word| *word == text) {
                Some(word) => Some(Chosen::Word(word)),
                None => {
                    faults.push(self.unknown_word(text, node.span));
                    None
                }
            },
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => self.choose_mapping(key, value, faults),
                _ => {
                    let message =
                        format!("a choice needs exactly one key, found {}", entries.len());
                    let hint = format!("write {}", self.expected());
                    faults.push(Fault::error(Code::NotOneChoice, node.place(), message).hint(hint));
                    None
                }
            },
            _ => {
                wrong_shape(node, &self.expected(), faults);
                None
            }
        }
    }

    fn choose_mapping<'a>(
        &self,
        key: &Key,
        value: &'a Node,
        faults: &mut Faults,
    ) -> Option<Chosen<'a>> {
        if let Some(name) = self.mappings.iter().find(|name| **name == key.text) {
            return Some(Chosen::Mapping(name, value));
        }
        let fault = if self.words.contains(&key.text.as_str()) {
            let message = format!("{} stands alone, without values", quote(&key.text));
            Fault::error(Code::NotOneChoice, key.span, message)
                .hint(format!("write {} only", quote(&key.text)))
        } else {
            self.unknown_word(&key.text, key.span)
        };
        faults.push(fault);
        None
    }

    fn unknown_word(&self, word: &str, at: Span) -> Fault {
        let shown = quote(word);
        if self.later.contains(&word) {
            let message = format!("{shown} is not supported yet");
            return Fault::error(Code::NotYet, at, message)
                .hint(format!("this version knows {}", self.expected()));
        }
        if self.mappings.contains(&word) {
            let message = format!("{shown} needs its values");
            return Fault::error(Code::NotOneChoice, at, message)
                .hint(format!("write `{{{word}: {{…}}}}`"));
        }
        if self.words.contains(&"none") && is_off(word) {
            return off_for_none(word, at);
        }
        let message = format!("{shown} is not one of the choices here");
        let all: Vec<&'static str> = self.words.iter().chain(self.mappings).copied().collect();
        let hint = match elsewhere(word, &all).or_else(|| nearest(word, all)) {
            Some(known) => {
                format!("did you mean {}? The choices: {}", quote(known), self.expected())
            }
            None => format!("write {}", self.expected()),
        };
        Fault::error(Code::UnknownWord, at, message).hint(hint)
    }

    pub fn schema(&self, mappings: Vec<(&'static str, Schema)>) -> Schema {
        let mut forms = vec![json_schema!({ "enum": self.words })];
        for (name, schema) in mappings {
            forms.push(json_schema!({
                "type": "object",
                "properties": { name: schema },
                "required": [name],
                "additionalProperties": false,
            }));
        }
        substitutable(forms)
    }
}

/// One of these, or a text whose value only the environment decides.
pub fn substitutable(mut forms: Vec<Schema>) -> Schema {
    forms.push(json_schema!({ "type": "string", "pattern": "\\$\\{" }));
    json_schema!({ "anyOf": forms })
}

/// What people write for `none`.
pub fn is_off(word: &str) -> bool {
    ["off", "no", "false", "null", "never", "disabled", "unlimited", "infinite"]
        .contains(&word.to_ascii_lowercase().as_str())
}

pub fn off_for_none(word: &str, at: Span) -> Fault {
    Fault::error(Code::OffForNone, at, format!("{} is not a value here", quote(word)))
        .hint("write `none` to switch it off")
}

/// A choice among words only, read straight into the type the program uses.
macro_rules! words {
    ($type:ty, $name:literal, later [$($later:literal),*], { $($word:literal => $value:expr),+ $(,)? }) => {
        impl $crate::config::decode::Decode for $type {
            fn decode(
                node: &$crate::config::tree::Node,
                faults: &mut $crate::config::fault::Faults,
            ) -> Option<Self> {
                let options = $crate::config::choice::Options {
                    words: &[$($word),+],
                    mappings: &[],
                    later: &[$($later),*],
                };
                match options.choose(node, faults)? {
                    $($crate::config::choice::Chosen::Word($word) => Some($value),)+
                    _ => None,
                }
            }

            fn expected() -> String {
                $crate::config::fault::list_words([$($word),+])
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                $crate::config::choice::substitutable(vec![schemars::json_schema!({ "enum": [$($word),+] })])
            }
        }
    };
}
pub(super) use words;

/// A choice some of whose options carry values.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $name:ident, later [$($later:literal),*],
     words { $($word:literal => $plain:ident),* $(,)? },
     mappings { $($key:literal => $holding:ident($type:ty)),+ $(,)? }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub enum $name {
            $($plain,)*
            $($holding($type),)+
        }

        impl $name {
            const OPTIONS: $crate::config::choice::Options = $crate::config::choice::Options {
                words: &[$($word),*],
                mappings: &[$($key),+],
                later: &[$($later),*],
            };
        }

        impl $crate::config::decode::Decode for $name {
            fn decode(
                node: &$crate::config::tree::Node,
                faults: &mut $crate::config::fault::Faults,
            ) -> Option<Self> {
                match Self::OPTIONS.choose(node, faults)? {
                    $($crate::config::choice::Chosen::Word($word) => Some($name::$plain),)*
                    $($crate::config::choice::Chosen::Mapping($key, value) => {
                        $crate::config::decode::decode_node(value, faults).map($name::$holding)
                    })+
                    _ => None,
                }
            }

            fn expected() -> String {
                Self::OPTIONS.expected()
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                $(
                    let key = format!("{path}.{}", $key);
                    keys.push(key.clone());
                    <$type as $crate::config::decode::Decode>::keys(&key, keys);
                )+
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mappings = vec![$(($key, generator.subschema_for::<$type>())),+];
                Self::OPTIONS.schema(mappings)
            }
        }
    };
}
pub(super) use choice;
