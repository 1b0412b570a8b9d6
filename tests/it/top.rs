//! `maitred top` on a real terminal, of `script`: what it shows, and what its keys do.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::balancer::wait_for;
use crate::by_hand::Program;
use crate::server::{Conduct, Server};

/// Also if the test fails before it would be.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Its terminal goes with it, and so does whoever is on it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_dead_backend_is_seen_and_another_drained_and_lifted_from_the_keyboard() {
    let (a, b) = (Server::start(Conduct::Say(&["a"])), Server::start(Conduct::Say(&["b"])));
    let pools = format!(
        "backends: [{{address: \"{}\", name: alive}}, {{address: \"{}\", name: dead}}], health: {{interval: 20ms, timeout: 15ms}}",
        a.address, b.address
    );
    let program = Program::start(&pools);
    let gone = b.kill();
    let top = "stty cols 150 rows 30; exec \"$MAITRED\" top --interval 100ms";
    let terminal = Command::new("script")
        .args(["-qfec", top, "/dev/null"])
        .env("MAITRED", env!("CARGO_BIN_EXE_maitred"))
        .env("MAITRED_ADMIN", program.admin())
        .env("TERM", "xterm-256color")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = Ended(terminal);
    let terminal = &mut terminal.0;
    let mut keys = terminal.stdin.take().unwrap();
    let mut out = terminal.stdout.take().unwrap();
    let seen = Arc::new(Mutex::new(String::new()));
    let screen = Arc::clone(&seen);
    let reader = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = out.read(&mut buffer) {
            *screen.lock().unwrap() += &String::from_utf8_lossy(&buffer[..count]);
        }
    });
    let shows = |text: &str| wait_for(text, || seen.lock().unwrap().contains(text));
    shows("1 of 2 backends does not serve");
    keys.write_all(b"d").unwrap();
    shows("Set main/alive to drain?");
    assert_ne!(program.backend("alive")["state"], "drain", "not before yes");
    keys.write_all(b"y").unwrap();
    wait_for("the drain", || program.backend("alive")["state"] == "drain");
    shows("main/alive is drain");
    keys.write_all(b"uy").unwrap();
    wait_for("the drain to be lifted", || program.backend("alive")["state"] == "up");
    keys.write_all(b"q").unwrap();
    let ended = terminal.wait().unwrap();
    reader.join().unwrap();
    assert!(ended.success());
    // The terminal is as it was: the cursor is back, and the screen before.
    let seen = seen.lock().unwrap();
    assert!(seen.ends_with("\u{1b}[?25h") || seen.contains("\u{1b}[?1049l"), "{seen:?}");
    drop(gone);
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let program = Program::start("backends: [\"127.0.0.1:9\"]");
    let outcome = program.maitred(&["top"]);
    assert_eq!(outcome.code, 2);
    assert!(outcome.err.contains("maitred show pools"), "{outcome:?}");
}
