//! Work on a thread of its own, so that nothing else waits for it. Not on tokio's blocking threads: when the system
//! has no threads left, spawning one panics, and the process would end with all its sessions.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use tokio::runtime::{self, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;

/// The later answer is an error if the work panics; the error here is that no thread can be made.
pub fn run<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (answer, outcome) = oneshot::channel();
    let work = move || {
        // The caller may have left.
        let _ = answer.send(work());
    };
    Builder::new().name(name.to_owned()).spawn(work)?;
    Ok(outcome)
}

/// A long-lived thread with an event loop of its own. The loop exists when this returns: without descriptors this is
/// an error.
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
        // The starting thread waits for this.
        let _ = built.send(result);
        if let Some(runtime) = runtime {
            work(runtime);
        }
    };
    let thread = Builder::new().name(name.to_owned()).spawn(work)?;
    outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread ended")))?;
    Ok(thread)
}
