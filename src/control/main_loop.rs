//! The life of the process after its start: handles signals and requests, reloads and drains. Ends with the exit
//! code.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::admin::Ask;
use crate::border::plane::SessionFilter;
use crate::control::admin_server::AdminServer;
use crate::control::drain;
use crate::control::file_watch::Changes;
use crate::control::reload::{Source, reload};
use crate::control::signals::{Signal, Signals};
use crate::control::supervisor::Supervisor;
use crate::telemetry::events::EventKind;

/// Serves until a signal ends it. `own` are the files of the configuration itself, which `process.watch` is about.
pub async fn live(
    mut supervisor: Supervisor,
    mut admin: AdminServer,
    mut signals: Signals,
    mut asks: mpsc::Receiver<Ask>,
    source: Source,
    own: Vec<PathBuf>,
) {
    let mut changes = Changes::new(own);
    loop {
        changes.attend(&supervisor.plane);
        let signal = tokio::select! {
            signal = signals.next() => signal,
            Some(ask) = asks.recv() => match ask {
                Ask::Drain => Signal::Drain,
                Ask::Reload(answer) => {
                    let outcome = reload(&mut supervisor, &mut admin, &source).await;
                    // The client that asked may have left.
                    let _ = answer.send(outcome);
                    continue;
                }
                Ask::SetByHand { place: (pool, backend), wish, who, answer } => {
                    let outcome = supervisor.set_by_hand(&pool, &backend, &wish, &who).await;
                    let _ = answer.send(outcome);
                    continue;
                }
                Ask::Kill { filter, who, answer } => {
                    kill(&supervisor, filter, who, answer);
                    continue;
                }
            },
            () = until(supervisor.hands_until()) => {
                supervisor.expire_hands().await;
                continue;
            }
            found = changes.next() => {
                let configuration = found.as_ref().is_some_and(|found| found.configuration);
                found.into_iter().for_each(|found| supervisor.renew_files(found));
                if configuration {
                    drop(reload(&mut supervisor, &mut admin, &source).await);
                }
                continue;
            }
            found = supervisor.next_found() => {
                supervisor.renew_found(found);
                continue;
            }
        };
        if matches!(signal, Signal::Drain | Signal::DrainForever) {
            // No further request can come.
            asks.close();
            while asks.recv().await.is_some() {}
        }
        match signal {
            // The outcome is in log, events and metrics; a signal gets no answer.
            Signal::Reload => drop(reload(&mut supervisor, &mut admin, &source).await),
            Signal::Ignored(name) => tracing::info!("{name} has no meaning yet and is ignored"),
            Signal::Drain => {
                let shutdown = supervisor.plane.snapshot.load().config.process.shutdown;
                let deadline = Some(shutdown.timeout);
                drain::drain(supervisor, &mut signals, shutdown.delay, deadline).await;
                return;
            }
            Signal::DrainForever => {
                drain::drain(supervisor, &mut signals, Duration::ZERO, None).await;
                return;
            }
        }
    }
}

/// Until that time of the wall clock, or for at most a minute; for ever if there is no time.
async fn until(time: Option<SystemTime>) {
    const LOOK: Duration = Duration::from_secs(60);
    match time {
        None => std::future::pending().await,
        Some(time) => {
            let left = time.duration_since(SystemTime::now()).unwrap_or_default();
            // The clock may be set meanwhile.
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}

fn kill(
    supervisor: &Supervisor,
    filter: SessionFilter,
    who: String,
    answer: oneshot::Sender<usize>,
) {
    let what = format!("{filter}");
    let mut counts = supervisor.kill(filter);
    let events = Arc::clone(&supervisor.events);
    // On another task: a worker answers only when it has finished its current work.
    tokio::spawn(async move {
        let mut killed = 0;
        while let Some(count) = counts.recv().await {
            killed += count;
        }
        let plural = if killed == 1 { "" } else { "s" };
        events.note(EventKind::Kill, format!("{killed} session{plural} killed by {who}: {what}"));
        // The client that asked may have left.
        let _ = answer.send(killed);
    });
}
