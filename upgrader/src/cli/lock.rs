//! `kato lock …`: who holds the locks of this node, and how one is broken whose holder is dead.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Context, node::load};
use crate::{
    audit::{AuditLog, Deed, Subject},
    exit::{Exit, Failure},
    lease,
    lock::{self, Holder, LockError, Standing},
    report::terminal,
    run::Node,
};

/// The version of the JSON form of `kato lock show`.
const SCHEMA: u32 = 1;

/// Arguments of `kato lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LockCommand,
}

/// What can be done with locks.
#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Say who holds the lock of this node, and on Core that of the cluster's upgrade.
    Show,
    /// Break the lock of this node, whose holder is provably dead, or with `--cluster` that of an upgrade which is dead or silent.
    Break {
        /// Why; it is written to the audit log.
        #[arg(long, value_name = "TEXT", value_parser = super::reason::words)]
        reason: String,
        /// The lock of the cluster's upgrade instead.
        #[arg(long)]
        cluster: bool,
    },
}

/// A lock as it is.
#[derive(Debug, Serialize)]
struct Shown {
    name: &'static str,
    path: PathBuf,
    held: bool,
    /// Who holds it, or held it last.
    holder: Option<Holder>,
    standing: Option<Standing>,
    /// Of the cluster's lock: what its holder says, and what is known about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<ShownLease>,
}

/// A lease as it is.
#[derive(Debug, Serialize)]
struct ShownLease {
    #[serde(flatten)]
    record: lease::Record,
    standing: lease::Standing,
}

/// Runs a `kato lock` command.
///
/// # Errors
/// [`Failure`]: 25 when the holder is alive.
pub async fn run(args: &LockArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(load(context)?);
    match &args.command {
        LockCommand::Show => {
            show(&node, context.json);
            Ok(Exit::Done)
        }
        LockCommand::Break { reason, cluster } => break_it(&node, reason, *cluster).await,
    }
}

async fn break_it(node: &Node, reason: &str, is_cluster: bool) -> Result<Exit, Failure> {
    let (name, path) = if is_cluster {
        ("cluster", node.paths.cluster_lock())
    } else {
        ("node", node.paths.lock())
    };
    if !lock::is_held(&path) {
        terminal::say(&format!(
            "nobody holds the lock of the {name}; the next run takes it"
        ));
        return Ok(Exit::Done);
    }
    let holder = lock::last_holder(&path);
    let held_by = holder.map_or_else(|| "unknown".into(), |holder| holder.run);
    let deed = Deed::new(Subject::LockBreak, path.display().to_string())
        .forced(true)
        .reason(reason)
        .detail("held by run", held_by);
    let work = async {
        if is_cluster {
            lease::break_silent(&node.paths)?;
            terminal::say(
                "the lock of the cluster was broken; the same `kato node upgrade --cluster` again goes on, and the nodes refuse \
                 whoever had it before",
            );
            Ok(Exit::Done)
        } else {
            broken(lock::break_stale(&path, node.paths.root()))
        }
    };
    AuditLog::of(node).around(deed, work).await
}

fn broken(outcome: Result<Option<Holder>, LockError>) -> Result<Exit, Failure> {
    let Err(error) = outcome else {
        terminal::say("the lock was broken; `kato node upgrade` goes on where its holder stopped");
        return Ok(Exit::Done);
    };
    let hint = match &error {
        LockError::Held {
            holder: Some(holder), ..
        } => format!(
            "its holder is not provably dead; let it end, or end it with `kill {}`: it stops in order, and the next run goes on",
            holder.pid
        ),
        LockError::Held { holder: None, .. } => {
            "look for a `kato` that has just started, and try again".into()
        }
        LockError::Io { .. } | LockError::Durable(_) => return Err(error.into()),
    };
    Err(Failure::new(Exit::LockHeld, error).hint(hint))
}

fn show(node: &Node, json: bool) {
    let locks = [
        ("node", node.paths.lock()),
        ("cluster", node.paths.cluster_lock()),
    ];
    let shown: Vec<_> = locks
        .into_iter()
        .filter(|(name, path)| *name == "node" || path.exists())
        .map(|(name, path)| look(name, path, node))
        .collect();
    if json {
        terminal::json(&serde_json::json!({ "schema": SCHEMA, "node": node.id, "locks": shown }));
        return;
    }
    for lock in &shown {
        terminal::data(&text(lock));
    }
}

fn look(name: &'static str, path: PathBuf, node: &Node) -> Shown {
    let holder = lock::last_holder(&path);
    Shown {
        name,
        held: lock::is_held(&path),
        standing: holder.as_ref().map(|holder| holder.standing(node.paths.root())),
        holder,
        path,
        lease: (name == "cluster")
            .then(|| lease::look(&node.paths))
            .flatten()
            .map(|(record, standing)| ShownLease { record, standing }),
    }
}

fn lease_lines(lease: &ShownLease) -> Vec<String> {
    let record = &lease.record;
    let mut lines = vec![
        format!("  {:<8} {}", "for", record.about),
        format!("  {:<8} {}", "token", record.token),
        format!(
            "  {:<8} {} ({})",
            "renewed",
            record.renewed,
            lease.standing.text()
        ),
    ];
    if lease.standing.may_be_broken() {
        lines.push("  hint     `kato lock break --cluster --reason …` takes it away".into());
    }
    lines
}

fn text(lock: &Shown) -> String {
    let state = if lock.held { "held" } else { "free" };
    let mut lines = vec![format!("{}: {state} ({})", lock.name, lock.path.display())];
    if let (Some(holder), Some(standing)) = (&lock.holder, lock.standing) {
        let role = if lock.held { "holder" } else { "last" };
        lines.push(format!("  {role:<8} run {}", holder.run));
        lines.push(format!("  {:<8} {} ({})", "process", holder.pid, standing.text()));
        lines.push(format!("  {:<8} {}", "boot", holder.boot_id));
        lines.push(format!("  {:<8} {}", "since", holder.started));
        lines.push(format!("  {:<8} {}", "command", holder.command.join(" ")));
        if lock.held && standing.is_dead() && lock.lease.is_none() {
            lines.push("  hint     its holder is dead: `kato lock break --reason …`".into());
        }
    }
    if let Some(lease) = &lock.lease {
        lines.extend(lease_lines(lease));
    }
    lines.join("\n")
}
