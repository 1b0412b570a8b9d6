//! Choices: one word, or a mapping with exactly one key.

use super::decode::wrong_shape;
use super::elsewhere::elsewhere;
use super::fault::{Code, Fault, Faults, list_words, quote};
use super::tree::{Key, Node, Span, Value};
use crate::border::nearest::nearest;

/// The words and the one-key mappings of a choice.
pub struct Options {
    pub words: &'static [&'static str],
    pub mappings: &'static [&'static str],
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
                None => faults.refuse(self.unknown_word(text, node.span)),
            },
            Value::Mapping(entries) => match entries.as_slice() {
                [(key, value)] => self.mapping(key, value, faults),
                _ => {
                    let message =
                        format!("a choice needs exactly one key, found {}", entries.len());
                    let hint = format!("write {}", self.expected());
                    faults.refuse(Fault::error(Code::NotOneChoice, node.place(), message, hint))
                }
            },
            _ => wrong_shape(node, format!("write {}", self.expected()), faults),
        }
    }

    fn mapping<'a>(&self, key: &Key, value: &'a Node, faults: &mut Faults) -> Option<Chosen<'a>> {
        if let Some(name) = self.mappings.iter().find(|name| **name == key.text) {
            return Some(Chosen::Mapping(name, value));
        }
        let fault = if self.words.contains(&key.text.as_str()) {
            let message = format!("{} stands alone, without values", quote(&key.text));
            let hint = format!("write {} only", quote(&key.text));
            Fault::error(Code::NotOneChoice, key.span, message, hint)
        } else {
            self.unknown_word(&key.text, key.span)
        };
        faults.refuse(fault)
    }

    fn unknown_word(&self, word: &str, at: Span) -> Fault {
        let shown = quote(word);
        if self.mappings.contains(&word) {
            let message = format!("{shown} needs its values");
            let hint = format!("write `{{{word}: {{…}}}}`");
            return Fault::error(Code::NotOneChoice, at, message, hint);
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
        Fault::error(Code::UnknownWord, at, message, hint)
    }
}

/// What people write for `none`.
pub fn is_off(word: &str) -> bool {
    ["off", "no", "false", "null", "never", "disabled", "unlimited", "infinite"]
        .contains(&word.to_ascii_lowercase().as_str())
}

pub fn off_for_none(word: &str, at: Span) -> Fault {
    let message = format!("{} is not a value here", quote(word));
    Fault::error(Code::OffForNone, at, message, "write `none` to switch it off")
}

/// A choice among words only: the enum that the program uses, how it is read and how it is written. `for`: of an enum that
/// there is.
macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $doc:literal])* $word:literal => $variant:ident $(= $number:literal)?),+ $(,)?
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $doc])* $variant $(= $number)?),+
        }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word),+
                }
            }
        }

        words! { for $name { $($word => $variant),+ } }
    };
    (for $name:ident { $($word:literal => $variant:ident),+ $(,)? }) => {
        const _: () = {
            use serde_json::{Map, Value as Json, json};
            use $crate::config::protocol::Protocol;
            use $crate::config::choice::{Chosen, Options};
            use $crate::config::fault::{Faults, list_words};
            use $crate::config::tree::Node;

            const OPTIONS: Options =
                Options { words: &[$($word),+], mappings: &[] };

            impl $crate::config::decode::Key for $name {
                type Given = $name;
                type Settled = $name;

                fn decode(node: &Node, faults: &mut Faults) -> Option<$name> {
                    match OPTIONS.choose(node, faults)? {
                        $(Chosen::Word($word) => Some($name::$variant),)+
                        _ => None,
                    }
                }

                fn settle(given: &$name) -> $name {
                    *given
                }

                fn describe(settled: &$name, _: Option<Protocol>) -> Json {
                    settled.as_str().into()
                }

                fn expected() -> String {
                    list_words([$($word),+])
                }

                fn values() -> String {
                    [$(concat!("`", $word, "`")),+].join(", ")
                }

                fn schema(_: &mut Map<String, Json>) -> Json {
                    $crate::config::properties::substitutable([json!({ "enum": [$($word),+] })])
                }
            }
        };
    };
}
pub(super) use words;

/// A choice some of whose options carry values. Besides the enum that the program uses there is what a file gives, as
/// `Given<Name>`, with the same variants. What is in brackets is an example of the value.
macro_rules! choice {
    ($(#[doc = $about:literal])+ $(#[derive($($derived:ident),+)])? $name:ident {
        $($(#[doc = $plain_doc:literal])* $word:literal => $plain:ident,)*
        $(mapping $(#[doc = $doc:literal])+ $key:literal => $holding:ident($type:ty) [$example:literal],)+
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, $($($derived),+)?)]
        pub enum $name {
            $($(#[doc = $plain_doc])* $plain,)*
            $($(#[doc = $doc])+ $holding(<$type as $crate::config::decode::Key>::Settled),)+
        }

        const _: () = {
            use serde_json::{Map, Value as Json, json};
            use $crate::config::protocol::Protocol;
            use $crate::config::choice::{Chosen, Options};
            use $crate::config::decode::*;
            use $crate::config::fault::Faults;
            use $crate::config::properties::{only_key, substitutable};
            use $crate::config::tree::Node;

            #[derive(Clone, Debug)]
            pub enum Fields {
                $($plain,)*
                $($holding(Given<$type>),)+
            }

            const OPTIONS: Options =
                Options { words: &[$($word),*], mappings: &[$($key),+] };

            impl Key for $name {
                type Given = Fields;
                type Settled = $name;

                fn decode(node: &Node, faults: &mut Faults) -> Option<Fields> {
                    match OPTIONS.choose(node, faults)? {
                        $(Chosen::Word($word) => Some(Fields::$plain),)*
                        $(Chosen::Mapping($key, value) => {
                            decode_node::<$type>(value, faults).map(Fields::$holding)
                        })+
                        _ => None,
                    }
                }

                fn settle(given: &Fields) -> $name {
                    match given {
                        $(Fields::$plain => $name::$plain,)*
                        $(Fields::$holding(given) => $name::$holding(<$type>::settle(given)),)+
                    }
                }

                fn describe(settled: &$name, of: Option<Protocol>) -> Json {
                    match settled {
                        $($name::$plain => $word.into(),)*
                        $($name::$holding(own) => json!({ $key: <$type>::describe(own, of) }),)+
                    }
                }

                fn expected() -> String {
                    OPTIONS.expected()
                }

                fn values() -> String {
                    let words: &[&str] = &[$(concat!("`", $word, "`")),*];
                    format!("{}, or mapping", words.join(", "))
                }

                fn schema(names: &mut Map<String, Json>) -> Json {
                    $crate::config::properties::named(stringify!($name), names, |names| {
                        let words = json!({ "enum": OPTIONS.words });
                        substitutable([words, $(only_key($key, <$type>::schema(names))),+])
                    })
                }

                fn rows(path: &str, rows: &mut Vec<Row>) {
                    $(
                        let key = format!("{path}.{}", $key);
                        rows.push(Row {
                            path: key.clone(),
                            values: <$type>::values(),
                            presence: Presence::Option($example),
                            protocol: None,
                            needs_restart: false,
                            sentence: concat!($($doc),+).trim(),
                        });
                        <$type as Key>::rows(&key, rows);
                    )+
                }

                fn require(given: &Fields, faults: &mut Faults) {
                    match given {
                        $(Fields::$holding(own) => <$type>::require(own, faults),)+
                        #[allow(unreachable_patterns)]
                        _ => {}
                    }
                }
            }
        };
    };
}
pub(super) use choice;
