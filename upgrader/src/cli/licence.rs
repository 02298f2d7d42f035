//! `kato licence …`: whether an upgrade has waived the platform's licence limits, and the way back by hand (R23). Neither needs more than the
//! settings of this node.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, node::load};
use crate::{
    audit::AuditLog,
    exit::{Exit, Failure},
    licence::{self, Licence},
    report::terminal,
    run::Node,
};

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// Arguments of `kato licence`.
#[derive(Debug, Args)]
pub struct LicenceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LicenceCommand,
}

/// What can be done with the licence limits.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum LicenceCommand {
    /// Say whether an upgrade has waived them, and since when.
    Show,
    /// Have the platform keep them again, also while a node is at work.
    Restore,
}

/// Runs `kato licence`.
///
/// # Errors
/// [`Failure`] with exit code 75 when the platform's command failed: they are waived still.
pub async fn run(args: &LicenceArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(load(context)?);
    if matches!(args.command, LicenceCommand::Restore) {
        let log = AuditLog::of(&node);
        Licence::of(&node.settings, &log).restore().await?;
    }
    if context.json {
        terminal::json(&json!({"schema": SCHEMA, "waived": licence::waived(&node.settings)}));
        return Ok(Exit::Done);
    }
    let said = licence::left_waived(&node.settings);
    terminal::data(&said.unwrap_or_else(|| "no upgrade has waived the platform's licence limits".into()));
    Ok(Exit::Done)
}
