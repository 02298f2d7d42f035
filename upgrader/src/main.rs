//! The program `kato`: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    if let Some(answered) = kato_upgrader::ssh::askpass::main() {
        return answered;
    }
    kato_upgrader::cli::main(kato_upgrader::cli::Cli::parse())
}
