//! `kato maintenance …`: the maintenance mode by hand. Turning it off needs nothing but the settings of this node (R5).

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, node::load};
use crate::{
    audit::{AuditLog, Deed, Subject},
    exit::{Exit, Failure},
    maintenance::Maintenance,
    report::terminal,
    run::Node,
};

/// The version of the JSON form.
const SCHEMA: u32 = 1;

/// Arguments of `kato maintenance`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: MaintenanceCommand,
}

/// What can be done with the maintenance mode.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Say whether it is on, and because of what.
    Show,
    /// Turn it on; it stays on until `kato maintenance off`.
    On,
    /// Turn it off, whoever turned it on.
    Off,
}

/// Runs `kato maintenance`.
///
/// # Errors
/// [`Failure`] with exit code 20 when a command of the platform failed.
pub async fn run(args: &MaintenanceArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(load(context)?);
    let mode = Maintenance::of(&node.settings, &node.clock);
    let wanted = match args.command {
        MaintenanceCommand::Show => return show(&mode, context.json).await,
        MaintenanceCommand::On => true,
        MaintenanceCommand::Off => false,
    };
    let what = if wanted { "on" } else { "off" };
    let deed = Deed::new(Subject::Config, format!("maintenance mode {what}"));
    let work = async { mode.by_hand(wanted).await.map_err(Failure::from) };
    if wanted {
        AuditLog::of(&node).around(deed, work).await?;
    } else {
        // The way off is never locked, also not by a full disk that takes no record.
        work.await?;
        if let Err(failure) = AuditLog::of(&node).around(deed, async { Ok(()) }).await {
            terminal::say(&format!("warning: {}", terminal::describe(&failure)));
        }
    }
    if context.json {
        terminal::json(&json!({"schema": SCHEMA, "on": wanted}));
    } else {
        terminal::data(&format!("maintenance mode is {what}"));
    }
    Ok(Exit::Done)
}

async fn show(mode: &Maintenance, is_json: bool) -> Result<Exit, Failure> {
    let (is_on, ours) = (mode.is_on().await?, mode.ours()?);
    if is_json {
        terminal::json(&json!({"schema": SCHEMA, "on": is_on, "because_of": ours}));
        return Ok(Exit::Done);
    }
    let text = match (is_on, &ours) {
        (Some(true), None) => "maintenance mode is on, not by an upgrade".to_owned(),
        (Some(false), _) => "maintenance mode is off".into(),
        (None, None) => {
            "the platform does not say whether maintenance mode is on: `[maintenance] get` is not set".into()
        }
        (Some(true) | None, Some(record)) => format!(
            "maintenance mode is on since {} because of the upgrade {}",
            record.since, record.run
        ),
    };
    terminal::data(&text);
    Ok(Exit::Done)
}
