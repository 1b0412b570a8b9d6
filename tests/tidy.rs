//! The house rules. Each fails with file, line and what to do about it. They read text, not syntax: that is
//! enough for code that rustfmt has been over.

// A test that meets what it does not expect is to fail on the spot.
#![allow(clippy::unwrap_used)]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/imports.rs"]
mod imports;

use imports::Imports;

/// One file of the repository.
struct File {
    /// From the repository's root, with `/`.
    path: String,
    lines: Vec<String>,
    /// Where the `#[cfg(test)]` part begins; the end if there is none.
    tests_from: usize,
}

struct Finding {
    path: String,
    line: usize,
    advice: String,
}

/// A rule over one Rust file.
type Rule = fn(&File) -> Vec<Finding>;

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 70;

/// Words of other balancers that are not ours; identifiers of others that hold one.
const FOREIGN_WORDS: [&str; 6] =
    ["upstream", "downstream", "endpoint", "target", "peer", "frontend"];
const NOT_OURS_TO_NAME: [&str; 11] = [
    "with_target",
    "type Target",
    "target_os",
    "target_arch",
    "target_feature",
    "target_pointer_width",
    "peer_addr",
    "peer_certificates",
    "peer_cred",
    "getpeername",
    "srv.target",
];

/// What the data plane does not know.
const DATA_PLANE: [&str; 1] = ["src/data/"];
const CONTROL_ONLY: [&str; 12] = [
    "crate::admin",
    "crate::cli",
    "crate::control",
    "crate::demo",
    "config::check",
    "config::decode",
    "config::load",
    "config::keys",
    "config::parse",
    "config::substitute",
    "config::tree",
    "serde_yaml",
];

/// The rooms, from the top down: the files of each take names from its own and from rooms further down, and from no other.
const ROOMS: [&str; 39] = [
    "src/lib.rs",
    "src/main.rs",
    "src/cli/",
    "src/control/daemon.rs",
    "src/control/main_loop.rs",
    "src/control/reload.rs",
    "src/control/drain.rs",
    "src/control/admin_server.rs",
    "src/control/start_error.rs",
    "src/demo/",
    "src/control/supervisor",
    "src/admin/",
    "src/control/discovery/",
    "src/control/health/",
    "src/control/file_watch.rs",
    "src/control/fixed_keys.rs",
    "src/control/",
    "src/telemetry/",
    "src/data/tcp/",
    "src/data/udp/",
    "src/border/plane.rs",
    "src/data/admit.rs",
    "src/border/snapshot.rs",
    "src/border/session_log.rs",
    "src/data/route/",
    "src/data/pool/",
    "src/data/limits/",
    "src/border/record.rs",
    "src/border/in_force/",
    "src/config/",
    "src/data/stream/",
    "src/data/tls/",
    "src/data/wire/",
    "src/data/mod.rs",
    "src/border/written.rs",
    "src/sys/",
    "src/border/datagrams.rs",
    "src/border/counters.rs",
    "src/border/",
];

/// Modules that take time, chance and bytes as arguments, so that a test can hand them any.
const PURE: [&str; 18] = [
    "src/border/dns_name.rs",
    "src/border/in_force/",
    "src/border/nearest.rs",
    "src/border/quantities.rs",
    "src/border/written.rs",
    "src/data/admit/acl.rs",
    "src/data/admit/client.rs",
    "src/data/admit/rate.rs",
    "src/config/",
    "src/control/discovery/answer.rs",
    "src/control/discovery/schedule.rs",
    "src/control/discovery/system.rs",
    "src/data/pool/balance/",
    "src/control/fixed_keys.rs",
    "src/data/udp/flow.rs",
    "src/data/udp/flow_table.rs",
    "src/data/udp/train.rs",
    "src/data/wire/",
];
const PURE_BUT: [&str; 3] =
    ["src/data/pool/balance/chance.rs", "src/data/pool/balance/draw.rs", "src/config/files.rs"];
const WORLD: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "fastrand::",
    "tokio::",
    "thread::",
];

impl File {
    fn new(path: &str, text: &str) -> File {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // `mod tests;` names a file of its own.
        let is_tests = |(index, line): &(usize, &String)| {
            line.trim() == "#[cfg(test)]"
                && lines.get(index + 1).is_some_and(|next| next.trim_start().starts_with("mod "))
                && lines.get(index + 1).is_some_and(|next| next.ends_with('{'))
        };
        let whole = path.ends_with("/tests.rs") || path.starts_with("tests/");
        let tests_from = if whole {
            0
        } else {
            lines.iter().enumerate().find(is_tests).map_or(lines.len(), |(index, _)| index)
        };
        File { path: path.to_owned(), lines, tests_from }
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    fn is_src(&self) -> bool {
        self.path.starts_with("src/")
    }

    /// Line numbers and lines of the part that ships.
    fn shipped(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines[..self.tests_from]
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line.as_str()))
    }

    fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        let from = self.tests_from;
        self.lines[from..]
            .iter()
            .enumerate()
            .map(move |(index, line)| (from + index + 1, line.as_str()))
    }

    fn all(&self) -> impl Iterator<Item = (usize, &str)> {
        self.shipped().chain(self.tests())
    }

    fn finding(&self, line: usize, advice: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, advice: advice.into() }
    }

    /// The line itself or the one above holds a comment with `word`.
    fn is_explained(&self, line: usize, word: &str) -> bool {
        let here = &self.lines[line - 1];
        let above = if line > 1 { self.lines[line - 2].trim_start() } else { "" };
        let comment = here.find("//").map_or("", |at| &here[at..]);
        [comment, if above.starts_with("//") { above } else { "" }]
            .iter()
            .any(|comment| !comment.is_empty() && comment.contains(word))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// A line without what follows `//`. Good enough: a `//` in a text of ours is an address in a test.
fn code(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

/// The words of a line, `snake_case` and `CamelCase` taken apart, small letters.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in text.chars() {
        let begins = letter.is_uppercase() && before.is_lowercase();
        if !letter.is_alphabetic() || begins {
            words.push(String::new());
        }
        if letter.is_alphabetic() {
            words.last_mut().unwrap().extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

fn begins_with_a_module_doc(file: &File) -> Vec<Finding> {
    if file.lines.first().is_some_and(|line| line.starts_with("//! ")) {
        return Vec::new();
    }
    vec![file.finding(1, "begin with `//! `: what this file is, what it is not, who calls it")]
}

fn files_are_short(file: &File) -> Vec<Finding> {
    if !file.is_src() || file.tests_from <= LONGEST_FILE {
        return Vec::new();
    }
    let advice = format!(
        "{} lines without tests; at most {LONGEST_FILE}: a file answers one question, split off another",
        file.tests_from
    );
    vec![file.finding(LONGEST_FILE, advice)]
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let before = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"];
    words.find(|word| !before.contains(word)) == Some("fn")
}

fn functions_are_short(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.all().filter(|(_, line)| is_function(line)) {
        let indent = line.len() - line.trim_start().len();
        let end = format!("{}}}", &line[..indent]);
        let rest = &file.lines[number - 1..];
        // A function of one line, or one without a body, ends on its own line.
        let length = if line.ends_with('}') || line.ends_with(';') {
            1
        } else {
            rest.iter().position(|line| *line == end).map_or(1, |at| at + 1)
        };
        if length > LONGEST_FUNCTION {
            let advice = format!("a function of {length} lines; at most {LONGEST_FUNCTION}: split");
            findings.push(file.finding(number, advice));
        }
    }
    findings
}

fn unsafe_is_in_sys_and_argued(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.shipped() {
        let is_unsafe =
            ["unsafe {", "unsafe fn", "unsafe impl"].iter().any(|u| code(line).contains(u));
        if !is_unsafe {
            continue;
        }
        if !file.is_in(&["src/sys/", "bench/load/src/sys.rs"]) {
            findings.push(file.finding(number, "unsafe code belongs in src/sys"));
        }
        let above = file.lines[..number - 1].iter().rev();
        let argued = above
            .take_while(|line| line.trim_start().starts_with("//"))
            .any(|line| line.contains("SAFETY:"));
        if !argued {
            findings
                .push(file.finding(number, "say above it `// SAFETY:` who keeps which invariant"));
        }
    }
    findings
}

fn the_planes_do_not_know_each_other(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.shipped() {
        let line = code(line);
        if file.is_in(&DATA_PLANE)
            && let Some(name) = CONTROL_ONLY.iter().find(|name| line.contains(*name))
        {
            let advice = format!(
                "the data plane does not know `{name}`: pass what it needs in the Snapshot"
            );
            findings.push(file.finding(number, advice));
        }
        for (name, home) in
            [("crate::data::tcp", "src/data/tcp/"), ("crate::data::udp", "src/data/udp/")]
        {
            let may_name_it = file.is_in(&[home, "src/control/supervisor"]) || !file.is_src();
            if !may_name_it && line.contains(name) {
                let advice =
                    format!("only the supervisor knows `{name}`: go through it or `plane`");
                findings.push(file.finding(number, advice));
            }
        }
    }
    findings
}

fn pure_modules_see_no_world(file: &File) -> Vec<Finding> {
    if !file.is_in(&PURE) || file.is_in(&PURE_BUT) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in file.shipped() {
        if let Some(name) = WORLD.iter().find(|name| code(line).contains(*name)) {
            let advice = format!("`{name}` in a pure module: take it as an argument");
            findings.push(file.finding(number, advice));
        }
    }
    findings
}

fn words_are_ours(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A table of what others say.
    let is_asked = file.is_src() && !file.path.ends_with("config/elsewhere.rs");
    for (number, line) in file.all().filter(|_| is_asked) {
        let mut rest = line.to_owned();
        for name in NOT_OURS_TO_NAME {
            rest = rest.replace(name, "");
        }
        for word in words(&rest) {
            let singular = word.strip_suffix('s').unwrap_or(&word);
            if FOREIGN_WORDS.contains(&singular) {
                let advice = format!(
                    "`{word}` is not a word of ours: client, backend, or a name for the thing"
                );
                findings.push(file.finding(number, advice));
            }
        }
    }
    findings
}

fn nothing_is_left_unfinished(file: &File) -> Vec<Finding> {
    let unfinished = ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"];
    let mut findings = Vec::new();
    // This file has to spell them.
    for (number, line) in file.all().filter(|_| file.path != "tests/tidy.rs") {
        if let Some(mark) = unfinished.iter().find(|mark| line.contains(*mark)) {
            findings.push(
                file.finding(number, format!("`{mark}`: finish it, or file it and leave it out")),
            );
        }
        if line.trim() == "#[ignore]" {
            findings.push(file.finding(number, "say why: #[ignore = \"reason\"]"));
        }
    }
    findings
}

fn tests_say_why_they_sleep(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in file.tests().filter(|_| file.path != "tests/tidy.rs") {
        if code(line).contains("sleep(") && !file.is_explained(number, "") {
            let advice =
                "wait for a condition with a deadline, or say in a comment why only time will do";
            findings.push(file.finding(number, advice));
        }
    }
    findings
}

const RULES: [Rule; 9] = [
    begins_with_a_module_doc,
    files_are_short,
    functions_are_short,
    unsafe_is_in_sys_and_argued,
    the_planes_do_not_know_each_other,
    pure_modules_see_no_world,
    words_are_ours,
    nothing_is_left_unfinished,
    tests_say_why_they_sleep,
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file that git knows or would take: what `.gitignore` names is not looked at.
fn tracked() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "the house rules need a git checkout");
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty());
    // Deleted, and not yet told to git.
    names.filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
}

fn rust_files() -> Vec<File> {
    let files: Vec<File> = tracked()
        .iter()
        .filter(|path| PathBuf::from(path).extension().is_some_and(|end| end == "rs"))
        .map(|path| File::new(path, &read(path)))
        .collect();
    assert!(files.len() > 50, "only {} files found", files.len());
    files
}

fn none(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

#[test]
fn the_rules_hold_in_every_file() {
    let files = rust_files();
    none(RULES.iter().flat_map(|rule| files.iter().flat_map(rule)).collect());
}

fn imports(src: &str) -> Imports {
    let below = format!("{src}/");
    let files = tracked().into_iter().filter(|path| path.starts_with(&below));
    let files = files.filter(|path| path.ends_with(".rs")).map(|path| {
        let text = read(&path);
        (path, text)
    });
    Imports::read(src, &files.collect::<Vec<_>>())
}

#[test]
fn no_file_leads_back_to_itself() {
    for src in ["src", "bench/load/src"] {
        let imports = imports(src);
        let takes: usize = imports.of.values().map(|taken| taken.len()).sum();
        assert!(takes > 50, "{src}: only {takes} imports found");
        let circles = imports.circles();
        let ways: Vec<String> = circles.iter().map(|way| way.join(" → ")).collect();
        assert!(ways.is_empty(), "a circle: move what both need further down\n{}", ways.join("\n"));
    }
}

#[test]
fn rooms_know_only_those_further_down() {
    let room = |path: &str| {
        let fit = ROOMS.iter().enumerate().filter(|(_, room)| path.starts_with(**room));
        let longest = fit.max_by_key(|(_, room)| room.len());
        longest.unwrap_or_else(|| panic!("{path} is in no room: give it one in ROOMS")).0
    };
    let mut findings = Vec::new();
    for (path, taken) in &imports("src").of {
        for other in taken.iter().filter(|other| room(other) < room(path)) {
            findings.push(format!("{path} takes names of {other}, which is further up"));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    let files = tracked();
    for room in ROOMS {
        assert!(files.iter().any(|path| path.starts_with(room)), "there is nothing in {room}");
    }
}

/// The picture is of this house: every path in it is there, and every room of the first order is in it.
#[test]
fn the_picture_shows_this_house() {
    let text = read("ARCHITECTURE.md");
    let files = tracked();
    let is_there = |path: &str| {
        let places = [format!("src/{path}"), path.to_owned()];
        // A file beside the one named before it goes by its name alone.
        let ending = format!("/{path}");
        files.iter().any(|file| {
            places.iter().any(|place| file.starts_with(place)) || file.ends_with(&ending)
        })
    };
    let quoted = text.split('`').skip(1).step_by(2).filter(|it| !it.contains([' ', '\n']));
    let is_path = |it: &&str| it.contains('/') || it.ends_with(".rs") || it.ends_with(".md");
    let lost: Vec<&str> = quoted.filter(is_path).filter(|path| !is_there(path)).collect();
    assert!(lost.is_empty(), "ARCHITECTURE.md names what is not there: {lost:?}");
    let rooms = files.iter().filter_map(|path| path.strip_prefix("src/")?.split_once('/'));
    let unseen: Vec<&str> =
        rooms.map(|(room, _)| room).filter(|room| !text.contains(&format!("{room}/"))).collect();
    assert!(unseen.is_empty(), "ARCHITECTURE.md does not show {unseen:?}");
    let loose = |path: &&String| path.starts_with("src/") && path.matches('/').count() == 1;
    let loose: Vec<&String> = files.iter().filter(loose).collect();
    assert_eq!(loose, ["src/lib.rs", "src/main.rs"], "every other file is in a room");
}

/// Each rule can fail: an offence per rule, at the path where it matters, with the line it must be found in.
#[test]
fn each_rule_catches_its_offence() {
    let long = "//! Long.\n".repeat(LONGEST_FILE + 1);
    let function = format!("//! F.\nfn long() {{\n{}}}\n", "    f();\n".repeat(LONGEST_FUNCTION));
    let offences: [(Rule, &str, &str, usize); 17] = [
        (begins_with_a_module_doc, "src/a.rs", "use b;\n", 1),
        (files_are_short, "src/a.rs", &long, LONGEST_FILE),
        (functions_are_short, "src/a.rs", &function, 2),
        (unsafe_is_in_sys_and_argued, "src/a.rs", "// SAFETY: none.\nunsafe { f() }\n", 2),
        (unsafe_is_in_sys_and_argued, "src/sys/a.rs", "// Trust me.\nunsafe { f() }\n", 2),
        (
            the_planes_do_not_know_each_other,
            "src/data/tcp/a.rs",
            "use crate::control::reload::R;\n",
            1,
        ),
        (the_planes_do_not_know_each_other, "src/data/pool/a.rs", "use crate::config::parse;\n", 1),
        (
            the_planes_do_not_know_each_other,
            "src/control/health/a.rs",
            "use crate::data::tcp::T;\n",
            1,
        ),
        (the_planes_do_not_know_each_other, "src/data/tcp/a.rs", "use crate::data::udp::U;\n", 1),
        (pure_modules_see_no_world, "src/data/pool/balance/a.rs", "let t = Instant::now();\n", 1),
        (pure_modules_see_no_world, "src/config/a.rs", "fastrand::u8(..);\n", 1),
        (words_are_ours, "src/a.rs", "struct UpstreamPool;\n", 1),
        (words_are_ours, "src/a.rs", "// The peers.\n", 1),
        (nothing_is_left_unfinished, "src/a.rs", "todo!()\n", 1),
        (nothing_is_left_unfinished, "tests/a.rs", "#[ignore]\n", 1),
        (tests_say_why_they_sleep, "tests/a.rs", "f();\nsleep(d);\n", 2),
        (tests_say_why_they_sleep, "src/a.rs", "#[cfg(test)]\nmod t {\nsleep(d);\n", 3),
    ];
    for (index, (rule, path, text, line)) in offences.into_iter().enumerate() {
        let found: Vec<usize> = rule(&File::new(path, text)).iter().map(|it| it.line).collect();
        assert_eq!(found, [line], "offence {index} in {path}");
    }
    let fine = "//! Fine.\nlayer.with_target(false); stream.peer_addr();\n// Retargeted.\nsleep(d); // Why.\n";
    let fine = File::new("src/fine.rs", fine);
    none(RULES.iter().flat_map(|rule| rule(&fine)).collect());
}

#[test]
fn tracked_files_name_no_machine_and_no_registry() {
    // Spelled apart, for this file is tracked as well.
    let hosts = ["crates", "pypi", "npmjs", "docker"].map(|name| {
        let end = match name {
            "pypi" | "npmjs" => "org",
            _ => "io",
        };
        format!("{name}.{end}")
    });
    let places = ["work", "root", "home"].map(|place| format!("/{place}/"));
    let mut findings = Vec::new();
    for path in tracked().into_iter().filter(|path| !path.ends_with("Cargo.lock")) {
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        let file = File::new(&path, &text);
        for (number, line) in file.all() {
            for name in hosts.iter().chain(&places).filter(|name| line.contains(*name)) {
                findings.push(
                    file.finding(
                        number,
                        format!("`{name}`: true only on one machine; leave it out"),
                    ),
                );
            }
        }
    }
    none(findings);
}

/// A comment stands above each dependency, or above the group it is in.
#[test]
fn each_dependency_says_why_it_is_there() {
    let mut findings = Vec::new();
    let mut count = 0;
    for path in tracked().iter().filter(|path| path.ends_with("Cargo.toml")) {
        let file = File::new(path, &read(path));
        let mut in_dependencies = false;
        for (number, line) in file.all() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
            } else if in_dependencies && line.contains(" = ") && !line.starts_with([' ', '#']) {
                count += 1;
                if !file.lines[number - 2].starts_with('#') && !line.contains(" # ") {
                    let advice = "say in a comment above what it is needed for";
                    findings.push(file.finding(number, advice));
                }
            }
        }
    }
    assert!(count > 20, "only {count} dependencies found");
    none(findings);
}

#[test]
fn the_changelog_has_unreleased_on_top() {
    let text = read("CHANGELOG.md");
    let first = text.lines().find(|line| line.starts_with("## "));
    assert_eq!(
        first,
        Some("## Unreleased"),
        "CHANGELOG.md: new entries go under `## Unreleased`, on top"
    );
}

/// Names are API: whoever builds a dashboard finds each in docs/metrics.md, and nothing there is invented.
#[test]
fn every_metric_is_documented() {
    let document = read("docs/metrics.md");
    let documented: Vec<&str> = document
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| name.split('{').next().unwrap())
        .filter(|name| name.starts_with("maitred_"))
        .collect();
    let mut findings = Vec::new();
    let mut named = Vec::new();
    for path in tracked().iter().filter(|path| path.starts_with("src/telemetry/")) {
        let file = File::new(path, &read(path));
        for (number, line) in file.shipped() {
            for name in metric_names(code(line)) {
                if !documented.contains(&name.as_str()) {
                    findings
                        .push(file.finding(number, format!("`{name}` is not in docs/metrics.md")));
                }
                named.push(name);
            }
        }
    }
    if !named.is_empty() {
        let document = File::new("docs/metrics.md", &document);
        for (number, line) in document.all() {
            for name in documented.iter().filter(|name| line.contains(&format!("`{name}"))) {
                if !named.contains(&(*name).to_owned()) {
                    findings.push(document.finding(number, format!("no code exports `{name}`")));
                }
            }
        }
    }
    none(findings);
}

/// The text literals of a line that are whole names of metrics.
fn metric_names(line: &str) -> Vec<String> {
    let is_name = |text: &&str| {
        text.starts_with("maitred_")
            && text.chars().all(|letter| {
                letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit()
            })
    };
    line.split('"').skip(1).step_by(2).filter(is_name).map(str::to_owned).collect()
}
