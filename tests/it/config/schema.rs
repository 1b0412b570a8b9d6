//! The JSON Schema and the reader agree: the same keys, each with its sentence and its default, the samples accepted, the
//! bad files refused where a schema can see what is wrong.

use std::collections::BTreeSet;

use maitred::config::schema::{Presence, rows, schema};
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
    let known: BTreeSet<String> = rows().into_iter().map(|row| row.path).collect();
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

/// Each property that the schema describes, with its place among the others.
fn properties(schema: &Value) -> Vec<(&String, &Value)> {
    let named = schema["$defs"].as_object().unwrap().values();
    let own =
        named.chain([schema]).flat_map(|it| it["properties"].as_object().into_iter().flatten());
    own.collect()
}

#[test]
fn every_key_has_a_sentence() {
    for row in rows() {
        let is_sentence = row.sentence.ends_with('.') && !row.sentence.contains("  ");
        assert!(is_sentence && row.sentence.len() > 5, "{}: {:?}", row.path, row.sentence);
    }
    let schema = schema();
    let properties = properties(&schema);
    assert!(properties.len() > 100);
    for (key, property) in properties {
        let sentence = property["description"].as_str().unwrap_or_default();
        let is_plain = !sentence.is_empty() && !sentence.contains("](");
        assert!(is_plain, "{key}: {sentence:?}");
    }
}

/// A default is what the key's own schema accepts, and the schema has it.
#[test]
fn every_default_can_be_read() {
    let schema = schema();
    let mut count = 0;
    for (key, property) in properties(&schema) {
        let Some(default) = property.get("default") else { continue };
        let mut alone = property.clone();
        alone["$defs"] = schema["$defs"].clone();
        let validator = jsonschema::validator_for(&alone).unwrap();
        assert!(validator.is_valid(default), "{key}: {default}");
        count += 1;
    }
    let declared = rows().into_iter().filter(|row| !row.path.starts_with("defaults."));
    let declared =
        declared.filter(|row| matches!(row.presence, Presence::Default(text) if text != "{}"));
    let declared: BTreeSet<String> = declared.map(|row| row.path).collect();
    assert!(count > 60 && declared.len() >= count, "{count} of {}", declared.len());
    // A file that says each of them is the file that says none.
    let with = |path: &str| {
        let mut at = &schema;
        for key in path.split('.') {
            at = resolved(&schema, &resolved(&schema, at)["properties"][key]);
        }
        at
    };
    assert_eq!(with("log.level")["default"], "info");
    assert_eq!(with("process.shutdown.timeout")["default"], "25s");
}

/// References are followed where nothing stands beside them.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) if schema.get("default").is_none() => {
            root.pointer(reference.strip_prefix('#').unwrap()).unwrap()
        }
        _ => schema,
    }
}

/// What a reload refuses is marked, and nothing else.
#[test]
fn keys_marked_with_restart_are_those_that_a_reload_refuses() {
    let fixed = |before: &str, after: &str| -> BTreeSet<String> {
        let load = |text: &str| super::accepted(&format!("version: 1\n{text}"));
        let keys = maitred::control::fixed_keys::fixed_keys_changed(&load(before), &load(after));
        keys.into_iter().map(str::to_owned).collect()
    };
    let marked: BTreeSet<String> =
        rows().into_iter().filter(|row| row.needs_restart).map(|row| row.path).collect();
    let before = "process: {workers: 1, user: 1, group: 1}\nadmin: {socket: none}\n";
    let after = "process: {workers: 2, user: 2, group: 2}\nadmin: {socket: auto}\n";
    assert_eq!(fixed(before, after), marked);
    // Every other key of the process, of admin and of the log.
    let other = "process: {workers: 1, user: 1, group: 1, max_sessions: 9, busy_poll: 1ms, watch: true,\n  \
                 shutdown: {delay: 1s, timeout: 2s}}\n\
                 admin: {socket: none, listen: none}\nlog: {level: debug, format: json, sessions: all}\n";
    assert_eq!(fixed(before, other), BTreeSet::new());
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
        "postgres-cancel-udp",
        "proxy-v1-with-udp",
        "regex-too-large",
        "retry-until-spliced",
        "retry-until-udp",
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
