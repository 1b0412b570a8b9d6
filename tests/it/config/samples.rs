//! The samples we ship: each loads, and the reference holds every key with its default.

use std::collections::BTreeSet;

use maitred::addr::{BackendAddr, ListenAddr};
use maitred::config::{Backend, Config, Health, Listener, Pool, Probe, Protocol, load, schema};
use serde_json::Value;

use super::{environment, files_in, load_text, second_reader, source};

fn sample(name: &str) -> String {
    files_in("conf", ".yaml").into_iter().find(|(file, _)| file == name).unwrap().1
}

#[test]
fn every_recipe_loads_without_a_warning() {
    let recipes = files_in("conf/recipes", ".yaml");
    assert!(recipes.len() >= 9);
    for (name, text) in
        recipes.into_iter().chain([("minimal.yaml".to_owned(), sample("minimal.yaml"))])
    {
        // With the files that they name, beside them.
        match load(&[source(&format!("conf/recipes/{name}"), &text)], &environment) {
            Ok(loaded) => {
                assert!(
                    loaded.warnings.is_empty(),
                    "{name}:\n{}",
                    loaded.warnings_report().render(false)
                );
            }
            Err(report) => panic!("{name}:\n{}", report.render(false)),
        }
    }
}

#[test]
fn the_reference_says_the_defaults() {
    let loaded = load_text(&sample("reference.yaml")).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings_report().render(false));
    let config = loaded.config;
    let backends = vec![
        Backend {
            name: "10.0.0.11:5432".into(),
            address: BackendAddr::Inet("10.0.0.11:5432".parse().unwrap()),
            ..Default::default()
        },
        Backend {
            name: "db2".into(),
            address: BackendAddr::Inet("10.0.0.12:5432".parse().unwrap()),
            ..Default::default()
        },
    ];
    let listener = Listener {
        name: "postgres".into(),
        bind: vec![ListenAddr::DualStack(5432)],
        pool: Some("db".into()),
        ..Default::default()
    };
    let dns = Listener {
        name: "dns".into(),
        bind: vec![ListenAddr::DualStack(53)],
        protocol: Protocol::Udp,
        pool: Some("resolvers".into()),
        ..Default::default()
    };
    let pool = Pool { name: "db".into(), backends, ..Default::default() };
    let resolver = Backend {
        name: "10.0.0.53:53".into(),
        address: BackendAddr::Inet("10.0.0.53:53".parse().unwrap()),
        ..Default::default()
    };
    let health = Health { probe: Probe::None, ..Pool::default().health };
    let resolvers =
        Pool { name: "resolvers".into(), backends: vec![resolver], health, ..Default::default() };
    let expected = Config {
        listeners: vec![listener.into(), dns.into()],
        pools: vec![pool.into(), resolvers.into()],
        sha256: config.sha256.clone(),
        own_sha256: config.sha256.clone(),
        ..Default::default()
    };
    assert_eq!(config, expected);
    assert_eq!(config.sha256.len(), 64);
}

/// An option that is commented out stands below the key it would replace. With each such block put in
/// place in turn, the reference still loads, and together they show every key there is.
#[test]
fn the_reference_holds_every_key() {
    let text = sample("reference.yaml");
    let mut seen = BTreeSet::new();
    let files = crate::tls::Files::new();
    let folder = files.path("");
    for variant in variants(&text) {
        let variant = variant.replace("/etc/maitred/tls/", &folder);
        if let Err(report) = load_text(&variant) {
            panic!("{}\nin\n{variant}", report.render(false));
        }
        collect_keys(&variant, &mut seen);
    }
    let missing: Vec<String> = schema::keys()
        .into_iter()
        .filter(|key| !key.starts_with("defaults.listener.") && !key.starts_with("defaults.pool."))
        .filter(|key| !seen.contains(key))
        .collect();
    assert!(missing.is_empty(), "not in conf/reference.yaml: {missing:?}\nseen: {seen:?}");
}

fn variants(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut variants = vec![text.to_owned()];
    for (start, line) in lines.iter().enumerate() {
        let Some((indent, key)) = commented_key(line) else { continue };
        let mut end = start + 1;
        let deeper = format!("{indent}#   ");
        while end < lines.len() && lines[end].starts_with(&deeper) {
            end += 1;
        }
        let replaced =
            (0..start).rev().find(|index| lines[*index].starts_with(&format!("{indent}{key}:")));
        let replaced =
            replaced.unwrap_or_else(|| panic!("{key} is commented out, but stands nowhere above"));
        let mut variant: Vec<String> =
            lines[..start].iter().map(|line| (*line).to_owned()).collect();
        variant.remove(replaced);
        variant.extend(lines[start..end].iter().map(|line| line.replacen("# ", "", 1)));
        variant.extend(lines[end..].iter().map(|line| (*line).to_owned()));
        variants.push(variant.join("\n"));
    }
    assert!(variants.len() > 5, "no option is found");
    variants
}

/// `    # key:` gives the indentation and the key.
fn commented_key(line: &str) -> Option<(&str, &str)> {
    let (indent, rest) = line.split_once("# ")?;
    let key = rest.strip_suffix(':')?;
    (indent.trim().is_empty() && !key.contains(' ')).then_some((indent, key))
}

fn collect_keys(text: &str, seen: &mut BTreeSet<String>) {
    walk(&second_reader(text).unwrap(), "", seen);
}

fn walk(value: &Value, path: &str, seen: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, child) in entries {
                let named = path == "listeners" || path == "pools";
                let key = if named { "*" } else { key };
                let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                seen.insert(below.clone());
                walk(child, &below, seen);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{path}[]"), seen)),
        _ => {}
    }
}
