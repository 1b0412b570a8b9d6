//! The program: reads the command line and runs one subcommand. Everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    maitred::cli::main()
}
