//! Several files make one configuration: listeners and pools are united, anything else stands in one file.

use maitred::config::load;

use super::{environment, source};

const LISTENER: &str = "version: 1\nlisteners:\n  web: {bind: \":80\", pool: app}\n";
const POOL: &str = "version: 1\ndefaults: {listener: {backlog: 9}}\npools:\n  app: {backends: [\"10.0.0.1:80\"]}\n";

#[test]
fn listeners_and_pools_are_united_and_defaults_reach_all_files() {
    let sources = [source("a.yaml", LISTENER), source("b.yaml", POOL)];
    let loaded = load(&sources, &environment).unwrap();
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.config.listeners[0].backlog, 9);
    assert_eq!(loaded.config.pools.len(), 1);
}

#[test]
fn one_version_is_enough_for_all_files() {
    let second = POOL.replace("version: 1\n", "");
    let sources = [source("a.yaml", LISTENER), source("b.yaml", &second)];
    assert!(load(&sources, &environment).is_ok());
}

#[test]
fn a_fault_names_its_own_file() {
    let second = POOL.replace("10.0.0.1:80", "10.0.0.1:0");
    let sources = [source("a.yaml", LISTENER), source("b.yaml", &second)];
    let faults = load(&sources, &environment).unwrap_err().to_json();
    assert_eq!(faults[0]["file"], "b.yaml");
    assert_eq!(faults[0]["line"], 4);
    assert_eq!(faults[0]["path"], "pools.app.backends[0]");
}

#[test]
fn the_digest_covers_every_file() {
    let both = |pool: &str| {
        let sources = [source("a.yaml", LISTENER), source("b.yaml", pool)];
        load(&sources, &environment).unwrap().config.sha256
    };
    assert_ne!(both(POOL), both(&format!("{POOL}# changed\n")));
}
