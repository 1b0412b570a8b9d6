//! Every file in `tests/bad` is answered with exactly the message beside it. `MAITRED_BLESS=1` rewrites the
//! messages; read each one before keeping it. `NAME.also.yaml` is a second file for `NAME.yaml`; a file
//! whose name begins with `warning-` is accepted with warnings.

use std::collections::BTreeSet;
use std::path::Path;

use maitred::config::load;

use super::{environment, files_in, source};

#[test]
fn every_bad_file_gets_exactly_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let bless = std::env::var_os("MAITRED_BLESS").is_some();
    let files = files_in("tests/bad", ".yaml");
    let mut expected: BTreeSet<String> =
        files_in("tests/bad", ".expected").into_iter().map(|(name, _)| name).collect();
    let mut wrong = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| !name.ends_with(".also.yaml")) {
        let stem = name.trim_end_matches(".yaml");
        let also = format!("{stem}.also.yaml");
        let mut sources = vec![source(name, text)];
        sources.extend(files.iter().filter(|(name, _)| *name == also).map(|(n, t)| source(n, t)));
        let message = match load(&sources, &environment) {
            Err(report) => report.render(false),
            Ok(loaded) => {
                assert!(stem.starts_with("warning-"), "{name} is accepted");
                assert!(!loaded.warnings.is_empty(), "{name} has no warning");
                loaded.warnings_report().render(false)
            }
        };
        let file = format!("{stem}.expected");
        let path = folder.join(&file);
        if bless {
            std::fs::write(&path, &message).unwrap();
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&message) {
            wrong.push(format!("{file} should be:\n{message}"));
        }
        expected.remove(&file);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(expected.is_empty(), "without a file: {expected:?}");
}
