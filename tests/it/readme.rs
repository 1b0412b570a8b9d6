//! What the README and the Dockerfiles say is true.

use maitred::border::record::{CloseReason, Stage, can_occur};
use maitred::config::Protocol;

use crate::documents::read;

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
