//! `kato customizations …`: what was changed on this node, and how it survives an upgrade.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Context, node};
use crate::{
    audit::{AuditLog, Deed, Subject},
    customizations::{
        CustomizationError, Scan,
        archive::{self, Reason},
        difference, patched, reapply, scan,
    },
    exit::{Exit, Failure},
    installed::Installed,
    lock::Lock,
    report::{customizations as report, terminal},
    run::{Node, orphans, room},
};

/// The version of the JSON documents.
const SCHEMA: u32 = 1;

/// Arguments of `kato customizations`.
#[derive(Debug, Args)]
pub struct CustomizationsArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CustomizationsCommand,
}

/// What can be done with local changes.
#[derive(Debug, Subcommand)]
pub enum CustomizationsCommand {
    /// List what differs from the installed release, and what upgrades make of it; ends with 11 when something does.
    Scan,
    /// Save all local changes in an archive on this node.
    Save,
    /// List the archives of saved local changes.
    List,
    /// Show local changes as unified differences; ends with 11 when there are some.
    Diff {
        /// The files or folders, e.g. `/s/etc/nginx`.
        #[arg(required_unless_present = "all")]
        paths: Vec<PathBuf>,
        /// All local changes.
        #[arg(long, conflicts_with = "paths")]
        all: bool,
    },
    /// Put saved local changes back; what contradicts the installed release is put beside it. Ends with 11 when there is such.
    Reapply {
        /// Only these files or folders; everything that was saved when absent.
        paths: Vec<PathBuf>,
        /// The archive; the newest when absent.
        #[arg(long, value_name = "ID")]
        from: Option<String>,
        /// Say what would be done and change nothing.
        #[arg(long)]
        plan: bool,
    },
}

/// Runs `kato customizations`.
///
/// # Errors
/// [`Failure`] with the exit code and what to do next.
pub async fn run(args: CustomizationsArgs, context: &Context) -> Result<Exit, Failure> {
    let node = Node::new(node::load(context)?);
    done(&node, args.command, context)
        .await
        .map_err(|failure| room::explain(&node, [], failure))
}

async fn done(node: &Node, command: CustomizationsCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        CustomizationsCommand::Scan => show_scan(node, context.json),
        CustomizationsCommand::Save => save(node, context.json).await,
        CustomizationsCommand::List => list(node, context.json),
        CustomizationsCommand::Diff { paths, .. } => diff(node, &paths, context.json),
        CustomizationsCommand::Reapply { paths, from, plan } => {
            put_back(node, (&paths, from.as_deref(), plan), context.json).await
        }
    }
}

fn installed(node: &Node) -> Result<Installed, Failure> {
    let installed = Installed::load(&node.paths)?.ok_or(CustomizationError::NothingInstalled)?;
    Ok(patched(&node.paths, &installed)?)
}

/// The local changes; what could not be compared is said at once.
fn scanned(node: &Node, installed: &Installed) -> Result<Scan, Failure> {
    let scan = scan(&node.paths, installed)?;
    for note in &scan.notes {
        terminal::say(&format!("note: {note}"));
    }
    Ok(scan)
}

const fn exit(is_any: bool) -> Exit {
    if is_any { Exit::LocalChanges } else { Exit::Done }
}

fn show_scan(node: &Node, json: bool) -> Result<Exit, Failure> {
    let scan = scanned(node, &installed(node)?)?;
    if json {
        terminal::json(&json!({
            "schema": SCHEMA, "node": node.id, "version": scan.version, "changes": scan.changes, "notes": scan.notes,
        }));
    } else {
        for line in report::scan_lines(&scan) {
            terminal::data(&line);
        }
    }
    // What no upgrade touches is nothing to worry about.
    let worrying = scan
        .changes
        .iter()
        .any(|change| change.class != crate::customizations::Class::Safe);
    Ok(exit(worrying))
}

async fn save(node: &Node, json: bool) -> Result<Exit, Failure> {
    let _lock = lock(node).await?;
    let installed = installed(node)?;
    let scan = scanned(node, &installed)?;
    let now = node.clock.now();
    let id = now.strftime("%Y%m%dT%H%M%S%3f").to_string();
    let saved = archive::save(&node.paths, &installed, &scan.changes, (&id, Reason::ByHand, now))?;
    archive::retain(&node.paths, node.settings.customizations.keep)?;
    match saved {
        Some(saved) if json => terminal::json(&saved),
        Some(saved) => {
            let count = saved.files.len();
            let folder = archive::folder(&node.paths, &saved.id);
            terminal::say(&format!(
                "{count} local changes are saved in {}",
                folder.display()
            ));
            terminal::data(&saved.id);
        }
        None => terminal::say("there is nothing to save"),
    }
    Ok(Exit::Done)
}

fn list(node: &Node, json: bool) -> Result<Exit, Failure> {
    let archives = archive::all(&node.paths)?;
    if json {
        terminal::json(&json!({"schema": SCHEMA, "node": node.id, "archives": archives}));
    } else {
        for line in report::archive_lines(&archives) {
            terminal::data(&line);
        }
    }
    Ok(Exit::Done)
}

fn diff(node: &Node, named: &[PathBuf], json: bool) -> Result<Exit, Failure> {
    let installed = installed(node)?;
    let mut changes = scanned(node, &installed)?.changes;
    // Named, a safe path is shown as well; it is nobody's change otherwise.
    changes.retain(|change| !named.is_empty() || change.class != crate::customizations::Class::Safe);
    let changes = difference::choose(&node.paths, changes, named)?;
    let differences = difference::differences(&node.paths, &installed, &changes)?;
    if json {
        terminal::json(&json!({"schema": SCHEMA, "node": node.id, "differences": differences}));
    } else {
        for difference in &differences {
            terminal::text(&report::difference_text(difference));
        }
    }
    Ok(exit(!differences.is_empty()))
}

async fn put_back(
    node: &Node,
    (only, from, plan_only): (&[PathBuf], Option<&str>, bool),
    json: bool,
) -> Result<Exit, Failure> {
    let _lock = lock(node).await?;
    let installed = installed(node)?;
    let from = archive::find(&node.paths, from)?;
    let request = reapply::Request {
        from: &from,
        only,
        plan_only,
        now: node.clock.now(),
    };
    let reapplied = async { Ok(reapply::reapply(&node.paths, &installed, &request)?) };
    let done = if plan_only {
        reapplied.await?
    } else {
        let deed = Deed::new(Subject::Customizations, from.id.clone());
        AuditLog::of(node).around(deed, reapplied).await?
    };
    archive::retain(&node.paths, node.settings.customizations.keep)?;
    if json {
        terminal::json(
            &json!({"schema": SCHEMA, "node": node.id, "from": from.id, "plan": plan_only, "files": done}),
        );
    } else {
        for reapplied in &done {
            terminal::data(&report::reapplied_line(reapplied, plan_only));
        }
    }
    Ok(exit(done.iter().any(|reapplied| reapplied.action.is_open())))
}

/// No upgrade runs meanwhile.
async fn lock(node: &Node) -> Result<Lock, Failure> {
    Ok(orphans::lock(node, "of kato customizations").await?.said())
}
