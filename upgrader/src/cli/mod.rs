//! The command line: arguments only. Each command's arguments and its call into the program are in one file.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Upgrades this node, or from the Core node the whole cluster.
#[derive(Debug, Parser)]
#[command(name = "kato", version, propagate_version = true)]
pub struct Cli {
    /// The settings file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KATO_CONFIG",
        default_value = "/etc/kato/kato.toml"
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `kato` can do.
#[derive(Debug, Subcommand)]
pub enum Command {}

/// Runs the command line and gives the process's exit code; errors are printed to stderr with their hint.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {}
}
