//! What is said about patches: the document of `kato patch status --json`, and the same as lines for people.

use jiff::Timestamp;
use kato_shared::release::{PatchEntry, PatchList, Severity, Version};
use serde::{Deserialize, Serialize};

use super::{
    choice::{Here, State},
    listed::Listed,
    record::{By, InstalledPatch, Patches, PendingRestart},
};
use crate::{
    attempt::Attempt, exit::Failure, installed::Installed, lock, module::undo, run::Node,
    run::event::ErrorReport,
};

/// The version of the document's format.
pub const SCHEMA: u32 = 1;

/// The patches of one node. Core reads it from nodes whose `kato` may be newer, so unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePatches {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The node.
    pub node: String,
    /// The product.
    pub product: String,
    /// The installed release.
    pub version: Option<Version>,
    /// When the list was fetched.
    pub listed: Option<Timestamp>,
    /// How many patches are for this node and not installed.
    pub outstanding: usize,
    /// The patch that is being installed or taken back.
    pub in_progress: Option<String>,
    /// The patches, by number.
    pub patches: Vec<PatchLine>,
}

/// One patch on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchLine {
    /// Its number.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What it is about; empty for an installed patch that the list does not have.
    pub summary: String,
    /// How much it matters.
    pub severity: Option<Severity>,
    /// The roles that it affects.
    pub roles: Vec<String>,
    /// What it is to this node.
    pub state: State,
    /// Who says that it is installed.
    #[serde(flatten)]
    pub by: Option<By>,
    /// When it was installed.
    pub time: Option<Timestamp>,
    /// The digest of its signed document.
    pub sha256: kato_shared::Digest,
    /// What must still be restarted for it.
    pub restart_pending: Option<PendingRestart>,
    /// Whether what it replaced was kept.
    pub can_be_reverted: bool,
    /// Why its installation was rolled back.
    pub error: Option<ErrorReport>,
}

/// Reads the patches of `node`; with `all` also those that are not for it.
///
/// # Errors
/// [`Failure`] when a document of the node cannot be read.
pub fn read(
    node: &Node,
    listed: Option<&Listed>,
    list: &PatchList,
    all: bool,
) -> Result<NodePatches, Failure> {
    let patches = Patches::load(&node.paths)?;
    let version = Installed::load(&node.paths)?.map(|installed| installed.version);
    let attempt = Attempt::load(&node.paths)?.filter(|attempt| attempt.begun);
    let boot = lock::boot_id(node.paths.root());
    let mut lines = Vec::new();
    let mut outstanding = 0;
    if let Some(version) = &version {
        let here = Here {
            version,
            roles: node.roles(),
            patches: &patches,
        };
        outstanding = here.outstanding(list).len();
        for entry in &list.patches {
            let state = here.state(entry);
            let is_far = matches!(state, State::OtherRelease | State::OtherRoles | State::Superseded);
            if all || !is_far {
                lines.push(line(node, &patches, entry, state, &boot));
            }
        }
    }
    // What is installed is shown also when the list was forgotten, or is an operator's own.
    let unlisted = patches
        .installed
        .iter()
        .filter(|patch| list.named(&patch.name).is_none());
    lines.extend(unlisted.map(|patch| without_entry(node, patch, &boot)));
    lines.sort_unstable_by_key(|line| line.id);
    Ok(NodePatches {
        schema: SCHEMA,
        node: node.id.clone(),
        product: list.product.clone(),
        version,
        listed: listed.map(|listed| listed.time),
        outstanding,
        in_progress: attempt.and_then(|attempt| Some(attempt.patch?.name)),
        patches: lines,
    })
}

fn line(node: &Node, patches: &Patches, entry: &PatchEntry, state: State, boot: &str) -> PatchLine {
    let installed = patches.installed(&entry.name);
    let failed = patches
        .rolled_back
        .iter()
        .find(|failed| failed.name == entry.name);
    PatchLine {
        id: entry.id,
        name: entry.name.clone(),
        summary: entry.summary.clone(),
        severity: Some(entry.severity),
        roles: entry.roles.clone(),
        state,
        by: installed.map(|patch| patch.by.clone()),
        time: installed.map(|patch| patch.time),
        sha256: entry.sha256,
        restart_pending: installed.and_then(|patch| pending(patch, boot)),
        can_be_reverted: installed.is_some() && undo::is_put_by(&node.paths.patch_kept(&entry.name)),
        error: failed.map(|failed| failed.error.clone()),
    }
}

fn without_entry(node: &Node, patch: &InstalledPatch, boot: &str) -> PatchLine {
    PatchLine {
        id: patch.id,
        name: patch.name.clone(),
        summary: String::new(),
        severity: None,
        roles: Vec::new(),
        state: State::Installed,
        by: Some(patch.by.clone()),
        time: Some(patch.time),
        sha256: patch.sha256,
        restart_pending: pending(patch, boot),
        can_be_reverted: undo::is_put_by(&node.paths.patch_kept(&patch.name)),
        error: None,
    }
}

/// A restart that is still due: another boot has restarted everything.
fn pending(patch: &InstalledPatch, boot: &str) -> Option<PendingRestart> {
    patch.restart.clone().filter(|pending| pending.boot_id == boot)
}

/// The document as a person reads it.
pub fn text(patches: &NodePatches) -> String {
    let count = match patches.outstanding {
        0 => "No updates available to be installed.".to_owned(),
        1 => "1 update available to be installed.".to_owned(),
        many => format!("{many} updates available to be installed."),
    };
    let mut lines = vec![count];
    if let Some(name) = &patches.in_progress {
        lines.push(format!(
            "The patch {name} is not finished; `kato patch install {name}` goes on, `kato patch revert {name}` takes it back."
        ));
    }
    if patches.patches.is_empty() {
        return lines.join("\n");
    }
    let version = patches
        .version
        .as_ref()
        .map_or_else(|| "no release".into(), Version::to_string);
    lines.push(String::new());
    lines.push(format!("Known updates for {} {version}:", patches.product));
    for patch in &patches.patches {
        lines.push(String::new());
        lines.extend(of_patch(patch));
    }
    if let Some(listed) = patches.listed {
        lines.push(String::new());
        lines.push(format!(
            "The list is of {}; `kato patch update` fetches the newest.",
            listed.strftime("%Y-%m-%d %H:%M UTC")
        ));
    }
    lines.join("\n")
}

fn of_patch(patch: &PatchLine) -> Vec<String> {
    let mut lines = vec![format!("  {}: {}", patch.name, patch.summary)];
    let mut add = |name: &str, value: &str| lines.push(format!("    {name}: {value}"));
    add("id", &patch.id.to_string());
    if let Some(severity) = patch.severity {
        add("severity", severity.name());
    }
    if !patch.roles.is_empty() {
        let all = patch.roles.iter().any(|role| role == "*");
        add(
            "roles affected",
            &if all {
                "all".to_owned()
            } else {
                patch.roles.join(", ")
            },
        );
    }
    add("status", &state(patch));
    if let Some(pending) = &patch.restart_pending {
        let what = match (pending.machine, pending.services.as_str(), pending.roles.as_str()) {
            (true, ..) => "the machine".to_owned(),
            (false, "", "") => "all services of the node".to_owned(),
            (false, "", roles) => format!("the services of {}", roles.replace(',', ", ")),
            (false, services, _) => services.to_owned(),
        };
        add(
            "restart pending",
            &format!("{what}; then run `kato patch mark --installed {}`", patch.name),
        );
    }
    lines
}

fn state(patch: &PatchLine) -> String {
    let when = patch
        .time
        .map(|time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
        .unwrap_or_default();
    match (patch.state, &patch.by) {
        (State::Installed, Some(By::Run { run, .. })) => format!("installed {when} by run {run}"),
        (State::Installed, _) => format!("marked as installed {when}"),
        (State::Outstanding, _) => "to be installed".into(),
        (State::RolledBack, _) => match &patch.error {
            Some(error) => format!("rolled back: {}: {}", error.step, error.message),
            None => "rolled back".into(),
        },
        (State::Superseded, _) => "contained in the installed release".into(),
        (State::OtherRelease, _) => "for other releases".into(),
        (State::OtherRoles, _) => "for other roles".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r70_the_status_reads_as_the_original_one_does() {
        let line = PatchLine {
            id: 1,
            name: "dea-memory".into(),
            summary: "counts memory right".into(),
            severity: Some(Severity::Required),
            roles: vec!["dea".into()],
            state: State::Outstanding,
            by: None,
            time: None,
            sha256: kato_shared::Digest::of(b""),
            restart_pending: None,
            can_be_reverted: false,
            error: None,
        };
        let patches = NodePatches {
            schema: 1,
            node: "n1".into(),
            product: "Stackato".into(),
            version: Some(Version::new(2, 10, 4)),
            listed: None,
            outstanding: 1,
            in_progress: None,
            patches: vec![line],
        };
        assert_eq!(
            text(&patches),
            "1 update available to be installed.\n\nKnown updates for Stackato 2.10.4:\n\n  dea-memory: counts memory right\n    \
             id: 1\n    severity: required\n    roles affected: dea\n    status: to be installed"
        );
        let json = serde_json::to_string(&patches).unwrap();
        assert_eq!(serde_json::from_str::<NodePatches>(&json).unwrap(), patches);
    }
}
