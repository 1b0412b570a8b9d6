//! The signals of the process, as what they ask for.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Requests from outside the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: drain; a second one ends at once.
    Drain,
    /// SIGQUIT: drain without a deadline.
    DrainForever,
    /// SIGHUP.
    Reload,
    /// SIGUSR1, SIGUSR2: caught, so that they do not kill us; nothing to do yet.
    Ignored(&'static str),
}

pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    quit: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// From here on these signals no longer kill the process: call this before anything is started.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Drain,
            _ = self.interrupt.recv() => Signal::Drain,
            _ = self.quit.recv() => Signal::DrainForever,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user1.recv() => Signal::Ignored("SIGUSR1"),
            _ = self.user2.recv() => Signal::Ignored("SIGUSR2"),
        }
    }
}
