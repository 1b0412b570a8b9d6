//! The JSON Schema of a configuration file, for editors and other programs, and the list of all keys. They come from the
//! same declarations that the reader uses; what only two keys together show, a schema cannot.

use serde_json::{Map, Value};

use super::decode::Key;
pub use super::decode::{Presence, Row};
use super::keys::File;
pub use super::properties::plain;

pub fn schema() -> Value {
    let mut names = Map::new();
    let file = File::schema(&mut names);
    let own = file["$ref"].as_str().and_then(|it| it.rsplit('/').next()).unwrap_or_default();
    let mut root = names.remove(own).unwrap_or_default();
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "maitred".into();
    root["$defs"] = Value::Object(names);
    root
}

/// Every key that a file may hold; in its path `[]` stands for any item of a list, `*` for any name.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    File::rows("", &mut rows);
    rows
}
