//! The program: reads the command line and runs one subcommand. Everything else is in the library.

use std::process::ExitCode;

/// Sessions come and go in a few sizes: this wastes little on each, and gives back what is no longer needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    maitred::cli::main()
}
