//! A reload: reads the configuration on another thread, then applies all of it or nothing. What differs is found by
//! `config::compare`, what only a restart may change by `fixed_keys`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::control::admin_server::AdminServer;
use crate::control::supervisor::Supervisor;
use crate::sys::{blocking, limits};

/// Reads the configuration again, for a reload; `Err` is the report for the operator.
pub type Source = Arc<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Reads and applies the configuration. Another thread reads it, so that probes and admin server go on meanwhile.
pub async fn reload(
    supervisor: &mut Supervisor,
    admin: &mut AdminServer,
    source: &Source,
) -> Result<Vec<String>, String> {
    let source = Arc::clone(source);
    let begun = Instant::now();
    // Meanwhile nothing else is done, not even for a signal.
    const PATIENCE: Duration = Duration::from_secs(30);
    let read = match blocking::run("reload", move || source()) {
        Err(error) => Err(format!(
            "no thread to read the configuration with: {error}{}",
            limits::hint(&error)
        )),
        Ok(reading) => match tokio::time::timeout(PATIENCE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => Err("reading the configuration panicked".to_owned()),
            Err(_) => Err(format!("reading the configuration takes longer than {PATIENCE:?}")),
        },
    };
    // Bound before anything is changed, like every socket.
    let bound = read.and_then(|config| {
        let bound = admin.rebind(config.admin.listen).map_err(|error| error.to_string())?;
        Ok((config, bound))
    });
    let (read, bound) = match bound {
        Ok((config, bound)) => (Ok(config), bound),
        Err(report) => (Err(report), None),
    };
    let wanted = read.as_ref().ok().map(|config| (config.admin.clone(), config.log.level));
    let outcome = supervisor.reload_with(read, begun);
    if let (Ok(_), Some((wanted, level))) = (&outcome, wanted) {
        if let Err(error) = admin.serve(wanted.listen, bound) {
            tracing::error!(%error, "the admin address cannot be served");
        }
        admin.set_token(wanted.token);
        admin.set_log_level(level);
    }
    outcome
}
