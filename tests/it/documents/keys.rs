//! docs/configuration.md and the JSON Schema have the same keys, words and ranges; the defaults are those of
//! conf/reference.yaml.

use std::collections::{BTreeMap, BTreeSet};

use maitred::config::schema::schema;
use serde_json::Value;

use super::read;

/// One row of the document.
struct Row {
    value: String,
    default: String,
}

/// Rows by the whole path of their key. A heading in backticks is what the keys below it begin with; it stands for a
/// key of its own.
fn documented() -> (BTreeMap<String, Row>, BTreeSet<String>) {
    let (mut rows, mut headings) = (BTreeMap::new(), BTreeSet::new());
    let mut prefix = String::new();
    for line in read("docs/configuration.md").lines() {
        if line.starts_with('#') {
            let heading = line.split('`').nth(1).unwrap_or_default();
            prefix = if heading.is_empty() { String::new() } else { format!("{heading}.") };
            headings.extend((!heading.is_empty()).then(|| heading.to_owned()));
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        // Those of the grammar have three.
        let [key, value, default, _] = cells[..] else { continue };
        let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) else {
            continue;
        };
        let row = Row { value: value.to_owned(), default: default.to_owned() };
        let before = rows.insert(format!("{prefix}{key}"), row);
        assert!(before.is_none(), "{prefix}{key} is there twice");
    }
    (rows, headings)
}

/// Every key of the schema with what it may be, references resolved, but for the keys of `defaults`, which are those
/// of listeners and pools.
fn keys(root: &Value, schema: &Value, path: &str, found: &mut BTreeMap<String, Vec<Value>>) {
    for form in forms(root, schema) {
        for (key, property) in form["properties"].as_object().into_iter().flatten() {
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let meant = found.entry(below.clone()).or_default();
            meant.push(property["description"].clone());
            meant.extend(forms(root, property));
            if path != "defaults" {
                keys(root, property, &below, found);
            }
        }
        if form["additionalProperties"].is_object() {
            keys(root, &form["additionalProperties"], &format!("{path}.*"), found);
        }
        if form["items"].is_object() {
            keys(root, &form["items"], &format!("{path}[]"), found);
        }
    }
}

/// A schema's alternatives.
fn forms(root: &Value, schema: &Value) -> Vec<Value> {
    let meant = schema["$ref"].as_str().and_then(|it| root.pointer(it.strip_prefix('#')?));
    let meant = meant.into_iter().chain(schema["anyOf"].as_array().into_iter().flatten());
    let mut forms: Vec<Value> = meant.flat_map(|it| forms(root, it)).collect();
    if forms.is_empty() {
        forms.push(schema.clone());
    }
    forms
}

fn described() -> BTreeMap<String, Vec<Value>> {
    let (schema, mut found) = (schema(), BTreeMap::new());
    keys(&schema, &schema, "", &mut found);
    assert!(found.len() > 100, "{}", found.len());
    found
}

#[test]
fn every_key_is_documented_and_no_other() {
    let (rows, headings) = documented();
    let described = described();
    let is_documented = |key: &String| rows.contains_key(key) || headings.contains(key);
    let missing: Vec<_> = described.keys().filter(|key| !is_documented(key)).collect();
    assert!(missing.is_empty(), "docs/configuration.md has no row for {missing:#?}");
    let is_named = |key: &&String| key.ends_with(".*");
    let unknown: Vec<_> = rows
        .keys()
        .chain(headings.iter().filter(|key| !is_named(key)))
        .filter(|key| !described.contains_key(*key))
        .collect();
    assert!(unknown.is_empty(), "docs/configuration.md has keys that do not exist: {unknown:#?}");
}

/// Of times, sizes and shares the schema does not know the range.
#[test]
fn words_and_ranges_are_documented() {
    let (rows, _) = documented();
    let mut wrong = Vec::new();
    for (key, forms) in described() {
        let Some(row) = rows.get(&key) else { continue };
        let tight = row.value.replace(' ', "");
        for form in &forms {
            let words = form["enum"].as_array().into_iter().flatten().chain(form.get("const"));
            for word in words.filter_map(Value::as_str) {
                if !row.value.contains(&format!("`{word}`")) {
                    wrong.push(format!("{key}: `{word}`"));
                }
            }
            if let (Some(least), Some(most)) = (form["minimum"].as_u64(), form["maximum"].as_u64())
                && form["type"] == "integer"
                && !tight.contains(&format!("{least}…{most}"))
            {
                wrong.push(format!("{key}: {least} … {most}"));
            }
        }
        let is_required =
            forms[0].as_str().is_some_and(|description| description.ends_with("Required."));
        if is_required != (row.default == "required") {
            wrong.push(format!("{key}: required or not"));
        }
    }
    assert!(wrong.is_empty(), "docs/configuration.md does not say: {wrong:#?}");
}

#[test]
fn defaults_are_those_of_the_reference() {
    let (rows, _) = documented();
    let reference: Value = serde_yaml::from_str(&read("conf/reference.yaml")).unwrap();
    let mut values = BTreeMap::new();
    collect(&reference, "", &mut values);
    let mut wrong = Vec::new();
    let mut count = 0;
    for (key, given) in &values {
        let Some(row) = rows.get(key) else { continue };
        // No defaults, as the reference says.
        if row.default == "required" || key == "pools.*.backends[].name" {
            continue;
        }
        count += 1;
        if !given.iter().any(|given| row.default == format!("`{given}`")) {
            wrong.push(format!("{key}: {given:?}, not {}", row.default));
        }
    }
    assert!(count > 50, "only {count} compared");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The values of single keys: a key may be there several times, in listeners of both protocols.
fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Vec<String>>) {
    match value {
        Value::Object(entries) => {
            for (key, child) in entries {
                let key = if path == "listeners" || path == "pools" { "*" } else { key };
                let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                collect(child, &below, found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| collect(item, &format!("{path}[]"), found));
        }
        Value::String(text) => found.entry(path.to_owned()).or_default().push(text.clone()),
        other => found.entry(path.to_owned()).or_default().push(other.to_string()),
    }
}
