//! `maitred doctor`: what on this machine will fail or hurt, each with the figure, why, and the command that fixes
//! it.
//!
//! `facts` reads the machine, `needs` the configuration, `judge` compares them; this prints. The user who runs it
//! matters: limits and capabilities are those of this process.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use self::facts::Facts;
use self::finding::{Finding, Severity};
use self::judge::judge;
use self::needs::Needs;
use super::files::ConfigFiles;
use super::output::{color_on_stderr, print};
use crate::config::Report;
use crate::sys::datagram::{self, granted_buffers};

mod facts;
mod finding;
mod reading;
mod cgroup;
mod needs;
mod judge;
mod room;
mod network;

/// Check whether this machine is fit for the configuration: what will fail or hurt, why, and what fixes it
///
/// Compares this machine with the configuration, or with the defaults if there is none. Run it in the same way as
/// maitred: as the same user, with the same limits, in the same container. Exits with 1 if something will break at the
/// configured limits, else with 0.
#[derive(Args, Debug)]
pub struct Doctor {
    #[command(flatten)]
    files: ConfigFiles,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A few lines for each finding
    Text,
    /// One object: `judged`, `findings`, `unknown`, `well`
    Json,
}

/// What was checked, and for what.
struct Judged {
    configuration: Option<Vec<String>>,
    needs: Needs,
    facts: Facts,
}

impl Doctor {
    pub fn run(&self) -> ExitCode {
        let (configuration, needs) = match self.needs() {
            Ok(needs) => needs,
            Err(report) => {
                self.show(&report);
                return ExitCode::FAILURE;
            }
        };
        let mut facts = Facts::read(Path::new("/"), granted_buffers(needs.user.is_none()));
        if let (Some(user), Ok(process)) = (needs.user, &mut facts.process) {
            *process = process.after_becoming(user);
        }
        facts.absent_sources =
            needs.sources.iter().copied().filter(|source| datagram::is_absent(*source)).collect();
        let findings = judge(&facts, &needs);
        let judged = Judged { configuration, needs, facts };
        match self.format {
            Format::Text => print(&text(&judged, &findings)),
            Format::Json => print(&format!("{:#}\n", to_json(&judged, &findings))),
        }
        let breaks = findings.iter().any(|finding| finding.severity == Severity::WillBreak);
        if breaks { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    /// The files and what they need; the default file may be missing if none is given.
    fn needs(&self) -> Result<(Option<Vec<String>>, Needs), Report> {
        if self.files.are_absent() {
            return Ok((None, Needs::of_defaults()));
        }
        let loaded = self.files.load()?;
        let warnings = loaded.warnings_report();
        // Not into the JSON: a warning is not a finding about the machine.
        eprint!("{}", warnings.render(color_on_stderr()));
        let names = self.files.paths().iter().map(|path| path.display().to_string()).collect();
        Ok((Some(names), Needs::of(&loaded.config)))
    }

    /// As `check` does.
    fn show(&self, report: &Report) {
        match self.format {
            Format::Text => eprint!("{}", report.render(color_on_stderr())),
            Format::Json => print(&format!("{:#}\n", report.to_json())),
        }
    }
}

fn text(judged: &Judged, findings: &[Finding]) -> String {
    let mut text = format!("{}\n", judged.line());
    for finding in findings {
        let Finding { id, severity, figure, needed, why, mend } = finding;
        let word = severity.as_str().replace('_', " ");
        text.push_str(&format!("{word}: {id}: {figure}\n"));
        if *severity < Severity::Unknown {
            text.push_str(&format!("  needed: {needed}\n  why: {why}\n  mend: {mend}\n"));
        }
    }
    text
}

fn to_json(judged: &Judged, findings: &[Finding]) -> Value {
    let of = |wanted: fn(Severity) -> bool| findings.iter().filter(move |it| wanted(it.severity));
    let quiet = |finding: &Finding| json!({"id": finding.id, "figure": finding.figure});
    json!({
        "judged": judged.to_json(),
        "findings": of(|it| it < Severity::Unknown).map(Finding::to_json).collect::<Value>(),
        "unknown": of(|it| it == Severity::Unknown).map(quiet).collect::<Value>(),
        "well": of(|it| it == Severity::Well).map(quiet).collect::<Value>(),
    })
}

impl Finding {
    fn to_json(&self) -> Value {
        json!({
            "id": self.id,
            "severity": self.severity.as_str(),
            "figure": self.figure,
            "needed": self.needed,
            "why": self.why,
            "mend": self.mend,
        })
    }
}

impl Judged {
    fn line(&self) -> String {
        let configuration = match &self.configuration {
            Some(names) => names.join(", "),
            None => "the defaults (no configuration)".to_owned(),
        };
        let user = self.user().map_or_else(|| "unknown".to_owned(), |user| user.to_string());
        let limits = match self.limits() {
            Some((sessions, flows)) => format!("{sessions} sessions and {flows} flows at once"),
            None => "an unknown number of sessions".to_owned(),
        };
        format!("judged: {configuration}; as user {user}; {limits}")
    }

    fn to_json(&self) -> Value {
        let limits = self.limits();
        json!({
            "configuration": self.configuration,
            "user": self.user(),
            "sessions": limits.map(|(sessions, _)| sessions),
            "flows": limits.map(|(_, flows)| flows),
        })
    }

    fn user(&self) -> Option<u64> {
        self.facts.process.as_ref().ok().map(|process| process.user)
    }

    /// Sessions and flows at once.
    fn limits(&self) -> Option<(u64, u64)> {
        let descriptors = *self.facts.descriptors.as_ref().ok()?;
        let load = self.needs.load(descriptors);
        Some((load.sessions, load.flows))
    }
}

#[cfg(test)]
mod tests;
