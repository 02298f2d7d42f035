//! What an upgrade of one node does: a pure function of what is known about the node, the release and the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use kato_shared::{
    Digest,
    release::{Install, Module, NoticeWhen, Release, RestartScope, Upgrader, Version},
};
use serde::Serialize;

use super::{
    needs::{self, image_bytes},
    way_back::WayBack,
};
use crate::{customizations::outlook::ModuleOutlook, latch::Verdict, space::Need};

/// The purpose of space for images. Their folder is the container runtime's, a path of the machine and not below the root.
pub const IMAGES: &str = "images";

/// The purpose of space for a slot of `kato`.
pub const KATO: &str = "kato itself";

/// The purpose of space for what `kato` itself notes: journal, latches, notes of the way back, records.
pub const RECORDS: &str = "kato's own records";

/// The version of the plan's JSON form.
pub const SCHEMA: u32 = 1;

/// What is known about the node.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct NodeFacts {
    /// Its id.
    pub node: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// The installed release.
    pub installed: Option<Version>,
    /// The modules of the installed release on this node.
    pub installed_modules: BTreeSet<String>,
    /// Whether missing services and paths are warnings: the last run failed, or that was asked for.
    pub is_tolerant: bool,
    /// Whether an operator asked for that.
    pub tolerance_asked: bool,
    /// What the latches say, by module.
    pub latches: BTreeMap<String, Verdict>,
    /// The `kato` that the release brings, when it is not the one that runs.
    pub kato: Option<Upgrader>,
    /// Artifacts that are on the node already.
    pub staged: BTreeSet<Digest>,
    /// Bytes that are at the paths of [`backup_paths`] now; paths that do not exist are absent.
    pub sizes: BTreeMap<PathBuf, u64>,
    /// Whether the backup for this upgrade was taken by an earlier run.
    pub is_backed_up: bool,
    /// The local changes in the folders of its modules, and what becomes of them.
    pub local_changes: Vec<ModuleOutlook>,
    /// Bytes of local changes that are saved before they are taken away.
    pub saved_bytes: u64,
    /// Bytes of the node's own records that go into the backup.
    pub record_bytes: u64,
    /// Nodes with one of these roles are retired.
    pub retire_roles: Vec<String>,
    /// Whether the platform can retire a node.
    pub can_retire: bool,
    /// Who restarts what a patch needs restarted.
    pub restarts: Restarts,
    /// The folder of downloads.
    pub staging: PathBuf,
    /// The folder of the slots of `kato`.
    pub slots: PathBuf,
    /// The folder of backups.
    pub backups: PathBuf,
    /// The folder of saved local changes.
    pub customizations: PathBuf,
    /// Where archives of modules without a folder of their own are unpacked.
    pub work: PathBuf,
    /// Why a module cannot be undone on this node, by its name.
    pub irreversible: BTreeMap<String, String>,
    /// Images that are on the node already.
    pub images: BTreeSet<Digest>,
    /// Where the container runtime keeps images.
    pub images_folder: Option<PathBuf>,
}

/// Who restarts what a patch needs restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restarts {
    /// The run, as a step of its own.
    #[default]
    Kato,
    /// The operator, later.
    Operator,
}

/// What an upgrade of a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodePlan {
    /// The version of this format; see [`SCHEMA`].
    pub schema: u32,
    /// The node.
    pub node: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// The installed release.
    pub from: Option<Version>,
    /// The release to come; with a patch, the one that is there.
    pub to: Version,
    /// Its channel.
    pub channel: String,
    /// The patch to come, when it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<String>,
    /// The digest of its release document.
    pub release_digest: Digest,
    /// When the plan was made.
    pub made: Timestamp,
    /// Whether missing services and paths are warnings.
    pub is_tolerant: bool,
    /// Whether that is so because an operator asked for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tolerance_asked: bool,
    /// The steps in their order; `module:<name>` for modules.
    pub steps: Vec<String>,
    /// The node's modules in their order.
    pub modules: Vec<ModulePlan>,
    /// Modules of the installed release that the new one has no more; their files stay.
    pub dropped: Vec<String>,
    /// Bytes to download.
    pub download_bytes: u64,
    /// Whether the node is taken out of service; the role that decides, when it is.
    pub retire: Option<String>,
    /// What is saved before the first change.
    pub backup: BTreeSet<PathBuf>,
    /// Paths that the release wants saved and the node does not have.
    pub missing: Vec<PathBuf>,
    /// What is restarted.
    pub restart: RestartScope,
    /// Free space that is needed.
    pub space: Vec<Need>,
    /// Up to where the node can go back to the release that it has.
    pub way_back: WayBack,
    /// The local changes in the folders of its modules, as the releases before it on the way leave them, and what becomes of them.
    pub local_changes: Vec<ModuleOutlook>,
    /// Texts of the release for the operator.
    pub notices: Vec<String>,
}

/// What happens to one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModulePlan {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: Option<String>,
    /// The install policy.
    pub policy: &'static str,
    /// Where it is installed; absent where its policy has no folder of its own.
    pub dest: Option<PathBuf>,
    /// What is installed instead of a folder: packages, images, a command.
    pub contents: Vec<String>,
    /// Bytes of its images that are not on the node yet.
    pub image_bytes: u64,
    /// Its artifact.
    pub sha256: Digest,
    /// The artifact's size in bytes.
    pub bytes: u64,
    /// Why it is not installed, when it is not.
    pub skip: Option<&'static str>,
}

/// The modules of `release` for a node with `roles`, in the order of their installation.
///
/// A release document whose modules wait for each other was refused when it was read, so an order exists.
pub fn modules_for<'a>(release: &'a Release, roles: &[String]) -> Vec<&'a Module> {
    release
        .install_order()
        .unwrap_or_default()
        .into_iter()
        .filter(|module| module.is_for(roles))
        .collect()
}

/// What is saved before an upgrade to `release`: its state paths and everything that a module of the node replaces.
///
/// A path below another one of them is left out; a `versioned` module replaces only its link.
pub fn backup_paths(release: &Release, roles: &[String]) -> BTreeSet<PathBuf> {
    let replaced = modules_for(release, roles)
        .into_iter()
        .filter_map(|module| match &module.install {
            Install::Versioned { dest, link, .. } => {
                Some(link.clone().unwrap_or_else(|| dest.join("current")))
            }
            Install::Replace { dest } | Install::Overlay { dest, .. } => Some(dest.clone()),
            Install::Package { .. } | Install::Image { .. } | Install::Exec { .. } => None,
        });
    let all: BTreeSet<PathBuf> = release.backup.iter().cloned().chain(replaced).collect();
    let is_outermost = |path: &&PathBuf| !path.ancestors().skip(1).any(|above| all.contains(above));
    all.iter().filter(is_outermost).cloned().collect()
}

/// Makes the plan.
pub fn plan(facts: &NodeFacts, release: &Release, release_digest: Digest, now: Timestamp) -> NodePlan {
    let modules: Vec<_> = modules_for(release, &facts.roles)
        .into_iter()
        .filter_map(|module| module_plan(facts, release, module))
        .collect();
    let backup = backup_paths(release, &facts.roles);
    let retire = facts
        .roles
        .iter()
        .find(|role| facts.retire_roles.iter().any(|r| r.eq_ignore_ascii_case(role)))
        .filter(|_| facts.can_retire && interrupts(facts, release))
        .cloned();
    let names: BTreeSet<&str> = modules.iter().map(|module| module.name.as_str()).collect();
    NodePlan {
        schema: SCHEMA,
        node: facts.node.clone(),
        roles: facts.roles.clone(),
        from: facts.installed.clone(),
        to: release.version.clone(),
        channel: release.channel.clone(),
        patch: release.patch.as_ref().map(|patch| patch.name.clone()),
        release_digest,
        made: now,
        is_tolerant: facts.is_tolerant,
        tolerance_asked: facts.tolerance_asked,
        steps: steps(&modules, retire.is_some()),
        dropped: facts
            .installed_modules
            .iter()
            // A patch drops nothing: what it does not speak of stays.
            .filter(|name| release.patch.is_none() && !names.contains(name.as_str()))
            .cloned()
            .collect(),
        download_bytes: needs::download(facts, &modules),
        retire,
        missing: release
            .backup
            .iter()
            .filter(|path| !facts.sizes.contains_key(*path))
            .cloned()
            .collect(),
        restart: release.restart,
        way_back: WayBack::of(facts, release, &modules),
        space: needs::space(facts, release, &modules, &backup),
        local_changes: facts.local_changes.clone(),
        notices: release
            .notices
            .iter()
            .filter(|notice| notice.when == NoticeWhen::Plan)
            .map(|notice| notice.text.clone())
            .collect(),
        modules,
        backup,
    }
}

/// Whether work on the node would be interrupted. A release is more than its restart; a patch that restarts nothing, or is told
/// not to, changes files under what runs.
fn interrupts(facts: &NodeFacts, release: &Release) -> bool {
    let modules = modules_for(release, &facts.roles);
    let restarts =
        release.restart != RestartScope::None || modules.iter().any(|module| !module.restart.is_empty());
    release.patch.is_none() || (restarts && facts.restarts == Restarts::Kato)
}

fn module_plan(facts: &NodeFacts, release: &Release, module: &Module) -> Option<ModulePlan> {
    // A release document that names an artifact it does not list was refused when it was read.
    let artifact = release.artifacts.get(&module.artifact)?;
    Some(ModulePlan {
        name: module.name.clone(),
        version: module.version.clone(),
        policy: module.install.policy(),
        dest: module.install.dest().map(Path::to_owned),
        contents: module.install.contents(),
        image_bytes: image_bytes(facts, &module.install),
        sha256: artifact.sha256,
        bytes: artifact.size,
        skip: facts
            .latches
            .get(&module.name)
            .and_then(|verdict| skip_reason(*verdict)),
    })
}

/// Why a module with this latch is not installed; `None` when it is.
pub const fn skip_reason(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Missing | Verdict::Stale => None,
        Verdict::Installed => Some("its latch says that it is installed"),
        Verdict::ByHand => Some("a latch made by hand says that it is installed"),
    }
}

fn steps(modules: &[ModulePlan], retires: bool) -> Vec<String> {
    let mut steps: Vec<String> = ["version-check", "stage", "self-update", "preflight"]
        .map(Into::into)
        .into();
    steps.extend(retires.then(|| "retire".into()));
    steps.push("backup".into());
    steps.extend(modules.iter().map(|module| format!("module:{}", module.name)));
    steps.extend(["restart", "verify"].map(Into::into));
    steps.extend(retires.then(|| "rejoin".into()));
    steps.push("record".into());
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release() -> Release {
        let sha = |n: u8| Digest::of(&[n]);
        let document = json!({
            "schema": 1, "product": "demo", "version": "2.0.0", "published": "2026-01-01T00:00:00Z",
            "artifacts": {
                "a": {"target": "artifacts/a", "sha256": sha(1), "size": 100},
                "b": {"target": "artifacts/b", "sha256": sha(2), "size": 10},
            },
            "modules": [
                {"name": "etc", "artifact": "b", "roles": ["*"], "after": ["web"], "unpacked_size": 30,
                 "install": {"policy": "overlay", "dest": "/s/etc"}},
                {"name": "web", "artifact": "a", "roles": ["controller"], "unpacked_size": 300,
                 "install": {"policy": "replace", "dest": "/s/code/web"}},
                {"name": "runtime", "artifact": "a", "roles": ["dea"],
                 "install": {"policy": "versioned", "dest": "/s/runtime"}},
            ],
            "backup": ["/s/code", "/s/state"],
            "notices": [{"when": "plan", "text": "mind the gap"}, {"when": "success", "text": "reload"}],
        });
        Release::from_json("r", &serde_json::to_vec(&document).unwrap()).unwrap()
    }

    fn facts(roles: &[&str]) -> NodeFacts {
        NodeFacts {
            node: "n1".into(),
            roles: roles.iter().map(ToString::to_string).collect(),
            installed: Some(Version::new(1, 0, 0)),
            retire_roles: vec!["dea".into()],
            can_retire: true,
            sizes: [("/s/code".into(), 1000), ("/s/etc".into(), 50)].into(),
            staging: "/var/staging".into(),
            backups: "/var/backup".into(),
            ..NodeFacts::default()
        }
    }

    fn made(facts: &NodeFacts) -> NodePlan {
        plan(facts, &release(), Digest::of(b"r"), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn r40_only_the_modules_of_the_nodes_roles_in_dependency_order() {
        let steps = made(&facts(&["controller"])).steps;
        assert_eq!(
            steps.join(" "),
            "version-check stage self-update preflight backup module:web module:etc restart verify record"
        );
    }

    #[test]
    fn r38_only_nodes_with_a_retire_role_are_retired_and_only_where_the_platform_can() {
        let mut dea = facts(&["DEA"]);
        let plan = made(&dea);
        assert_eq!(plan.retire.as_deref(), Some("DEA"));
        let order = plan.steps.join(" ");
        assert!(
            order.contains("preflight retire backup") && order.contains("verify rejoin record"),
            "{order}"
        );
        dea.can_retire = false;
        assert_eq!(made(&dea).retire, None);
    }

    #[test]
    fn r70_a_patch_retires_the_node_when_it_restarts_something_and_nobody_else_does() {
        let retire = |restart: RestartScope, of_module: &[&str], restarts| {
            let mut patch = release();
            patch.restart = restart;
            patch.modules[0].restart = of_module.iter().map(ToString::to_string).collect();
            patch.patch = Some(
                serde_json::from_value(
                    json!({"id": 1, "name": "p", "summary": "s", "severity": "required", "roles": ["*"]}),
                )
                .unwrap(),
            );
            let mut facts = facts(&["dea"]);
            facts.restarts = restarts;
            plan(&facts, &patch, Digest::of(b"r"), Timestamp::UNIX_EPOCH).retire
        };
        let retired = Some("dea".to_owned());
        assert_eq!(retire(RestartScope::Services, &[], Restarts::Kato), retired);
        assert_eq!(retire(RestartScope::Reboot, &[], Restarts::Kato), retired);
        assert_eq!(retire(RestartScope::None, &["etc"], Restarts::Kato), retired);
        assert_eq!(retire(RestartScope::None, &[], Restarts::Kato), None);
        assert_eq!(retire(RestartScope::Services, &[], Restarts::Operator), None);
    }

    #[test]
    fn r49_a_latched_module_is_planned_as_skipped() {
        let mut facts = facts(&["controller"]);
        facts.latches.insert("web".into(), Verdict::Installed);
        facts.latches.insert("etc".into(), Verdict::Stale);
        let skipped: Vec<_> = made(&facts).modules.iter().map(|m| m.skip.is_some()).collect();
        assert_eq!(skipped, [true, false]);
    }

    #[test]
    fn c13_space_counts_what_is_missing_what_is_saved_and_what_is_unpacked() {
        let mut facts = facts(&["controller"]);
        let bytes =
            |facts: &NodeFacts| -> Vec<u64> { made(facts).space.iter().map(|need| need.bytes).collect() };
        assert_eq!(bytes(&facts), [110, 1050, 0, 300, 60]);
        facts.staged.insert(Digest::of(&[1]));
        facts.is_backed_up = true;
        facts.latches.insert("web".into(), Verdict::Installed);
        assert_eq!(bytes(&facts), [10, 0, 60]);
    }

    #[test]
    fn r39_a_path_below_another_is_saved_once_and_missing_state_is_named() {
        let plan = made(&facts(&["controller"]));
        let backup: Vec<_> = plan.backup.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(backup, ["/s/code", "/s/etc", "/s/state"]);
        assert_eq!(plan.missing, [PathBuf::from("/s/state")]);
        assert_eq!(plan.notices, ["mind the gap"]);
    }

    #[test]
    fn modules_that_the_release_has_no_more_are_named() {
        let mut facts = facts(&["controller"]);
        facts.installed_modules = ["etc", "gone"].map(Into::into).into();
        assert_eq!(made(&facts).dropped, ["gone"]);
    }
}
