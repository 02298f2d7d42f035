//! `kato status`, `kato explain` and `kato report`: how the cluster is, what its upgrade is doing, and why not.

use std::path::PathBuf;

use clap::Args;

use super::{Context, node};
use crate::{
    cluster::{evidence, explain, overview, watch},
    exit::{Exit, Failure},
};

/// Arguments of `kato status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Go on and show what changes, until the work is over.
    #[arg(short, long)]
    pub watch: bool,
}

/// Arguments of `kato explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The node, by its id or address in the inventory.
    #[arg(value_name = "ID|ADDRESS")]
    pub node: String,
}

/// Arguments of `kato report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// The file to write; one in this folder, named after cluster and time, when absent.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Runs `kato status`.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: &StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = node::load(context)?;
    if args.watch {
        return watch::run(&settings, &context.config, context.json).await;
    }
    overview::status(&settings, &context.config, context.json).await
}

/// Runs `kato explain`.
///
/// # Errors
/// As [`run`].
pub async fn explain(args: &ExplainArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = node::load(context)?;
    explain::run(&settings, &context.config, &args.node, context.json).await
}

/// Runs `kato report`.
///
/// # Errors
/// As [`run`].
pub async fn report(args: ReportArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = node::load(context)?;
    evidence::run(&settings, &context.config, args.output, context.json).await
}
