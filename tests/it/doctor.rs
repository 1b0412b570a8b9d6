//! `maitred doctor` on this very machine: a limit that is really lowered is found, and the exit code says how bad.

use std::process::{Command, Output};

use serde_json::Value;

use crate::binary;

/// Runs it after `before` in a shell, with a configuration on standard input.
fn doctor(before: &str, config: &str, arguments: &str) -> Output {
    let maitred = env!("CARGO_BIN_EXE_maitred");
    let line = format!("{before} exec '{maitred}' doctor --config - {arguments}");
    let child = binary::start(Command::new("/bin/sh").args(["-c", &line]), config);
    child.wait_with_output().unwrap()
}

/// What it says as JSON, and its exit code.
fn judged(before: &str, config: &str) -> (Value, Option<i32>) {
    let output = doctor(before, config, "--format json");
    let text = String::from_utf8(output.stdout).unwrap();
    let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (json, output.status.code())
}

fn severity(json: &Value, id: &str) -> String {
    let of = |part: &str| json[part].as_array().unwrap().iter().find(|it| it["id"] == id).cloned();
    let finding = of("findings").map(|finding| finding["severity"].as_str().unwrap().to_owned());
    finding.or_else(|| of("well").map(|_| "well".to_owned())).unwrap_or_else(|| panic!("{json:#}"))
}

fn config(process: &str) -> String {
    format!(
        "version: 1
process: {process}
admin: {{listen: none}}
listeners:
  main: {{bind: \"127.0.0.1:5432\", pool: main}}
pools:
  main: {{backends: [\"127.0.0.1:5433\"]}}
"
    )
}

#[test]
fn too_few_descriptors_for_the_configured_sessions_break() {
    let (json, code) = judged("ulimit -n 256;", &config("{max_sessions: 97}"));
    assert_eq!((severity(&json, "descriptors").as_str(), code), ("will_break", Some(1)));
    let finding = &json["findings"][0];
    assert_eq!(finding["figure"], "256 descriptors (hard limit)");
    assert!(finding["mend"].as_str().unwrap().contains("ulimit -Hn 258"), "{finding:#}");
    let (json, _) = judged("ulimit -n 256;", &config("{max_sessions: 96}"));
    assert_eq!(severity(&json, "descriptors"), "well");
    assert_eq!(json["judged"]["sessions"], 96);
}

#[test]
fn what_only_hurts_ends_well() {
    let (json, code) = judged("ulimit -n 256;", &config("{max_sessions: auto}"));
    assert_eq!(severity(&json, "descriptors"), "will_hurt");
    // A port above 1024, and no other limit: nothing can break here.
    assert_eq!(code, Some(0), "{json:#}");
}

#[test]
fn more_workers_than_cpus_hurt() {
    let (json, _) = judged("", &config("{workers: 1024, max_sessions: 10}"));
    assert_eq!(severity(&json, "cpus"), "will_hurt");
    let (json, _) = judged("", &config("{workers: 1, max_sessions: 10}"));
    assert_eq!(severity(&json, "cpus"), "well");
}

#[test]
fn people_are_told_figure_reason_and_remedy() {
    let output = doctor("ulimit -n 256;", &config("{max_sessions: 97}"), "");
    let text = String::from_utf8(output.stdout).unwrap();
    let start = "judged: -; as user ";
    assert!(text.starts_with(start), "{text}");
    let lines =
        ["\nwill break: descriptors: 256 ", "\n  needed: 258 ", "\n  why: ", "\n  mend: `ulimit"];
    assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(1), &b""[..]));
}

#[test]
fn a_faulty_configuration_is_shown_as_by_check() {
    let output = doctor("", "version: 2\n", "");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let faults = String::from_utf8(output.stderr).unwrap();
    assert!(faults.starts_with("error[E0") && faults.contains("standard input:1:"), "{faults}");
    let output = doctor("", "version: 2\n", "--format json");
    let faults: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &faults[0]["severity"]), (Some(1), &"error".into()));
    let output = doctor("", "", "--format yaml");
    assert_eq!(output.status.code(), Some(2));
}
