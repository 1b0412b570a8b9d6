//! `mapping!`: a mapping with known keys, from one declaration of each. See `keys` for how one reads.

/// Makes two structs of the declared keys: the one that the program believes in, by its name, and what a file gives of
/// it, as `Given<Name>`.
///
/// ```text
/// /// What it means, for schema and documentation.
/// key: Type = "default" [marks];
/// model_name("key"): Type …;              where the program calls it something else
/// ```
/// Marks, in this order:
/// `[hand Type]` and `[hand Type = value]`: a check says what the program believes, and `describe` how it is shown;
/// `[required "example", "hint"]`, `[expected "example", "hint"]` where `defaults` may say it, `[absent "in words", "example"]`,
/// `[like other, "example"]`: in place of a default;
/// `[tcp]`, `[udp]`: that protocol alone has it; `[restart]`: a reload refuses another value.
macro_rules! mapping {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derived:ident),+)])?
        $name:ident $(later [$($later:literal),+])? $(short $short:ident: $short_type:ty)? {
            $($(#[doc = $doc:literal])+ $field:ident $(($key:literal))?: $type:ty $(= $default:literal)? $([$($mark:tt)+])*;)+
        }
        $(besides { $($(#[doc = $extra_doc:literal])+ $extra:ident: $extra_type:ty = $extra_value:expr;)+ })?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, $($($derived),+)?)]
        pub struct $name {
            $($($(#[doc = $extra_doc])+ pub $extra: $extra_type,)+)?
            $($(#[doc = $doc])+ pub $field: $crate::config::mapping::settled!($type $([$($mark)+])*),)+
        }

        const _: () = {
            use $crate::config::protocol::Protocol;
            use $crate::config::decode::{Field, Given, Key, Keys, Presence, Row};
            use $crate::config::fault::Faults;
            use $crate::config::mapping::*;
            use $crate::config::tree::{Node, Span};

            #[derive(Clone, Debug)]
            pub struct Fields {
                /// Where to point when a key is missing.
                pub span: Span,
                $(pub $field: Field<Given<$type>>,)+
            }

            const KEYS: Keys = Keys {
                now: &[$(key!($field $($key)?)),+],
                later: &[$($($later),+)?],
            };

            impl $name {
                fn declared() -> &'static Self {
                    static DECLARED: std::sync::OnceLock<$name> = std::sync::OnceLock::new();
                    DECLARED.get_or_init(|| {
                        $(let $field = initial!($type $(= $default)? $([$($mark)+])*);)+
                        $name { $($($extra: $extra_value,)+)? $($field,)+ }
                    })
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Clone::clone(Self::declared())
                }
            }

            impl Key for $name {
                type Given = Fields;
                type Settled = $name;

                fn decode(node: &Node, faults: &mut Faults) -> Option<Fields> {
                    let mut fields = Fields { span: node.anchor, $($field: Field::Absent,)+ };
                    $(if let $crate::config::tree::Value::Scalar(_) = node.value {
                        let value = <$short_type as Key>::decode(node, faults)?;
                        fields.$short = Field::Given($crate::config::decode::Placed { value, span: node.span });
                        return Some(fields);
                    })?
                    let mut slots = KEYS.entries(node, &Self::expected(), faults)?.into_iter();
                    $(fields.$field = Field::decode::<$type>(slots.next().flatten(), faults);)+
                    Some(fields)
                }

                fn settle(given: &Fields) -> $name {
                    let _declared = Self::declared();
                    $(let $field = settle!(given.$field, _declared.$field, $type $([$($mark)+])*);)+
                    $name { $($($extra: Clone::clone(&_declared.$extra),)+)? $($field,)+ }
                }

                fn describe(settled: &$name, of: Option<Protocol>) -> serde_json::Value {
                    let mut keys = serde_json::Map::new();
                    $(if of.is_none() || mark!(protocol $([$($mark)+])*).is_none_or(|own| of == Some(own)) {
                        let described = describe!(settled.$field, of, $type $([$($mark)+])*);
                        keys.extend(described.map(|it| (key!($field $($key)?).to_owned(), it)));
                    })+
                    serde_json::Value::Object(keys)
                }

                fn expected() -> String {
                    $(if KEYS.now.contains(&stringify!($short)) {
                        let short = <$short_type as Key>::expected();
                        return format!("{short}, or a mapping with {}", stringify!($short));
                    })?
                    KEYS.expected()
                }

                fn values() -> String {
                    $(if KEYS.now.contains(&stringify!($short)) {
                        return format!("{}, or mapping", <$short_type as Key>::values());
                    })?
                    "mapping".to_owned()
                }

                fn schema(names: &mut serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
                    let properties = |names: &mut _| {
                        let mut properties = Properties::new(names);
                        $(properties.add::<$type>(
                            key!($field $($key)?),
                            presence!($(= $default)? $([$($mark)+])*),
                            mark!(protocol $([$($mark)+])*),
                            concat!($($doc),+),
                        );)+
                        properties.object(concat!($($about),+))
                    };
                    let schema = named(stringify!($name), names, properties);
                    $(let schema = serde_json::json!({ "anyOf": [<$short_type as Key>::schema(names), schema] });)?
                    schema
                }

                fn rows(path: &str, rows: &mut Vec<Row>) {
                    $(
                        let dot = if path.is_empty() { "" } else { "." };
                        let key = format!("{path}{dot}{}", key!($field $($key)?));
                        rows.push(Row {
                            path: key.clone(),
                            values: <$type as Key>::values(),
                            presence: presence!($(= $default)? $([$($mark)+])*),
                            protocol: mark!(protocol $([$($mark)+])*),
                            needs_restart: mark!(restart $([$($mark)+])*),
                            sentence: concat!($($doc),+).trim(),
                        });
                        <$type as Key>::rows(&key, rows);
                    )+
                }

                fn merge(own: Fields, defaults: &Fields) -> Fields {
                    Fields { span: own.span, $($field: own.$field.merge::<$type>(&defaults.$field),)+ }
                }

                fn require(given: &Fields, faults: &mut Faults) {
                    $(
                        if let Some(hint) = mark!(hint $([$($mark)+])*) {
                            given.$field.require(key!($field $($key)?), given.span, hint, faults);
                        }
                        if let Some(value) = given.$field.value() {
                            <$type as Key>::require(value, faults);
                        }
                    )+
                }

                fn only(given: &mut Fields, protocol: Protocol, out: &mut dyn FnMut(&str, Span)) {
                    $(if mark!(protocol $([$($mark)+])*).is_some_and(|own| own != protocol) {
                        if let Some(span) = given.$field.span() {
                            out(key!($field $($key)?), span);
                        }
                        given.$field = Field::Absent;
                    } else if let Field::Given(own) = &mut given.$field {
                        <$type as Key>::only(&mut own.value, protocol, out);
                    })+
                }
            }
        };
    };
}

macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// The type that the program has.
macro_rules! settled {
    ($type:ty [hand $own:ty $(= $value:expr)?] $($rest:tt)*) => { $own };
    ($type:ty [absent $words:literal, $example:literal] $($rest:tt)*) => { Option<<$type as $crate::config::decode::Key>::Settled> };
    ($type:ty $([$($mark:tt)+])*) => { <$type as $crate::config::decode::Key>::Settled };
}

/// The value of a key in a mapping without any.
macro_rules! initial {
    ($type:ty $(= $default:literal)? [hand $own:ty = $value:expr] $($rest:tt)*) => {
        $value
    };
    ($type:ty $(= $default:literal)? [hand $own:ty] $($rest:tt)*) => {
        <$own>::default()
    };
    ($type:ty [absent $words:literal, $example:literal] $($rest:tt)*) => {
        None
    };
    ($type:ty [like $other:ident, $example:literal] $($rest:tt)*) => {
        Clone::clone(&$other)
    };
    ($type:ty = $default:literal $($rest:tt)*) => {
        $crate::config::decode::declared::<$type>($default)
    };
    ($type:ty [$($how:tt)+] $($rest:tt)*) => {
        Default::default()
    };
}

macro_rules! settle {
    ($given:expr, $declared:expr, $type:ty [hand $($how:tt)+] $($rest:tt)*) => {{
        let _ = &$given;
        Clone::clone(&$declared)
    }};
    ($given:expr, $declared:expr, $type:ty [absent $words:literal, $example:literal] $($rest:tt)*) => {
        $given.value().map(<$type as Key>::settle)
    };
    ($given:expr, $declared:expr, $type:ty [like $other:ident, $example:literal] $($rest:tt)*) => {
        $given.value().map_or_else(|| Clone::clone(&$other), <$type as Key>::settle)
    };
    ($given:expr, $declared:expr, $type:ty $([$($mark:tt)+])*) => {
        $given.value().map_or_else(|| Clone::clone(&$declared), <$type as Key>::settle)
    };
}

macro_rules! describe {
    ($value:expr, $of:expr, $type:ty [hand $($how:tt)+] $($rest:tt)*) => {{
        let _ = &$value;
        None::<serde_json::Value>
    }};
    ($value:expr, $of:expr, $type:ty [absent $words:literal, $example:literal] $($rest:tt)*) => {
        $value.as_ref().map(|it| <$type as Key>::describe(it, $of))
    };
    ($value:expr, $of:expr, $type:ty $([$($mark:tt)+])*) => {
        Some(<$type as Key>::describe(&$value, $of))
    };
}

macro_rules! presence {
    ([hand $($how:tt)+] $($rest:tt)*) => { presence!($($rest)*) };
    (= $default:literal $($rest:tt)*) => { Presence::Default($default) };
    ([absent $words:literal, $example:literal] $($rest:tt)*) => { Presence::Absent($words, $example) };
    ([like $other:ident, $example:literal] $($rest:tt)*) => { Presence::Absent(concat!("as `", stringify!($other), "`"), $example) };
    ([required $example:literal, $hint:literal] $($rest:tt)*) => { Presence::Required($example) };
    ([expected $example:literal, $hint:literal] $($rest:tt)*) => { Presence::Expected($example) };
}

/// What a mark says, looked for among all of them.
macro_rules! mark {
    (hint) => { None::<&str> };
    (protocol) => { None::<Protocol> };
    (restart) => { false };
    (hint [required $example:literal, $hint:literal] $($rest:tt)*) => { Some($hint) };
    (hint [expected $example:literal, $hint:literal] $($rest:tt)*) => { Some($hint) };
    (protocol [tcp] $($rest:tt)*) => { Some(Protocol::Tcp) };
    (protocol [udp] $($rest:tt)*) => { Some(Protocol::Udp) };
    (restart [restart] $($rest:tt)*) => { true };
    ($what:ident [$($mark:tt)+] $($rest:tt)*) => { mark!($what $($rest)*) };
}

pub use super::properties::{Properties, named};
pub(super) use {describe, initial, key, mapping, mark, presence, settle, settled};
