//! How the forms of values are put together to a JSON Schema.

use serde_json::{Map, Value, json};

use super::decode::{Key, Presence, declared};
use super::protocol::Protocol;

/// A reference to what is called so; made once.
pub fn named(
    name: &str,
    names: &mut Map<String, Value>,
    make: impl FnOnce(&mut Map<String, Value>) -> Value,
) -> Value {
    if !names.contains_key(name) {
        names.insert(name.to_owned(), Value::Null);
        let made = make(names);
        names.insert(name.to_owned(), made);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// One of these, or a text whose value only the environment decides.
pub fn substitutable(forms: impl IntoIterator<Item = Value>) -> Value {
    let variable = json!({ "type": "string", "pattern": "\\$\\{" });
    json!({ "anyOf": forms.into_iter().chain([variable]).collect::<Vec<_>>() })
}

/// A mapping with one key.
pub fn only_key(key: &str, schema: Value) -> Value {
    json!({
        "type": "object",
        "properties": { key: schema },
        "required": [key],
        "additionalProperties": false,
    })
}

/// The keys of a mapping, one after the other.
pub struct Properties<'a> {
    names: &'a mut Map<String, Value>,
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

impl<'a> Properties<'a> {
    pub fn new(names: &'a mut Map<String, Value>) -> Properties<'a> {
        Properties { names, properties: Map::new(), required: Vec::new() }
    }

    pub fn add<K: Key>(
        &mut self,
        key: &'static str,
        presence: Presence,
        protocol: Option<Protocol>,
        sentence: &str,
    ) {
        let mut schema = K::schema(self.names);
        let protocol =
            protocol.map_or("", |it| if it == Protocol::Tcp { "TCP: " } else { "UDP: " });
        let mut description = format!("{protocol}{}", plain(sentence.trim()));
        match presence {
            // Those of the keys below say more.
            Presence::Default("{}") | Presence::Absent(..) | Presence::Option(_) => {}
            Presence::Default(text) => schema["default"] = K::describe(&declared::<K>(text), None),
            Presence::Expected(_) => description.push_str(" Required."),
            Presence::Required(_) => {
                description.push_str(" Required.");
                self.required.push(key);
            }
        }
        schema["description"] = description.trim().into();
        self.properties.insert(key.to_owned(), schema);
    }

    pub fn object(self, about: &str) -> Value {
        json!({
            "type": "object",
            "required": self.required,
            "description": plain(about.trim()),
            "properties": self.properties,
            "additionalProperties": false,
        })
    }
}

/// A sentence without links, which lead somewhere only in the documentation.
pub fn plain(sentence: &str) -> String {
    let mut plain = String::new();
    let mut rest = sentence;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((text, after)) = link.split_once("](") else { break };
        let Some((_, after)) = after.split_once(')') else { break };
        // One that stands in brackets of its own says nothing here.
        let (before, text, after) = match (before.strip_suffix(" ("), after.strip_prefix(')')) {
            (Some(before), Some(after)) => (before, "", after),
            _ => (before, text, after),
        };
        plain.push_str(before);
        plain.push_str(text);
        rest = after;
    }
    plain + rest
}
