//! `maitred check` and `maitred schema` as an operator sees them: what is printed where, and the exit code.

use std::io::Write;
use std::process::{Command, Output, Stdio};

fn maitred(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maitred"));
    command.args(arguments).env_remove("MAITRED_CONFIG").current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Exit code, standard output, standard error.
fn seen(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    seen(maitred(arguments).output().unwrap())
}

fn run_with_input(arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    let mut command = maitred(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A child that has seen enough may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    seen(child.wait_with_output().unwrap())
}

#[test]
fn a_valid_file_is_counted_and_ends_well() {
    let (code, stdout, stderr) = run(&["check", "--config", "conf/minimal.yaml"]);
    assert_eq!(code, Some(0));
    assert_eq!(stdout, "configuration is valid: 1 listener, 1 pool, 2 backends\n");
    assert_eq!(stderr, "");
}

#[test]
fn what_a_full_disk_refuses_is_a_failure_and_a_reader_that_left_is_none() {
    for arguments in [&["schema"][..], &["version"], &["check", "--config", "conf/minimal.yaml"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = maitred(arguments).stdout(full).stderr(Stdio::piped()).output().unwrap();
        let (code, _, stderr) = seen(output);
        assert_eq!(code, Some(1), "{arguments:?}");
        assert!(stderr.starts_with("error[E0135]: the output cannot"), "{stderr}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = maitred(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
}

#[test]
fn warnings_do_not_fail() {
    let (code, stdout, stderr) = run(&["check", "--config", "tests/bad/warning-unused-pool.yaml"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("configuration is valid: 1 listener, 2 pools, 2 backends"),
        "{stdout}"
    );
    assert!(stderr.starts_with("warning[E0061]"), "{stderr}");
}

#[test]
fn faults_go_to_standard_error_without_colour() {
    let (code, stdout, stderr) = run(&["check", "--config", "tests/bad/unknown-key.yaml"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("error[E0010]: unknown key `protcol`\n"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'));
}

#[test]
fn json_is_an_array_of_faults_on_standard_output() {
    let arguments = ["check", "--format", "json", "--config", "tests/bad/unknown-key.yaml"];
    let (code, stdout, stderr) = run(&arguments);
    assert_eq!((code, stderr.as_str()), (Some(1), ""));
    let faults: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let expected = serde_json::json!([{
        "code": "E0010",
        "severity": "error",
        "file": "tests/bad/unknown-key.yaml",
        "line": 6,
        "column": 5,
        "path": "listeners.web.protcol",
        "message": "unknown key `protcol`",
        "hint": "did you mean `protocol`?",
    }]);
    assert_eq!(faults, expected);
    let (code, stdout, _) = run(&["check", "--format", "json", "--config", "conf/minimal.yaml"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "[]\n"));
}

#[test]
fn a_dash_is_standard_input() {
    let (code, _, stderr) =
        run_with_input(&["check", "--config", "-"], b"version: 1\nversion: 1\n");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("standard input:2:1"), "{stderr}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let (code, _, stderr) = run(&["check", "--config", "no-such-file.yaml", "--config", "tests"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`no-such-file.yaml` cannot be read: No such file"), "{stderr}");
    assert!(stderr.contains("`tests` cannot be read: Is a directory"), "{stderr}");
    let (code, _, stderr) = run_with_input(&["check", "--config", "-"], b"version: 1\n# \xff\n");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`standard input` is not UTF-8 text: line 2"), "{stderr}");
    let (code, _, stderr) =
        run_with_input(&["check", "--config", "-"], &vec![b'#'; (16 << 20) + 1]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("`standard input` is larger than 16 MiB"), "{stderr}");
}

#[test]
fn the_environment_names_the_file_and_fills_its_variables() {
    let mut command = maitred(&["check"]);
    command.env("MAITRED_CONFIG", "tests/bad/unset-variable-message.yaml");
    command.env("DB_ADDRESS", "10.0.0.1:5432");
    assert_eq!(seen(command.output().unwrap()).0, Some(0));
}

#[test]
fn wrong_usage_ends_with_two() {
    assert_eq!(run(&["check", "--no-such-flag"]).0, Some(2));
    assert_eq!(run(&[]).0, Some(2));
}

#[test]
fn the_schema_is_json() {
    let (code, stdout, _) = run(&["schema"]);
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(schema["title"], "maitred");
}
