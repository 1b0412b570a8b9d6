//! `file_watch` found that files which the configuration names have changed: this applies their content, and reports
//! those that cannot be used.

use std::path::Path;
use std::sync::Arc;

use super::{Supervisor, summary};
use crate::control::file_watch::{Change, Content, Found};
use crate::telemetry::events::EventKind;

impl Supervisor {
    /// Applies the content of files that the configuration names: sessions and flows go on. A file that cannot be
    /// read leaves its list as it was.
    pub fn renew_files(&mut self, found: Found) {
        if !Arc::ptr_eq(&found.config, &self.plane.snapshot.load().config) {
            return;
        }
        for Change { path, content } in found.changes {
            let applied = self.renew_file(&path, content);
            let known = self.reloads.file_was_read(&path, applied.as_ref().err());
            match applied {
                Ok(None) => {}
                Ok(Some(changes)) => {
                    let what = format!("{} has changed: {}", path.display(), summary(&changes));
                    self.events.note(EventKind::Reload, what);
                }
                // A file that stays wrong does not need a log line each time it is written.
                Err(why) if known.as_ref() == Some(&why) => {}
                Err(why) => {
                    let what = format!("{why}; its last good content stays in force");
                    self.events.warn(EventKind::Reload, what);
                }
            }
        }
    }

    fn renew_file(
        &mut self,
        path: &Path,
        now: Result<Content, String>,
    ) -> Result<Option<Vec<String>>, String> {
        let before = &self.base;
        let config = match now? {
            Content::Backends(read) => return self.renew_backends(path, read).map(|()| None),
            Content::Nets(nets) => before.with_nets(path, &nets),
            Content::Tls(renewed) => {
                let now = jiff::Timestamp::now().as_second();
                for expired in renewed.expired(now) {
                    self.events.warn(EventKind::Reload, expired);
                }
                Ok(before.with_tls(&renewed))
            }
        };
        match config.map_err(|why| format!("{}: {why}", path.display()))? {
            Some(config) => self.reload(config).map(Some).map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }
}
