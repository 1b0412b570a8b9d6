//! The JSON Schema of a configuration file, for editors and other programs. It comes from the same lists of
//! keys that the reader uses; what only two keys together show, a schema cannot.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::decode::Decode;
use super::raw::File;

pub fn schema() -> Value {
    let mut root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    root.insert("title".to_owned(), json!("maitred"));
    root.to_value()
}

/// The path of every key a file may hold; `[]` stands for any item of a list, `*` for any name.
pub fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    File::keys("", &mut keys);
    keys
}
