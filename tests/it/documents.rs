//! README.md and docs/ hold: their configurations load, their command lines are ours, their links lead somewhere, and
//! docs/configuration.md has every key with its default. What single documents list is held to the code elsewhere.

mod generated;
mod keys;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::binary;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// README.md and those of docs/, from the repository's root.
fn documents() -> Vec<String> {
    let mut names = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

/// The blocks of a document that are marked as `kind`.
fn blocks<'a>(document: &'a str, kind: &str) -> Vec<&'a str> {
    let fence = format!("\n```{kind}\n");
    document.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

/// What stands outside of blocks: there `[`, `#` and `](` mean something.
fn prose(document: &str) -> String {
    document.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_configuration_in_the_documents_is_valid() {
    // Named in some of them.
    let files = crate::tls::Files::new();
    std::fs::write(files.path("token"), "a-token-of-24-letters-ok").unwrap();
    let mut count = 0;
    for name in documents() {
        let document = read(&name);
        for example in blocks(&document, "yaml") {
            let mut check = Command::new(env!("CARGO_BIN_EXE_maitred"));
            let check = check.args(["check", "--config", "-"]).current_dir(files.path(""));
            let output = binary::start(check, example).wait_with_output().unwrap();
            let faults = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && faults.is_empty(),
                "{name}: {faults}\nin\n{example}"
            );
            count += 1;
        }
    }
    assert!(count > 8, "only {count} found");
}

#[test]
fn every_command_line_in_the_documents_is_one_of_ours() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for name in documents() {
        let document = read(&name);
        for line in blocks(&document, "sh").into_iter().flat_map(str::lines) {
            for arguments in ours(line) {
                count += 1;
                if let Err(error) = maitred::cli::parse_only(&arguments) {
                    wrong.push(format!("{name}: {line}\n{error}"));
                }
            }
        }
    }
    assert!(count > 20, "only {count} found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The arguments of each call of maitred in a line, the program's name first.
fn ours(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" #").next().unwrap();
    let line = line.replace("cargo run --release --", "maitred");
    let mut found = Vec::new();
    for command in line.split(['|', ';', '&', '(', ')']) {
        let words: Vec<String> =
            command.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        // Of a container, or a command of its own; as an argument it is a file, a unit, a service.
        let is_ours = |word: &String| word == "/maitred";
        let begins = |word: &String| word == "maitred" || word.ends_with("/maitred");
        let at = words.iter().position(is_ours).or(words.iter().take(1).position(begins));
        if let Some(at) = at {
            let arguments = words[at..].iter().take_while(|word| !word.starts_with(['>', '<']));
            found.push(arguments.cloned().collect());
        }
    }
    found
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for name in documents() {
        let document = prose(&read(&name));
        for link in document.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let own = PathBuf::from(&name);
            let path = if file.is_empty() {
                root().join(&own)
            } else {
                root().join(own.parent().unwrap()).join(file)
            };
            let is_there = path.exists();
            if !is_there || !anchor.is_empty() && !anchors(&path).contains(anchor) {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(count > 50, "only {count} found");
    assert!(wrong.is_empty(), "lead nowhere:\n{}", wrong.join("\n"));
}

/// What the headings of a document are called in links: as GitHub does it.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = prose(&std::fs::read_to_string(path).unwrap());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_document_is_in_the_index() {
    let index = read("docs/README.md");
    let readme = read("README.md");
    assert!(readme.contains("](docs/README.md)"));
    for name in documents() {
        let own = name.trim_start_matches("docs/");
        if own != "README.md" {
            assert!(index.contains(&format!("]({own})")), "{own} is not in docs/README.md");
        }
    }
}

#[test]
fn every_recipe_is_in_its_document() {
    let document = read("docs/recipes.md");
    for entry in std::fs::read_dir(root().join("conf/recipes")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let link = format!("](../conf/recipes/{name})");
        assert!(document.contains(&link), "{name} is not in docs/recipes.md");
    }
}
