//! Work on a thread of its own, where it keeps nobody waiting. Not on tokio's blocking threads: asking for one panics when
//! the system has none left, and the process would be gone with all its sessions.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

/// The answer to come is an error if the work panics; the error here is that no thread can be made.
pub fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (answer, outcome) = oneshot::channel();
    let work = move || {
        // The client that asked may have left.
        let _ = answer.send(work());
    };
    Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(outcome)
}

/// A thread that lives on, with an event loop of its own. It has one when this returns: without descriptors there is none.
pub fn event_loop(
    name: &str,
    work: impl FnOnce(LocalRuntime) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let (built, outcome) = mpsc::channel();
    let work = move || {
        let builder = &mut runtime::Builder::new_current_thread();
        let (runtime, result) = match builder.enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        // Whoever started us waits for this.
        let _ = built.send(result);
        if let Some(runtime) = runtime {
            work(runtime);
        }
    };
    let thread = Builder::new().name(name.to_owned()).spawn(work)?;
    outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
    Ok(thread)
}
