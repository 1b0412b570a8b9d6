//! What the README and the Dockerfiles say is true.

use std::process::Command;

use maitred::config::Protocol;
use maitred::telemetry::record::{CloseReason, Stage, can_occur};

use crate::binary;

fn read(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_configuration_in_the_readme_is_valid() {
    let readme = read("README.md") + &read("docs/discovery.md");
    let examples: Vec<&str> =
        readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 2);
    // Of TLS, named in one of them.
    let files = crate::tls::Files::new();
    for example in examples {
        let mut check = Command::new(env!("CARGO_BIN_EXE_maitred"));
        let check = check.args(["check", "--config", "-"]).current_dir(files.path(""));
        let check = binary::start(check, example);
        let output = check.wait_with_output().unwrap();
        let faults = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && faults.is_empty(), "{faults}\nin\n{example}");
    }
}

#[test]
fn whoever_is_refused_finds_out_why_in_the_documents() {
    let document = read("docs/metrics.md");
    let before = [Stage::Admit, Stage::Preread, Stage::Route, Stage::Connect];
    for reason in CloseReason::ALL.into_iter().filter(|reason| *reason != CloseReason::Internal) {
        if before.iter().any(|stage| can_occur(Protocol::Tcp, *stage, reason)) {
            let reason = format!("`{}`", reason.as_str());
            assert!(document.contains(&reason), "{reason}");
        }
    }
}

#[test]
fn the_readme_names_every_balancing_algorithm() {
    let readme = read("README.md");
    for balance in [
        "least_connections",
        "round_robin",
        "two_choices",
        "random",
        "consistent_hash",
        "ip_hash",
        "least_latency",
        "first_available",
    ] {
        assert!(readme.contains(&format!("| `{balance}` |")), "{balance}");
    }
}

#[test]
fn both_dockerfiles_make_the_same_image() {
    let tail = |name: &str| {
        let text = read(name);
        text[text.find("\nLABEL").unwrap()..].to_owned()
    };
    assert_eq!(tail("Dockerfile"), tail("Dockerfile.binary"));
    let version = format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(tail("Dockerfile").contains(&version));
}
