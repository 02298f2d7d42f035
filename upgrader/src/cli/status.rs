//! `kato status`: how the cluster is and what its upgrade is doing.

use clap::Args;

use super::{Context, node};
use crate::{
    cluster::overview,
    exit::{Exit, Failure},
};

/// Arguments of `kato status`.
#[derive(Debug, Args)]
pub struct StatusArgs {}

/// Runs `kato status`.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(_args: StatusArgs, context: &Context) -> Result<Exit, Failure> {
    let settings = node::load(context)?;
    overview::status(&settings, &context.config, context.json).await
}
