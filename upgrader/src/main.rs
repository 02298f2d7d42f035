//! The program `kato`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    kato_upgrader::cli::main(kato_upgrader::cli::Cli::parse())
}
