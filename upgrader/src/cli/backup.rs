//! `kato node backup …` and `kato node restore`: arguments and tables.

use std::{borrow::Cow, path::PathBuf};

use clap::{Args, Subcommand};

use super::{Context, node::load};
use crate::{
    backup::{self, Found},
    exit::{Exit, Failure},
    path_text,
    report::terminal,
    restore,
    run::Node,
};

/// The version of the JSON forms.
const SCHEMA: u32 = 1;

/// Arguments of `kato node backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// What to do.
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// List the backups of this node, the newest first.
    List,
    /// Compare backups with their manifests, entry by entry.
    Verify {
        /// The backup: its id, its folder, or `latest`; all when absent.
        backup: Option<String>,
    },
}

/// Arguments of `kato node restore`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a bool here is a flag of the command line"
)]
pub struct RestoreArgs {
    /// The backup: its id, its folder, or `latest`.
    #[arg(required_unless_present = "undo")]
    backup: Option<String>,
    /// Only these paths, as they are below the node's root; everything when absent.
    #[arg(conflicts_with = "undo")]
    path: Vec<PathBuf>,
    /// Say what would be done and change nothing.
    #[arg(long, conflicts_with = "undo")]
    plan: bool,
    /// Restore a backup of another node, or one whose links would lead nowhere.
    #[arg(long)]
    force: bool,
    /// Take the last restoration back.
    #[arg(long, conflicts_with = "backup")]
    undo: bool,
    /// Do not take the node out of service.
    #[arg(long)]
    skip_drain: bool,
    /// Do not ask before starting.
    #[arg(long)]
    skip_confirmation: bool,
}

/// `kato node backup`.
///
/// # Errors
/// [`Failure`]: 2 for an unknown backup, 26 for one that was altered.
pub(super) fn run(args: &BackupArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(load(context)?);
    match &args.command {
        BackupCommand::List => {
            list(&node, context.json);
            Ok(Exit::Done)
        }
        BackupCommand::Verify { backup } => verify(&node, backup.as_deref(), context.json),
    }
}

/// `kato node restore`.
///
/// # Errors
/// [`Failure`]; see [`restore::run`].
pub(super) async fn restore(args: RestoreArgs, context: &Context) -> Result<Exit, Failure> {
    let request = restore::Request {
        backup: args.backup,
        only: args.path,
        plan_only: args.plan,
        force: args.force,
        undo: args.undo,
        skip_drain: args.skip_drain,
        skip_confirmation: args.skip_confirmation,
        json: context.json,
    };
    restore::run(Node::new(load(context)?), request).await
}

fn list(node: &Node, json: bool) {
    let all = backup::all(&node.paths);
    if json {
        let shown: Vec<_> = all.iter().map(document).collect();
        terminal::json(&serde_json::json!({"schema": SCHEMA, "node": node.id, "backups": shown}));
        return;
    }
    if all.is_empty() {
        terminal::say("this node has no backups; every upgrade makes one before its first change");
    }
    for backup in &all {
        let manifest = &backup.manifest;
        let from = manifest
            .from
            .as_ref()
            .map_or_else(|| "no release".into(), ToString::to_string);
        let half = if manifest.amid.is_some() { ", half new" } else { "" };
        let bytes = kato_shared::settings::byte_size::human(size(backup));
        terminal::data(&format!(
            "{}  {}  {from}{half}, before {}  {bytes}, {}",
            manifest.attempt,
            manifest.time.strftime("%Y-%m-%d %H:%M:%S"),
            manifest.to,
            kato_shared::counted(manifest.entries.len(), "entry", "entries")
        ));
        for path in &manifest.unsettled {
            terminal::say(&format!(
                "warning: /{} changed while it was saved",
                path.display()
            ));
        }
    }
}

fn size(backup: &Found) -> u64 {
    crate::module::tree::size(&backup.folder).unwrap_or(0)
}

/// Paths as texts, whatever their bytes.
fn shown<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Vec<Cow<'a, str>> {
    paths.map(|path| path_text::show(path)).collect()
}

fn document(backup: &Found) -> serde_json::Value {
    let manifest = &backup.manifest;
    serde_json::json!({
        "id": manifest.attempt,
        "folder": backup.folder,
        "node": manifest.node,
        "product": manifest.product,
        "from": manifest.from,
        "to": manifest.to,
        "amid": manifest.amid,
        "time": manifest.time,
        "bytes": size(backup),
        "entries": manifest.entries.len(),
        "paths": shown(manifest.paths.iter()),
        "unsettled": shown(manifest.unsettled.iter()),
        "skipped": shown(manifest.skipped.iter()),
    })
}

fn verify(node: &Node, name: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let chosen = match name {
        Some(name) => vec![backup::named(&node.paths, name)?],
        None => backup::all(&node.paths),
    };
    let mut first = None;
    let mut shown = Vec::new();
    for backup in &chosen {
        let id = &backup.manifest.attempt;
        let outcome = backup.verify();
        let problem = outcome
            .as_ref()
            .err()
            .map(|error| kato_shared::chain::Chain(error).to_string());
        if !json {
            let text = problem.as_deref().unwrap_or("whole");
            terminal::data(&format!("{id}: {text}"));
        }
        shown.push(serde_json::json!({"id": id, "whole": outcome.is_ok(), "problem": problem}));
        if let Err(error) = outcome {
            first.get_or_insert(error);
        }
    }
    if json {
        terminal::json(&serde_json::json!({"schema": SCHEMA, "node": node.id, "backups": shown}));
    }
    match first {
        Some(error) => Err(error.into()),
        None => Ok(Exit::Done),
    }
}
