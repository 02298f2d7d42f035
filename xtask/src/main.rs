//! `cargo xtask`: what people and CI run in this workspace.
//!
//! | Command | In one line |
//! |---|---|
//! | `demo [-- ARGS…]` | release programs, then `kato demo ARGS…` |
//! | `dist` | what is handed out: programs without symbols, settings, documents, digests, one archive |
//! | `test [-- AREA]` | Debian packages, build, unit + integration + doc tests; or one area |
//! | `bench [-- ARGS…]` | release binaries and peers, then the harness in `bench/` |
//! | `check` | fmt, clippy, rustdoc, cargo-deny, tidy |
//! | `fuzz TARGET [--seconds N]` | a fuzz target under libFuzzer |
//! | `tidy` | the rules of this workspace that no other tool knows |
//!
//! Each command prints headings with the time that has passed and ends with one summary line. Exit codes: 0 done, 1 something
//! failed (it is named), 2 usage, or a prerequisite that only the operator can install.
//!
//! Deliberately absent: a task graph and caching. Cargo has both.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people: what it prints is its product"
)]

mod bench;
mod check;
mod demo;
mod dist;
mod fuzz;
mod packages;
mod process;
mod progress;
mod test;
mod tidy;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// Tasks of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds the release binaries and runs `kato demo` with the arguments after `--`.
    Demo {
        /// Passed to `kato demo` as they stand.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Makes what is handed out, below `target/dist`.
    Dist,
    /// Runs every test, or those of one area.
    Test {
        /// The one area to run.
        #[arg(last = true)]
        area: Option<String>,
    },
    /// Measures the proxy beside others: the harness in `bench/` with the arguments after `--`.
    Bench {
        /// Passed to the harness as they stand; `--help` names them.
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Formatting, lints, documentation, dependencies, tidy rules.
    Check,
    /// Runs one fuzz target; the folders of `tests/fuzz/corpus` are the targets.
    Fuzz {
        /// The target.
        target: String,
        /// For how long.
        #[arg(long, default_value_t = 600)]
        seconds: u32,
        /// Bring what adds coverage into the corpus, instead of looking for more.
        #[arg(long)]
        minimise: bool,
    },
    /// The rules of this workspace that no other tool knows.
    Tidy,
}

/// The failures that have an exit code of their own.
#[derive(Debug)]
enum Stop {
    /// Only the operator can go on: exit 2.
    Operator(String),
    /// Something failed: exit 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Demo { args } => return demo::run(&args),
        Task::Dist => dist::run(),
        Task::Test { area } => test::run(area.as_deref()),
        Task::Bench { args } => bench::run(&args),
        Task::Check => check::run(),
        Task::Fuzz {
            target,
            seconds,
            minimise,
        } => fuzz::run(&target, seconds, minimise),
        Task::Tidy => tidy::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Operator(what)) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
        Err(Stop::Failed(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn workspace() -> PathBuf {
    let mut folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.pop();
    folder
}
