//! Configuration files: the samples load, the bad ones say what to write instead, and the schema agrees.

mod bad_files;
mod samples;
mod schema;
mod several_files;
mod text_to_values;
mod udp;
mod wild_input;

use maitred::config::{Config, Loaded, Report, Source, load};

/// The same on every machine.
fn environment(name: &str) -> Option<String> {
    match name {
        "FIVE" => Some("5".to_owned()),
        "PORT" => Some("5432".to_owned()),
        _ => None,
    }
}

fn source(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

fn load_text(text: &str) -> Result<Loaded, Report> {
    load(&[source("test.yaml", text)], &environment)
}

/// A file that must be accepted.
fn accepted(text: &str) -> Config {
    match load_text(text) {
        Ok(loaded) => loaded.config,
        Err(report) => panic!("refused:\n{}", report.render(false)),
    }
}

/// What the YAML library makes of a text without us, so that our reader is not judged by itself.
fn second_reader(text: &str) -> Option<serde_json::Value> {
    serde_yaml::from_str_with_options(
        text,
        serde_yaml::options! { strict_booleans: true, emit_comments: false },
    )
    .ok()
}

/// Every file in a folder of this package with this ending, by name.
fn files_in(folder: &str, ending: &str) -> Vec<(String, String)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(ending) {
            let text = std::fs::read_to_string(folder.join(&name)).unwrap();
            files.push((name, text));
        }
    }
    files.sort();
    files
}

/// The recipes by name, with the files of TLS that they name.
fn recipes(files: &crate::tls::Files) -> Vec<(String, String)> {
    let with_files = |text: String| {
        let text = text.replace("/etc/maitred/tls/", &files.path(""));
        text.replace("/etc/maitred/secrets/", &files.path(""))
    };
    files_in("conf/recipes", ".yaml")
        .into_iter()
        .map(|(name, text)| (name, with_files(text)))
        .collect()
}
