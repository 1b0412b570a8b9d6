//! Whatever a file holds, reading it ends in a configuration or a report: it never panics.

use maitred::config::load;
use proptest::prelude::*;

use super::{environment, files_in, source};

/// Loads and shows; both must end.
fn survive(text: &str) {
    match load(&[source("wild.yaml", text)], &environment) {
        Ok(loaded) => drop(loaded.warnings_report().render(true)),
        Err(report) => {
            assert!(!report.faults.is_empty(), "refused without a reason");
            drop((report.render(false), report.to_json()));
        }
    }
}

fn samples() -> Vec<String> {
    let samples = files_in("conf", ".yaml").into_iter().chain(files_in("conf/recipes", ".yaml"));
    // Those that are bad by being large would take most of the time and show little.
    let large = |name: &str| name.starts_with("too-many") || name.starts_with("aliases");
    let samples = samples.chain(files_in("tests/bad", ".yaml")).filter(|(name, _)| !large(name));
    samples.map(|(_, text)| text).collect()
}

/// Puts one of these over, or between, what is there.
const SNIPPETS: [&str; 24] = [
    "",
    " ",
    "\n",
    "\t",
    ":",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: *a",
    "${",
    "${PORT}",
    "$$",
    "none",
    "0",
    "-1",
    "99999999999999999999",
    "ü",
    "\u{0}",
];

#[test]
fn a_fault_inside_a_wide_letter_is_shown() {
    survive("''¡");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_text_is_survived(text in "\\PC{0,200}|[ \n:{}\\[\\]a-z0-9\"'&*!|>$-]{0,200}") {
        survive(&text);
    }

    #[test]
    fn a_damaged_sample_is_survived(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..12, prop::sample::select(&SNIPPETS[..])),
            1..4,
        ),
    ) {
        let samples = samples();
        let mut text = which.get(&samples).clone();
        for (place, length, snippet) in cuts {
            let start = text.floor_char_boundary(place.index(text.len() + 1));
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, snippet);
        }
        survive(&text);
    }
}
