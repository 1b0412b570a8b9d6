//! Backends from a file, and the configuration's own files: looked at, read once they are whole, and kept as they were if
//! they cannot be used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use maitred::config::{Config, Source, load};
use maitred::control::file_watch::Watch;
use maitred::telemetry::metrics::{Sources, exposition};
use tempfile::TempDir;

use crate::balancer::Balancer;

/// A balancer whose only backends are a file's, and the one who looks at it.
struct Site {
    balancer: Balancer,
    watch: Watch,
    dir: TempDir,
}

const FILE: &str = "backends.yaml";

fn config(dir: &Path, more: &str) -> Config {
    let text = format!(
        "version: 1
process: {{workers: 1}}
listeners: {{main: {{bind: \"127.0.0.1:0\", pool: main}}}}
pools: {{main: {{discovery: {{file: {{path: {FILE}}}}}, health: {{probe: none}}{more}}}}}
"
    );
    let name = dir.join("maitred.yaml").display().to_string();
    load(&[Source { name, text }], &|_| None).unwrap().config
}

impl Site {
    fn new(make: impl FnOnce(&Path), more: &str) -> Site {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let balancer = Balancer::start(config(dir.path(), more));
        let mut site = Site { balancer, watch: Watch::default(), dir };
        site.look_twice();
        site
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    /// As is done each second.
    fn look(&mut self) {
        let supervisor = self.balancer.supervisor.as_mut().unwrap();
        let config = Arc::clone(&supervisor.plane.snapshot.load().config);
        supervisor.renew_files(self.watch.look(&config));
    }

    fn look_twice(&mut self) {
        self.look();
        self.look();
    }

    fn backends(&self) -> Vec<String> {
        let snapshot = self.balancer.supervisor().plane.snapshot.load();
        let backends = &snapshot.pools["main"].backends;
        backends.iter().map(|it| format!("{} {}", it.name, it.weight)).collect()
    }

    fn told(&self) -> Vec<String> {
        self.balancer.supervisor().events.all().into_iter().map(|event| event.message).collect()
    }

    fn metric(&self, series: &str) -> f64 {
        let supervisor = self.balancer.supervisor();
        let text = exposition(&Sources {
            plane: Arc::clone(&supervisor.plane),
            reloads: Arc::clone(&supervisor.reloads),
            log_dropped: Arc::default(),
        });
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
    }
}

#[test]
fn a_list_is_in_force_from_the_start_and_after_each_change() {
    let first = "- \"192.0.2.2:1\"\n- {address: \"192.0.2.1:1\", name: one, weight: 3}\n";
    let mut site = Site::new(|dir| fs::write(dir.join(FILE), first).unwrap(), "");
    assert_eq!(site.backends(), ["one 3", "192.0.2.2:1 1"]);
    assert!(site.told().is_empty(), "nothing has changed yet: {:?}", site.told());
    let success = "maitred_discovery_last_success_timestamp_seconds{pool=\"main\"}";
    assert!(site.metric(success) > 1.7e9);
    // As a program writes it.
    fs::write(
        site.path(),
        "[\n\t{\"address\": \"192.0.2.1:1\", \"name\": \"one\"},\n\t\"192.0.2.3:1\"\n]\n",
    )
    .unwrap();
    site.look_twice();
    assert_eq!(site.backends(), ["one 1", "192.0.2.3:1 1"]);
    fs::write(site.path(), "[]").unwrap();
    site.look_twice();
    assert!(site.backends().is_empty(), "said in so many words");
    let told = [
        "main: 1 backend added (192.0.2.3:1), 1 backend gone (192.0.2.2:1), 1 backend changed (one)",
        "main: 2 backends gone (192.0.2.3:1, one)",
    ];
    assert_eq!(site.told(), told);
}

#[test]
fn a_list_that_is_being_written_is_not_read_yet() {
    let mut site = Site::new(
        |dir| fs::write(dir.join(FILE), "[\"192.0.2.1:1\", \"192.0.2.2:1\"]").unwrap(),
        "",
    );
    fs::write(site.path(), "- \"192.0.2.1:1\"\n").unwrap();
    site.look();
    assert_eq!(site.backends().len(), 2);
    fs::write(site.path(), "- \"192.0.2.1:1\"\n- \"192.0.2.3:1\"\n").unwrap();
    site.look();
    assert_eq!(site.backends(), ["192.0.2.1:1 1", "192.0.2.2:1 1"]);
    site.look();
    assert_eq!(site.backends(), ["192.0.2.1:1 1", "192.0.2.3:1 1"]);
}

#[test]
fn a_list_that_cannot_be_used_leaves_the_last_one_in_force_and_says_so_once() {
    let mut site = Site::new(|dir| fs::write(dir.join(FILE), "[\"192.0.2.1:1\"]").unwrap(), "");
    let path = site.path().display().to_string();
    let failures = |reason: &str| {
        format!("maitred_discovery_failures_total{{pool=\"main\",reason=\"{reason}\"}}")
    };
    for (round, (text, why)) in [
        (Some(""), ":1: there is nothing in this file"),
        (Some("# all gone\n"), ": there is nothing in this file"),
        (
            Some("- \"192.0.2.9:1\"\n- \"192.0.2.300:1\"\n- {}\n"),
            ":2: `192.0.2.300:1` is not an address, and 1 more",
        ),
        (Some("- \"192.0.2.9:1\"\n- \"192.0.2.9:1\"\n"), ":2: the address `192.0.2.9:1` is twice"),
        (Some("- \"db.internal:1\"\n"), ":1: a file of backends holds addresses"),
        (Some("backends: [\"192.0.2.9:1\"]\n"), ": a mapping cannot stand here"),
        (Some("[\"192.0.2.9:1\","), ": this bracket is never closed"),
        (None, " cannot be read: No such file"),
    ]
    .into_iter()
    .enumerate()
    {
        match text {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        (0..4).for_each(|_| site.look());
        assert_eq!(site.backends(), ["192.0.2.1:1 1"], "{why}");
        let told = site.told();
        assert_eq!(told.len(), round + 1, "{told:?}");
        assert!(told[round].contains(&path) && told[round].contains(why), "{told:?}");
    }
    assert_eq!(site.metric(&failures("malformed")), 7.0);
    assert_eq!(site.metric(&failures("unreadable")), 1.0);
    // Nor does a reload lose them.
    let now = config(site.dir.path(), ", balance: random");
    let supervisor = site.balancer.supervisor.as_mut().unwrap();
    supervisor.reload_with(Ok(now), Instant::now()).unwrap();
    assert_eq!(site.backends(), ["192.0.2.1:1 1"]);
    fs::write(&path, "[\"192.0.2.2:1\"]").unwrap();
    site.look_twice();
    assert_eq!(site.backends(), ["192.0.2.2:1 1"]);
}

#[test]
fn the_order_of_a_file_means_something_only_to_the_first_available() {
    let text = "[\"192.0.2.2:1\", \"192.0.2.1:1\"]";
    let turned = "[\"192.0.2.1:1\", \"192.0.2.2:1\"]";
    let mut site = Site::new(|dir| fs::write(dir.join(FILE), text).unwrap(), "");
    let pool =
        |site: &Site| Arc::clone(&site.balancer.supervisor().plane.snapshot.load().pools["main"]);
    let before = pool(&site);
    fs::write(site.path(), turned).unwrap();
    site.look_twice();
    assert!(Arc::ptr_eq(&before, &pool(&site)));
    let more = ", balance: first_available";
    let mut site = Site::new(|dir| fs::write(dir.join(FILE), text).unwrap(), more);
    assert_eq!(site.backends(), ["192.0.2.2:1 1", "192.0.2.1:1 1"]);
    fs::write(site.path(), turned).unwrap();
    site.look_twice();
    assert_eq!(site.backends(), ["192.0.2.1:1 1", "192.0.2.2:1 1"]);
}

/// As Kubernetes mounts a ConfigMap: each version in a folder of its own, behind a link that is set anew.
fn mount(dir: &Path, file: &str, version: &str, text: &str) {
    let folder = dir.join(version);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(file), text).unwrap();
    symlink(version, dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    if !dir.join(file).exists() {
        symlink(format!("..data/{file}"), dir.join(file)).unwrap();
    }
}

#[test]
fn a_config_map_is_followed() {
    let mut site = Site::new(|dir| mount(dir, FILE, "..1", "[\"192.0.2.1:1\"]"), "");
    assert_eq!(site.backends(), ["192.0.2.1:1 1"]);
    mount(site.dir.path(), FILE, "..2", "[\"192.0.2.2:1\"]");
    fs::remove_dir_all(site.dir.path().join("..1")).unwrap();
    site.look_twice();
    assert_eq!(site.backends(), ["192.0.2.2:1 1"]);
}

/// The configuration's own file, and what a look at it finds.
struct Own {
    dir: TempDir,
    watch: Watch,
    config: Arc<Config>,
}

impl Own {
    fn new(text: &str) -> Own {
        let dir = tempfile::tempdir().unwrap();
        mount(dir.path(), "maitred.yaml", "..0", text);
        let path = dir.path().join("maitred.yaml");
        let mut own = Own { watch: Watch::new(vec![path]), dir, config: Arc::default() };
        own.reload();
        own
    }

    /// Takes what is there into force.
    fn reload(&mut self) {
        let text = fs::read_to_string(self.dir.path().join("maitred.yaml")).unwrap();
        let sources = [Source { name: "maitred.yaml".into(), text }];
        self.config = Arc::new(load(&sources, &|_| None).unwrap().config);
    }

    /// In so many looks, how often a reload is wanted.
    fn looks(&mut self, count: usize) -> usize {
        (0..count).filter(|_| self.watch.look(&self.config).configuration).count()
    }
}

const WATCHED: &str = "version: 1\nprocess: {watch: true}\n";

#[test]
fn a_configuration_that_changed_is_read_anew_once_and_only_if_its_text_is_another() {
    let mut own = Own::new(WATCHED);
    assert_eq!(own.looks(3), 0);
    let dir = own.dir.path().to_owned();
    // Another file with the same text.
    mount(&dir, "maitred.yaml", "..1", WATCHED);
    assert_eq!(own.looks(3), 0);
    mount(&dir, "maitred.yaml", "..2", &format!("{WATCHED}# more\n"));
    assert_eq!(own.looks(1), 0, "it may be in the middle of being written");
    assert_eq!(own.looks(1), 1);
    own.reload();
    assert_eq!(own.looks(3), 0);
    // What is refused is not tried again, until it is yet another.
    mount(&dir, "maitred.yaml", "..3", "nonsense");
    assert_eq!(own.looks(5), 1);
    mount(&dir, "maitred.yaml", "..4", "more nonsense");
    assert_eq!(own.looks(5), 1);
    fs::remove_file(dir.join("..data")).unwrap();
    assert_eq!(own.looks(5), 1, "it cannot be read");
    mount(&dir, "maitred.yaml", "..5", &format!("{WATCHED}# more\n"));
    assert_eq!(own.looks(5), 1, "that it is as it was is a success");
}

#[test]
fn what_was_read_by_hand_is_not_read_again() {
    let mut own = Own::new(WATCHED);
    assert_eq!(own.looks(2), 0);
    mount(own.dir.path(), "maitred.yaml", "..1", &format!("{WATCHED}# more\n"));
    own.reload();
    assert_eq!(own.looks(3), 0);
}

#[test]
fn a_configuration_that_does_not_ask_for_it_is_left_alone() {
    let mut own = Own::new("version: 1\n");
    mount(own.dir.path(), "maitred.yaml", "..1", WATCHED);
    assert_eq!(own.looks(3), 0);
}
