//! The output of a command.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Whether text on standard error may be coloured.
pub fn color_on_stderr() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// Whether part of the output could not be written: a script that keeps the output must know.
static IS_UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// Whether anything could not be written.
pub fn failed() -> bool {
    IS_UNWRITTEN.load(Relaxed)
}

/// Writes to standard output. A reader that has left is not an error.
pub fn print(text: &str) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error[E0135]: the output cannot be written: {error}");
            IS_UNWRITTEN.store(true, Relaxed);
        }
        _ => {}
    }
}
