//! The command line: one file per subcommand. Exit codes: 0 success, 1 refused or failed, 2 wrong usage.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

mod run;
mod one_line;
mod demo;
mod check;
mod schema;
mod explain;
mod diff;
mod ask;
mod files;
mod output;
mod health;
mod show;
mod backend;
mod sessions;
mod reload;
mod top;
mod doctor;
mod completions;
mod version;

const EXITS: &str = "Exit codes: 0 success, 1 refused or failed (configuration, address, a finding), 2 wrong usage.\n\
    `maitred explain CODE` says more about an error; docs/ has the documentation.";

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

/// Runs the subcommand that the arguments name. Wrong usage ends the process with 2.
pub fn main() -> ExitCode {
    let code = run();
    if output::failed() { ExitCode::FAILURE } else { code }
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
        Command::Completions(completions) => completions.run(Cli::command()),
        Command::Man(man) => man.run(Cli::command()),
        Command::Version(version) => version.run(),
    }
}

/// Whether the program would accept these arguments (its name first), or what is wrong with them. For the test that
/// reads the documents.
pub fn parse_only(arguments: &[String]) -> Result<(), String> {
    Cli::try_parse_from(arguments).map(drop).map_err(|error| error.to_string())
}
