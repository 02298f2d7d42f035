//! Where a node keeps what belongs to an upgrade. All paths are below the node's root, so that tests and
//! demonstrations can run several nodes on one machine.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

/// The folders and files of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePaths {
    root: PathBuf,
    state_dir: PathBuf,
}

impl NodePaths {
    /// Paths below `root` (usually `/`) with the state folder `state_dir`, e.g. `/var/stackato/upgrade`.
    pub fn new(root: &Path, state_dir: &Path) -> Self {
        Self {
            root: root.to_owned(),
            state_dir: below(root, state_dir),
        }
    }

    /// The node's root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path of the release or the settings, below the node's root.
    pub fn on_node(&self, path: &Path) -> PathBuf {
        below(&self.root, path)
    }

    /// The state folder itself.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The folders of `kato` in the state folder that it writes to and cleans up.
    pub fn folders(&self) -> Vec<PathBuf> {
        let own = [
            self.state_dir.join("tmp"),
            self.latches(),
            self.state_dir.join("state"),
            self.commands(),
            self.core_commands(),
            self.work(),
            self.undo(),
            self.state_dir.join("state/patches"),
            self.patches_kept(),
            self.notifications(),
            self.trust(),
            self.log(),
            self.audit(),
            self.staging(),
            self.restored(),
            self.backups(),
            self.pristine(),
            self.customizations(),
            self.packages(),
            self.slots(),
            self.slots().join("a"),
            self.slots().join("b"),
        ];
        own.into()
    }

    /// The first of [`Self::folders`] that is a symbolic link: what is behind it may be somebody else's, and to clean it up would
    /// destroy that. The state folder itself may be a link, as it may be anywhere.
    pub fn linked_folder(&self) -> Option<PathBuf> {
        self.folders().into_iter().find(|folder| folder.is_symlink())
    }

    /// One file per installed module; an operator may delete one to have it installed again.
    pub fn latches(&self) -> PathBuf {
        self.state_dir.join("tmp/module-latches")
    }

    /// The failure marker: there while the last run failed.
    pub fn failure_marker(&self) -> PathBuf {
        self.state_dir.join("tmp/upgrade-failed")
    }

    /// The journal of acts, the truth about the run.
    pub fn journal(&self) -> PathBuf {
        self.state_dir.join("state/journal.jsonl")
    }

    /// The event stream that an orchestrator follows.
    pub fn events(&self) -> PathBuf {
        self.state_dir.join("state/events.jsonl")
    }

    /// The lock of a run on this node.
    pub fn lock(&self) -> PathBuf {
        self.state_dir.join("state/lock")
    }

    /// The lock of an upgrade of the cluster that was started on this node.
    pub fn cluster_lock(&self) -> PathBuf {
        self.state_dir.join("state/cluster.lock")
    }

    /// What the last orchestrator that was started on this node says of itself.
    pub fn cluster_lease(&self) -> PathBuf {
        self.state_dir.join("state/cluster-lease.json")
    }

    /// The highest token that an orchestrator has shown to this node.
    pub fn fence(&self) -> PathBuf {
        self.state_dir.join("state/fence.json")
    }

    /// A note for each command that a run has at work, so that the next one can end what a killed one left.
    pub fn commands(&self) -> PathBuf {
        self.state_dir.join("state/commands")
    }

    /// The same for the commands that Core runs for the whole cluster, which need no lock of its own node.
    pub fn core_commands(&self) -> PathBuf {
        self.state_dir.join("state/core-commands")
    }

    /// What is installed: version, release digest, time.
    pub fn installed(&self) -> PathBuf {
        self.state_dir.join("state/installed.json")
    }

    /// The upgrade that the node is in the middle of.
    pub fn attempt(&self) -> PathBuf {
        self.state_dir.join("state/upgrade.json")
    }

    /// There while we have taken the node out of service.
    pub fn ownership(&self) -> PathBuf {
        self.state_dir.join("state/out-of-service.json")
    }

    /// There while an upgrade that was started on this node has the platform's licence limits waived.
    pub fn licence(&self) -> PathBuf {
        self.state_dir.join("state/licence.json")
    }

    /// There while an upgrade that was started on this node has the platform's maintenance mode on.
    pub fn maintenance(&self) -> PathBuf {
        self.state_dir.join("state/maintenance.json")
    }

    /// What an adapter has to remember about the platform while the node is out of service.
    pub fn platform_notes(&self) -> PathBuf {
        self.state_dir.join("state/platform.json")
    }

    /// One note for each module that is being installed.
    pub fn work(&self) -> PathBuf {
        self.state_dir.join("state/work")
    }

    /// The undo journal: one note for each module that was changed.
    pub fn undo(&self) -> PathBuf {
        self.state_dir.join("state/undo")
    }

    /// Releases that were rolled back on this node.
    pub fn quarantine(&self) -> PathBuf {
        self.state_dir.join("state/quarantine.json")
    }

    /// Which patches the node has.
    pub fn patches(&self) -> PathBuf {
        self.state_dir.join("state/patches/record.json")
    }

    /// The list of patches as it was last seen, verified.
    pub fn patch_list(&self) -> PathBuf {
        self.state_dir.join("state/patches/list.json")
    }

    /// What the patch `name` replaced, and its document, for the day when it is taken back.
    pub fn patch_kept(&self, name: &str) -> PathBuf {
        self.patches_kept().join(name)
    }

    /// What all patches replaced.
    pub fn patches_kept(&self) -> PathBuf {
        self.state_dir.join("state/patches/kept")
    }

    /// The output of detached runs.
    pub fn log(&self) -> PathBuf {
        self.state_dir.join("log")
    }

    /// The audit log: who did what to this node.
    pub fn audit(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// Notifications that could not be delivered yet.
    pub fn notifications(&self) -> PathBuf {
        self.state_dir.join("state/notify")
    }

    /// The TUF client's memory: the newest metadata seen, against rollback.
    pub fn trust(&self) -> PathBuf {
        self.state_dir.join("state/trust")
    }

    /// Downloaded artifacts by digest.
    pub fn staging(&self) -> PathBuf {
        self.state_dir.join("staging")
    }

    /// The restoration that the node is in the middle of, or that can be taken back.
    pub fn restoration(&self) -> PathBuf {
        self.state_dir.join("state/restore.json")
    }

    /// What complete restorations have replaced, until the next upgrade or restoration.
    pub fn restored(&self) -> PathBuf {
        self.state_dir.join("restored")
    }

    /// Backups, one folder each.
    pub fn backups(&self) -> PathBuf {
        self.state_dir.join("backup")
    }

    /// Archives of the installed release, from which its files can be read as they were.
    pub fn pristine(&self) -> PathBuf {
        self.state_dir.join("pristine")
    }

    /// Saved local changes, one folder each.
    pub fn customizations(&self) -> PathBuf {
        self.state_dir.join("customizations")
    }

    /// The `.deb` files of what is installed, a folder for each module: what the next upgrade goes back with.
    pub fn packages(&self) -> PathBuf {
        self.state_dir.join("packages")
    }

    /// The two slots of `kato` itself.
    pub fn slots(&self) -> PathBuf {
        self.state_dir.join("bin")
    }

    /// The script that brings `kato` back without network and without `kato`.
    pub fn fix_kato(&self) -> PathBuf {
        self.state_dir.join("fix-kato.sh")
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The way from the folder of `link` to `target`, for a symbolic link that holds when the root is moved or mounted
/// elsewhere.
///
/// # Errors
/// When one of the two folders does not exist.
pub fn relative(link: &Path, target: &Path) -> io::Result<PathBuf> {
    let folder = link.parent().unwrap_or(Path::new("/")).canonicalize()?;
    // The last component stays as it is: it may itself be a link.
    let target = match (target.parent(), target.file_name()) {
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        _ => target.canonicalize()?,
    };
    let common = folder
        .components()
        .zip(target.components())
        .take_while(|(one, two)| one == two)
        .count();
    let up = folder.components().skip(common).map(|_| Component::ParentDir);
    Ok(up.chain(target.components().skip(common)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r50_latches_and_marker_are_at_the_documented_paths() {
        let paths = NodePaths::new(Path::new("/"), Path::new("/var/stackato/upgrade"));
        assert_eq!(
            paths.latches(),
            Path::new("/var/stackato/upgrade/tmp/module-latches")
        );
        assert_eq!(
            paths.failure_marker(),
            Path::new("/var/stackato/upgrade/tmp/upgrade-failed")
        );
        assert_eq!(paths.fix_kato(), Path::new("/var/stackato/upgrade/fix-kato.sh"));
    }

    #[test]
    fn everything_is_below_the_root() {
        let paths = NodePaths::new(Path::new("/tmp/n1"), Path::new("/var/lib/kato"));
        assert_eq!(
            paths.journal(),
            Path::new("/tmp/n1/var/lib/kato/state/journal.jsonl")
        );
        assert_eq!(paths.on_node(Path::new("/s/etc")), Path::new("/tmp/n1/s/etc"));
    }
}
