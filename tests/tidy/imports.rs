//! Which file takes names from which. Reads text: `use` declarations, and paths that begin with `crate`, `self`, `super` or
//! the name of a child. What stands in tests and comments does not count.

use std::collections::{BTreeMap, BTreeSet};

/// The files of one crate, and what each takes from others.
pub struct Imports {
    /// From the path of a file to those of the files whose names it takes.
    pub of: BTreeMap<String, BTreeSet<String>>,
}

/// A module, as the names that lead to it.
type Module = Vec<String>;

/// By module and name, what a `pub use` there stands for: who takes the name takes it from where it is at home.
type HandedOn = BTreeMap<(Module, String), Module>;

impl Imports {
    /// `files`: paths below `src`, and texts.
    pub fn read(src: &str, files: &[(String, String)]) -> Imports {
        let modules: BTreeMap<Module, &str> =
            files.iter().map(|(path, _)| (module(src, path), path.as_str())).collect();
        let mut handed_on = HandedOn::new();
        let mut taken_by = Vec::new();
        for (path, text) in files {
            let own = module(src, path);
            let (taken, public) = paths(&shipped(path, text), &own, &modules);
            for whole in public {
                let name = whole.last().cloned().unwrap_or_default();
                handed_on.insert((own.clone(), name), whole);
            }
            taken_by.push((path, taken));
        }
        let mut of: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (path, taken) in taken_by {
            let taken = taken.iter().filter_map(|path| resolve(path, &modules, &handed_on));
            let others = taken.filter(|other| *other != path).map(str::to_owned);
            of.entry(path.clone()).or_default().extend(others);
        }
        Imports { of }
    }

    /// Files that lead back to themselves, each with the way it takes.
    pub fn circles(&self) -> Vec<Vec<&str>> {
        let mut circles: Vec<Vec<&str>> = Vec::new();
        for start in self.of.keys() {
            if circles.iter().any(|circle| circle.contains(&start.as_str())) {
                continue;
            }
            circles.extend(self.way_back(start));
        }
        circles
    }

    /// The shortest way from a file to itself.
    fn way_back<'a>(&'a self, start: &'a str) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = vec![start];
        let mut next = 0;
        while next < queue.len() {
            let at = queue[next];
            next += 1;
            for to in self.of.get(at).into_iter().flatten() {
                if to == start {
                    let mut way = vec![start, at];
                    let mut here = at;
                    while here != start {
                        here = before[here];
                        way.push(here);
                    }
                    way.reverse();
                    return Some(way);
                }
                if !before.contains_key(to.as_str()) {
                    before.insert(to, at);
                    queue.push(to);
                }
            }
        }
        None
    }
}

fn module(src: &str, path: &str) -> Module {
    let path = path.strip_prefix(src).unwrap_or(path).trim_start_matches('/');
    let names = path.trim_end_matches(".rs").split('/');
    let mut names: Module = names.map(str::to_owned).collect();
    if names.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        names.pop();
    }
    names
}

/// Without comments, texts and tests.
fn shipped(path: &str, text: &str) -> String {
    if path.ends_with("/tests.rs") {
        return String::new();
    }
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut code = String::new();
    for line in text.lines() {
        // Every other part is between quotation marks; good enough for code that rustfmt has been over.
        let line = if line.trim_start().starts_with("//") { "" } else { line };
        let line = line.split(" // ").next().unwrap_or_default();
        code.extend(line.split('"').step_by(2));
        code.push('\n');
    }
    code
}

/// The paths that a text names, from the root of the crate; and those of them that it hands on.
fn paths(code: &str, own: &Module, modules: &BTreeMap<Module, &str>) -> (Vec<Module>, Vec<Module>) {
    let mut paths = Vec::new();
    let mut public = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let Some((before, tree)) = use_tree(statement) else {
            rest.push_str(statement);
            continue;
        };
        rest.push_str(before);
        let mut leaves = Vec::new();
        expand(tree, &Vec::new(), &mut leaves);
        if before.rsplit('\n').next().unwrap_or_default().contains("pub") {
            public.extend(leaves.iter().cloned());
        }
        paths.extend(leaves);
    }
    let is_of_path = |letter: char| letter.is_alphanumeric() || "_:#".contains(letter);
    let words = rest.split(|letter| !is_of_path(letter)).filter(|word| word.contains("::"));
    paths.extend(
        words.map(|word| {
            word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect()
        }),
    );
    let whole = |paths: Vec<Module>| {
        paths.into_iter().filter_map(|path| absolute(path, own, modules)).collect()
    };
    (whole(paths), whole(public))
}

/// What a `use` declaration names, and what stands before it.
fn use_tree(statement: &str) -> Option<(&str, &str)> {
    let at = statement.rfind("use ")?;
    let before = &statement[..at];
    let begins = before.is_empty() || before.ends_with(['\n', ' ']);
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    let is_declaration = line.is_empty() || line.starts_with("pub");
    (begins && is_declaration).then(|| (before, statement[at + 4..].trim_end_matches(';')))
}

fn expand(tree: &str, prefix: &Module, leaves: &mut Vec<Module>) {
    let (mut depth, mut part, mut parts) = (0, String::new(), Vec::new());
    for letter in tree.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(letter);
        }
    }
    parts.push(part);
    for part in parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()) {
        let (path, inner) = part.split_once('{').unwrap_or((part, ""));
        let path = path.split(" as ").next().unwrap_or_default();
        let names = path.split("::").map(str::trim).filter(|name| !name.is_empty());
        let names = prefix.iter().cloned().chain(names.map(str::to_owned)).collect();
        match part.contains('{') {
            true => expand(inner.trim_end_matches('}'), &names, leaves),
            false => leaves.push(names),
        }
    }
}

/// `None`: it is no path of this crate.
fn absolute(path: Module, own: &Module, modules: &BTreeMap<Module, &str>) -> Option<Module> {
    let mut names = path.into_iter().filter(|name| name != "self").peekable();
    let mut base = own.clone();
    if names.peek().map(String::as_str) == Some("crate") {
        names.next();
        return Some(names.collect());
    }
    let mut is_relative = false;
    while names.peek().map(String::as_str) == Some("super") {
        names.next();
        base.pop();
        is_relative = true;
    }
    let names: Module = names.collect();
    let mut whole = base.clone();
    whole.extend(names.first().cloned());
    // Else it begins with another crate's name, or one that was brought in by a `use`.
    if !is_relative && !modules.contains_key(&whole) {
        return None;
    }
    base.extend(names);
    Some(base)
}

fn resolve<'a>(
    path: &Module,
    modules: &BTreeMap<Module, &'a str>,
    handed_on: &HandedOn,
) -> Option<&'a str> {
    let mut path = path.clone();
    // As often as a name can be handed on.
    for _ in 0..8 {
        let length =
            (1..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
        let name = path.get(length).cloned().unwrap_or_default();
        match handed_on.get(&(path[..length].to_vec(), name)) {
            Some(home) => path = home.clone(),
            None => return modules.get(&path[..length]).copied(),
        }
    }
    None
}

#[test]
fn imports_are_seen_in_every_form() {
    let files = [
        ("src/a.rs", "use crate::b::{C, d::{self, E}};\nuse std::io;\n// use crate::f;\n"),
        (
            "src/b/mod.rs",
            "mod d;\nfn g() { d::h(); }\n#[cfg(test)]\nmod tests {\nuse crate::a;\n}\n",
        ),
        ("src/b/d.rs", "pub use super::super::f::K;\nfn l() -> crate::f::M { \"crate::a\" }\n"),
        ("src/f.rs", "use std::fmt;\n"),
    ];
    let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
    let imports = Imports::read("src", &files);
    let of = |path: &str| imports.of[path].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(of("src/a.rs"), ["src/b/d.rs", "src/b/mod.rs"]);
    assert_eq!(of("src/b/mod.rs"), ["src/b/d.rs"]);
    assert_eq!(of("src/b/d.rs"), ["src/f.rs"]);
    assert!(of("src/f.rs").is_empty());
    assert!(imports.circles().is_empty());
    let mut files = files;
    files[1].1.insert_str(0, "pub use d::P;\n");
    files[3].1.push_str("use crate::b::P;\n");
    let imports = Imports::read("src", &files);
    assert_eq!(imports.circles(), [["src/b/d.rs", "src/f.rs", "src/b/d.rs"]]);
}
