//! The command line: one file per subcommand. Exit codes: 0 well, 1 refused or failed, 2 usage.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Loaded, Report};

mod run;
mod demo;
mod check;
mod schema;
mod explain;
mod diff;
mod ask;
mod health;
mod show;
mod backend;
mod sessions;
mod reload;
mod top;
mod doctor;
mod completions;
mod version;

const EXITS: &str = "Exit codes: 0 well, 1 refused or failed (configuration, address, a finding), 2 wrong usage.\n\
    `maitred explain CODE` says more about an error; docs/ has all the rest.";

#[derive(Debug, Parser)]
#[command(name = "maitred", version, about, max_term_width = 100, after_help = EXITS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Demo(demo::Demo),
    Check(check::Check),
    Schema(schema::Schema),
    Explain(explain::Explain),
    Diff(diff::Diff),
    Health(health::Health),
    Show(show::Show),
    Backend(backend::Backend),
    Sessions(sessions::Sessions),
    Reload(reload::Reload),
    Top(top::Top),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(completions::Man),
    Version(version::Version),
}

/// Where the configuration is if nobody says so.
const DEFAULT_CONFIG: &str = "/etc/maitred/maitred.yaml";

/// Where the configuration is; shared by the subcommands that read it.
#[derive(Args, Debug)]
pub struct ConfigFiles {
    /// Configuration file; may be given several times; `-` is standard input; if not given:
    /// /etc/maitred/maitred.yaml
    #[arg(long, value_name = "FILE", env = "MAITRED_CONFIG")]
    config: Vec<PathBuf>,
}

impl ConfigFiles {
    pub fn paths(&self) -> Vec<PathBuf> {
        if self.config.is_empty() { vec![DEFAULT_CONFIG.into()] } else { self.config.clone() }
    }

    /// Whether no file is named and the usual one does not exist.
    pub fn are_absent(&self) -> bool {
        // One that may be there is to be read, and its error shown.
        self.config.is_empty() && matches!(Path::new(DEFAULT_CONFIG).try_exists(), Ok(false))
    }

    pub fn load(&self) -> Result<Loaded, Report> {
        let sources = config::read_sources(&self.paths())?;
        config::load(&sources, &|name| std::env::var(name).ok())
    }
}

/// Runs the subcommand that the arguments name. Wrong usage ends the process with 2.
pub fn main() -> ExitCode {
    let code = run();
    if IS_UNWRITTEN.load(Relaxed) { ExitCode::FAILURE } else { code }
}

fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Demo(demo) => demo.run(),
        Command::Check(check) => check.run(),
        Command::Schema(schema) => schema.run(),
        Command::Explain(explain) => explain.run(),
        Command::Diff(diff) => diff.run(),
        Command::Health(health) => health.run(),
        Command::Show(show) => show.run(),
        Command::Backend(backend) => backend.run(),
        Command::Sessions(sessions) => sessions.run(),
        Command::Reload(reload) => reload.run(),
        Command::Top(top) => top.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Version(version) => version.run(),
    }
}

/// Whether these arguments, the program's name first, would run, or what is wrong with them. For the test that reads the
/// documents.
pub fn parse_only(arguments: &[String]) -> Result<(), String> {
    Cli::try_parse_from(arguments).map(drop).map_err(|error| error.to_string())
}

/// Whether text on standard error may be coloured.
pub fn color_on_stderr() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// Whether something that was to be printed was not: whoever keeps what a command says is to know.
static IS_UNWRITTEN: AtomicBool = AtomicBool::new(false);

/// Writes to standard output. A reader that has left is no failure of ours.
fn print(text: &str) {
    use std::io::{ErrorKind, Write};
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error[E0135]: what was to be printed cannot be written: {error}");
            IS_UNWRITTEN.store(true, Relaxed);
        }
        _ => {}
    }
}
