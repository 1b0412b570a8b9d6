//! The JSON Schema and the reader agree: the same keys, the samples accepted, the bad files refused where a
//! schema can see what is wrong.

use std::collections::BTreeSet;

use maitred::config::schema::{keys, schema};
use serde_json::Value;

use super::{files_in, second_reader};

fn validator() -> jsonschema::Validator {
    jsonschema::validator_for(&schema()).unwrap()
}

#[test]
fn the_schema_has_the_keys_of_the_reader_and_no_others() {
    let schema = schema();
    let mut found = BTreeSet::new();
    collect(&schema, &schema, "", &mut found);
    let known: BTreeSet<String> = keys().into_iter().collect();
    assert!(known.len() > 100, "{}", known.len());
    assert_eq!(found, known);
}

/// Every key that the schema describes, by the same paths as the reader's.
fn collect(root: &Value, schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let meant = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer)).unwrap();
        collect(root, meant, path, found);
    }
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        collect(root, form, path, found);
    }
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        found.insert(below.clone());
        collect(root, property, &below, found);
    }
    if schema["additionalProperties"].is_object() {
        collect(root, &schema["additionalProperties"], &format!("{path}.*"), found);
    }
    // One item or a list of them is the same key; a list of mappings is not.
    if schema["items"].is_object() {
        collect(root, &schema["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn the_samples_fit_the_schema() {
    let validator = validator();
    let ours =
        ["conf", "conf/recipes", "conf/compose"].into_iter().flat_map(|it| files_in(it, ".yaml"));
    // That one is for containers.
    for (name, text) in ours.filter(|(name, _)| name != "compose.yaml") {
        let value = second_reader(&text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// What takes two keys, another file, the environment or arithmetic to see is beyond a schema; so is what
/// is no YAML in the first place.
#[test]
fn the_schema_refuses_what_a_schema_can_see() {
    const BEYOND: &[&str] = &[
        "admin-socket-long",
        "backend-twice",
        "bad-backend",
        "bad-bind",
        "bad-busy-poll",
        "bad-probe",
        "bad-source",
        "bad-variable",
        "bound-by-wildcard",
        "bound-twice",
        "bound-twice-udp",
        "circular",
        "circular-round",
        "defaults-then-conflict",
        "empty-bind",
        "fraction-keepalive",
        "given-twice",
        "group-without-user",
        "missing-keys",
        "missing-token",
        "net-files",
        "no-pools",
        "not-prime",
        "out-of-range",
        "overflow",
        "overlapping-ranges",
        "portless-behind-unix",
        "proxy-v1-with-udp",
        "regex-too-large",
        "short-token",
        "small-client-buffer",
        "socket-buffers-half",
        "source-family",
        "standby-also-passes",
        "standby-without-expect",
        "tcp-with-udp-keys",
        "too-many-addresses",
        "udp-on-unix",
        "udp-probe-on-unix",
        "udp-with-tcp-keys",
        "unknown-group",
        "unknown-pool",
        "unknown-user",
        "unset-variable",
        "unset-variable-message",
        "unix-not-trusted",
        "user-number-alone",
        "variable-with-bad-value",
        "wildcard-after-specific",
    ];
    let validator = validator();
    let mut accepted = Vec::new();
    for (name, text) in files_in("tests/bad", ".yaml") {
        let name = name.trim_end_matches(".yaml").to_owned();
        let Some(value) = second_reader(&text) else { continue };
        if validator.is_valid(&value)
            && !name.starts_with("warning-")
            && !BEYOND.contains(&name.as_str())
        {
            accepted.push(name);
        }
    }
    assert!(accepted.is_empty(), "the schema accepts {accepted:?}");
}
