//! The program itself, in a process of its own, given its configuration on standard input.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Starts `command`, which is or becomes maitred reading from `-`. Nothing of this process's environment configures it.
pub fn start(command: &mut Command, config: &str) -> Child {
    let mut child = command
        .env_remove("MAITRED_CONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    child
}
