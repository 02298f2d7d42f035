//! A node without the record of its release: a new one, or one that lost the record.
//!
//! A node that had a release is never taken for a new one in silence: its local changes, safe paths and hops would not be known
//! any more. What else kato keeps there tells the two apart; of several traces the first that is found is named. The last word
//! has the audit log, because a restoration of the backup from before the first installation leaves a node that is new again.

use std::fs;

use anyhow::anyhow;

use super::Node;
use crate::{
    attempt::Attempt,
    audit::{AuditLog, Outcome, Record, Subject},
    backup,
    exit::{Exit, Failure},
    patch::record::Patches,
};

/// Refuses a node that shows a trace of a release and has no record of it.
///
/// # Errors
/// [`Exit::Damaged`] with the trace and where a copy of the record is.
pub(super) fn refuse(node: &Node, attempt: Option<&Attempt>) -> Result<(), Failure> {
    let Some(trace) = trace(node, attempt)? else {
        return Ok(());
    };
    let path = node.paths.installed();
    let problem = anyhow!(
        "the record of the installed release `{}` is missing, and this is no new node: {trace}",
        path.display()
    );
    Err(Failure::new(Exit::Damaged, problem).hint(
        "every backup has a copy (`kato node backup list`; in its files.tar.zst): put the newest in its place, then run the same \
         command again; `kato node upgrade --force` goes on as on a new node, where every file that differs counts as changed here",
    ))
}

/// What shows that the node had a release; `None` on a new one.
fn trace(node: &Node, attempt: Option<&Attempt>) -> Result<Option<String>, Failure> {
    let log = AuditLog::of(node);
    let report = log.check()?;
    match report.records.iter().rev().find(|record| is_telling(record)) {
        Some(record) if record.what == Subject::Upgrade => {
            return Ok(Some(format!(
                "its audit log says that the upgrade {} was complete at {}",
                record.about, record.time
            )));
        }
        Some(_restored) => return Ok(None),
        None => {}
    }
    if let Some(from) = attempt.and_then(|attempt| attempt.from.as_ref()) {
        return Ok(Some(format!("it is in the middle of an upgrade from {from}")));
    }
    let backups = backup::all(&node.paths);
    if let Some((backup, from)) = backups
        .iter()
        .find_map(|backup| Some((backup, backup.manifest.from.as_ref()?)))
    {
        return Ok(Some(format!(
            "the backup {} is of a node with {from}",
            backup.folder.display()
        )));
    }
    let pristine = node.paths.pristine();
    if fs::read_dir(&pristine).is_ok_and(|mut archives| archives.next().is_some()) {
        return Ok(Some(format!(
            "{} has archives of an installed release",
            pristine.display()
        )));
    }
    let patches = Patches::load(&node.paths)?;
    Ok(patches
        .installed
        .first()
        .map(|patch| format!("the patch `{}` is installed on {}", patch.name, patch.release)))
}

/// Whether `record` says that the node has a release from then on, or what a restoration left it with.
fn is_telling(record: &Record) -> bool {
    let is_done = matches!(record.outcome, Outcome::Done);
    let is_download = record.detail.contains_key("only");
    is_done && (record.what == Subject::Upgrade && !is_download || record.what == Subject::Restore)
}
