//! The drain: accept nothing new, finish the rest. readyz says 503 at once. Accepting goes on for `delay`, so that
//! balancers in front of this one can notice; then open sessions may end by themselves until the deadline.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::border::plane::SessionFilter;
use crate::border::record::CloseReason;
use crate::control::signals::{Signal, Signals};
use crate::control::supervisor::Supervisor;
use crate::control::supervisor::sessions::wait_for_sessions;
use crate::telemetry::events::EventKind;

/// How long sessions have to notice that they were cut.
const CUT: Duration = Duration::from_secs(2);

/// Drains and stops. A second SIGTERM or SIGINT cuts what is left at once.
pub async fn drain(
    mut supervisor: Supervisor,
    signals: &mut Signals,
    delay: Duration,
    timeout: Option<Duration>,
) {
    announce(&supervisor);
    let open = supervisor.plane.open_sessions();
    let most = timeout.map_or_else(String::new, |time| format!(", at most {:?}", delay + time));
    let what = format!("draining, {open} sessions and flows open{most}");
    supervisor.events.note(EventKind::Drain, what);
    let ended = tokio::select! {
        ended = async {
            tokio::time::sleep(delay).await;
            let deadline = timeout.map(|timeout| Instant::now() + timeout);
            // Connections in the accept queue are accepted first; at `max_sessions` that waits for sessions to end.
            let stopped = supervisor.stop_accepting();
            match timeout {
                None => stopped.await,
                Some(timeout) => drop(tokio::time::timeout(timeout, stopped).await),
            }
            wait_for_sessions(&supervisor.plane, deadline).await
        } => ended,
        () = second(signals) => {
            supervisor.events.note(EventKind::Drain, "a second signal: ending now".into());
            false
        }
    };
    if !ended {
        let open = supervisor.plane.open_sessions();
        supervisor.events.note(EventKind::Drain, format!("cutting {open} sessions"));
        supervisor.cut(SessionFilter::default(), CloseReason::Drained);
        wait_for_sessions(&supervisor.plane, Some(Instant::now() + CUT)).await;
    }
    supervisor.stop();
}

/// Says that accepting goes on, but the process is no longer ready.
fn announce(supervisor: &Supervisor) {
    supervisor.plane.draining.store(true, Relaxed);
    // Without systemd there is no socket to notify.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
}

async fn second(signals: &mut Signals) {
    loop {
        match signals.next().await {
            Signal::Drain => return,
            Signal::Reload => tracing::warn!("no reload while draining"),
            Signal::DrainForever | Signal::Ignored(_) => {}
        }
    }
}
