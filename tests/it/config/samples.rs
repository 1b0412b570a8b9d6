//! The samples we ship: each loads, and the reference holds every key with its default.

use std::collections::BTreeSet;

use maitred::border::addr::{BackendAddr, ListenAddr};
use maitred::config::describe::describe;
use maitred::config::{Backend, Config, Health, Listener, Pool, Probe, Protocol, load, schema};
use serde_json::Value;

use super::{environment, files_in, load_text, recipes, second_reader, source};

fn sample(name: &str) -> String {
    files_in("conf", ".yaml").into_iter().find(|(file, _)| file == name).unwrap().1
}

#[test]
fn every_recipe_loads_without_a_warning() {
    let files = crate::tls::Files::new();
    let recipes = recipes(&files);
    assert!(recipes.len() >= 14);
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
    let health = Health { probe: Probe::Tcp, ..Pool::default().health };
    let pool = Pool { name: "db".into(), backends, health, ..Default::default() };
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
    let missing: Vec<String> = schema::rows()
        .into_iter()
        .map(|row| row.path)
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

/// Commented alternatives of the reference, too: a description of what was read is read as the same.
#[test]
fn what_is_described_in_full_is_read_as_the_same_again() {
    let files = crate::tls::Files::new();
    let texts = recipes(&files).into_iter().map(|(_, text)| text);
    let mut count = 0;
    for text in texts.chain([sample("reference.yaml"), EVERY_CHOICE.to_owned()]) {
        let loaded = load_text(&text);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(false)));
        let mut config = loaded.config;
        // By name: of listeners and pools the order means nothing.
        config.listeners.sort_by(|a, b| a.name.cmp(&b.name));
        config.pools.sort_by(|a, b| a.name.cmp(&b.name));
        // Only texts can hold a dollar sign, and there it would begin a variable.
        let described = describe(&config).to_string().replace('$', "$$");
        let again = load_text(&described);
        let again = again.unwrap_or_else(|report| panic!("{}", report.render(false))).config;
        let (sha256, own_sha256) = (again.sha256.clone(), again.own_sha256.clone());
        assert_eq!(again, Config { sha256, own_sha256, ..config }, "{described}");
        count += 1;
    }
    assert!(count > 10);
}

/// What is not a default anywhere.
const EVERY_CHOICE: &str = r#"
version: 1
process: {watch: true, workers: 3, max_sessions: 1000, busy_poll: 1ms, shutdown: {delay: 1s, timeout: 1m30s}}
admin: {listen: none, socket: /tmp/a.sock}
log: {level: debug, format: text, sessions: failures}
listeners:
  tcp:
    bind: ["127.0.0.1:5000-5003", "[::1]:6000", "unix:/tmp/door"]
    pool: none
    routes: [{server_name: ["*.a.example", "b.example"], alpn: [h2], client: ["10.0.0.0/8"], port: 5001, pool: one}]
    proxy_protocol: {trusted: ["192.0.2.0/24"]}
    allow: ["2001:db8::/32"]
    deny: ["2001:db8::1"]
    deny_sessions: end
    on_refuse: reset
    relay: splice
    preread_size: 4KiB
    limits: {sessions: 5, sessions_per_client: 2, rate: {per_second: 7, burst: 9}, rate_per_client: {per_second: 1}, prereads: 3,
             bandwidth: {to_client: 10MiB, to_backend: 1500B}}
    timeouts: {preread: 250ms, idle: 1d, half_closed: none, max_lifetime: 2h, client_user_timeout: 90s}
    keepalive: none
    socket_buffers: {client: 64KiB, backend: 128KiB}
    backlog: 17
  udp:
    bind: "127.0.0.1:53"
    protocol: udp
    pool: two
    limits: {datagram_rate: {per_second: 10}, datagram_rate_per_client: {per_second: 2, burst: 4}}
    flow: {timeout: 3s, max_flows: 9, requests: 1, responses: 2, when_full: evict_idle}
pools:
  one:
    balance: consistent_hash
    hash: {key: client_address, table_size: 251, bounded_load: 150%}
    backends: [{address: "10.0.0.1:1", name: a, weight: 0, tier: 2, max_sessions: 4}, "10.0.0.2:2", "unix:/tmp/b"]
    spill: true
    connect: {timeout: 1s, attempts: 2}
    source: ["10.0.0.9"]
    source_ports: own
    send_proxy_protocol: v2
    send_proxy_tlvs: [authority, crc32c]
    health: {probe: {exchange: {send: {hex: "00 ff"}, expect: {regex: "^a$"}}}, port: 99, interval: 3s, timeout: 2s, rise: 1, fall: 9, start: down, jitter: 0%}
    passive: none
    slow_start: 10s
    on_down: {drain: 5s}
    failback: {after: 3m}
    flap: {changes: 2, within: 3s, hold_down: 4s}
    single: refuse
    when_none_up: {hold: {for: 1s, max: 2}}
    when_full: {hold: {for: 2s, max: 3}}
    timeouts: {backend_user_timeout: 9s}
  two:
    balance: ip_hash
    backends: ["10.0.0.3:53"]
    send_proxy_protocol: v2
    send_proxy_datagrams: every
    health: {probe: {dns: {name: example.com, type: AAAA}}}
    passive: {failures: 2, window: 3s, eject_for: 4s, max_ejected: 5%}
    discovery: {dns: {name: _dns._udp.example.com, type: srv, refresh: 7s, servers: ["192.0.2.1", "[2001:db8::1]:54"]}}
    on_down: {idle_first: 6s}
    when_none_up: try_all
  three:
    backends: ["10.0.0.4:1", "db.internal:5432", "10.0.0.5:1", {address: "other.example.", weight: 3, tier: 1, max_sessions: 9}]
    discovery: {dns: {name: more.internal, port: 9, refresh: 1h}}
"#;
