//! `kato demo`: the arguments of the demonstration.

use std::path::PathBuf;

use clap::Args;

use super::Context;
use crate::{
    demo::{self, Options},
    exit::{Exit, Failure},
    report::terminal,
};

/// Arguments of `kato demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the cluster and its cache, and print how to look around.
    #[arg(long)]
    pub keep: bool,
    /// Where the throw-away folder is made; the system's folder for temporary files when absent.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Runs the demonstration.
///
/// # Errors
/// [`Failure`] with the exit code; with `--json` the document says so as well.
pub async fn run(args: DemoArgs, context: &Context) -> Result<Exit, Failure> {
    let options = Options {
        keep: args.keep,
        dir: args.dir.unwrap_or_else(std::env::temp_dir),
        json: context.json,
    };
    let outcome = demo::run(&options).await;
    if let (Err(failure), true) = (&outcome, context.json) {
        terminal::json(&serde_json::json!({
            "schema": 1, "ok": false, "error": terminal::describe(failure), "hint": failure.hint,
        }));
    }
    outcome
}
