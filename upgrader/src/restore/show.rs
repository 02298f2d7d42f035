//! A restoration's plan, as people and programs read it, and the question before it.

use anyhow::anyhow;

use super::{Phase, Request, Restoration};
use crate::{
    backup::Found,
    exit::{Exit, Failure},
    path_text,
    report::terminal,
    run::Node,
};

/// Asks, unless that was answered before.
pub(super) fn confirm(backup: &Found, restoration: &Restoration, request: &Request) -> Result<(), Failure> {
    if request.skip_confirmation || restoration.phase != Phase::Staging {
        return Ok(());
    }
    if !terminal::is_interactive() {
        let problem = anyhow!("a restoration asks before it starts, and there is no terminal to ask on");
        return Err(Failure::new(Exit::Usage, problem).hint("add `--skip-confirmation`"));
    }
    for line in lines(backup, restoration) {
        terminal::say(&line);
    }
    if terminal::confirm("Restore this backup?") {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        anyhow!("not confirmed; nothing was changed"),
    ))
}

fn lines(backup: &Found, restoration: &Restoration) -> Vec<String> {
    let manifest = &backup.manifest;
    let from = manifest
        .from
        .as_ref()
        .map_or_else(|| "no release".into(), ToString::to_string);
    let mut lines = vec![format!(
        "restore {} of {} ({from}, before the upgrade to {})",
        manifest.attempt, manifest.time, manifest.to
    )];
    for unit in &restoration.units {
        let here = unit.path.symlink_metadata().is_ok();
        let what = match (unit.saved, here) {
            (true, true) => "replace",
            (true, false) => "bring back",
            (false, true) => "take away (it was not there)",
            (false, false) => "nothing to do for",
        };
        lines.push(format!("  {what} {}", unit.path.display()));
    }
    if restoration.whole {
        lines.push(format!("  the node's record says {from} afterwards"));
    } else {
        lines.push("  the node's record keeps its version: only a part is restored".into());
    }
    lines
}

/// Prints the plan.
pub(super) fn show(node: &Node, backup: &Found, restoration: &Restoration, json: bool) {
    if json {
        terminal::json(&serde_json::json!({
            "schema": 1,
            "node": node.id,
            "backup": restoration.backup,
            "version": backup.manifest.from,
            "whole": restoration.whole,
            "paths": restoration.units.iter().map(|unit| serde_json::json!({
                "path": path_text::show(&unit.path),
                "saved": unit.saved,
                "present": unit.path.symlink_metadata().is_ok(),
            })).collect::<Vec<_>>(),
        }));
    } else {
        terminal::data(&lines(backup, restoration).join("\n"));
    }
}
