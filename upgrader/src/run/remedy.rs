//! What an operator does about a file that cannot be used: by what the file is, and by what the system said. Pure.
//!
//! A document of the state folder that is damaged ends the command with an exit code of its own, [`Exit::Damaged`]: trying again
//! does not help, and nothing is ever guessed in its place.

use std::{io, path::Path};

use kato_shared::durable;
use rustix::io::Errno;

use crate::{
    document::DocumentError,
    exit::{Exit, Failure},
};

/// What to do about a full disk.
pub const FREE_SPACE: &str = "free space there, then run the same command again";

/// What to do about what the system refused, when it is about a file or a folder.
pub fn of_io(error: &io::Error) -> &'static str {
    use io::ErrorKind as Kind;
    let is = |kinds: &[Kind]| kinds.contains(&error.kind());
    if durable::is_disk_full(error) {
        FREE_SPACE
    } else if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) {
        "a link on this path leads back to itself; remove it, then run the same command again"
    } else if is(&[Kind::PermissionDenied]) {
        "run it as root; if you are, look at the attributes of the file (`lsattr`) and at how its file system is mounted"
    } else if is(&[Kind::ReadOnlyFilesystem]) {
        "the file system is mounted read-only: look for its errors (`dmesg`), mount it read-write, then run the same command again"
    } else if is(&[Kind::NotFound]) {
        "a folder or file on this path is missing, or a link leads nowhere; put it right, then run the same command again"
    } else if is(&[Kind::NotADirectory, Kind::IsADirectory, Kind::AlreadyExists]) {
        "something else is in its place: look at every part of the path, move it away, then run the same command again"
    } else if is(&[Kind::InvalidFilename]) {
        "a name on this path is too long for its file system; shorten it"
    } else if is(&[Kind::ResourceBusy, Kind::ExecutableFileBusy]) {
        "another program uses it (`fuser -v` on the path says which), or it is a mount point (`findmnt`); set it free, then run the same command again"
    } else {
        "look at the disk and its file system (`dmesg`), then run the same command again"
    }
}

/// How a command ends with a document that cannot be used, and what to do about it.
pub fn of_document(error: &DocumentError) -> (Exit, String) {
    match error {
        DocumentError::Damaged { path, .. } | DocumentError::Empty { path, .. } => {
            (Exit::Damaged, of_damaged(path).to_owned())
        }
        DocumentError::Read { source, .. } => (Exit::Failed, of_io(source).to_owned()),
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        let (exit, hint) = of_document(&error);
        Self::new(exit, error).hint(hint)
    }
}

/// What to do about the damaged document at `path`, by its place in the state folder.
pub fn of_damaged(path: &Path) -> &'static str {
    let ends = |with: &str| path.ends_with(with);
    let is_below = |folder: &str| path.parent().is_some_and(|parent| parent.ends_with(folder));
    if ends("state/installed.json") || ends("state/patches/record.json") {
        "every backup has a copy (`kato node backup list`; in its files.tar.zst): put the newest in its place, then run the same command again"
    } else if ends("state/upgrade.json") {
        "move it away, then run the same command again: it goes on by what the upgrade has left on this node; `kato node restore latest` \
         gives the upgrade up instead"
    } else if ends("state/out-of-service.json") {
        "`kato node rejoin` puts the node into service and writes the record off; `kato node retire` takes it out"
    } else if ends("state/quarantine.json") {
        "move it away, then run the same command again; a release that was rolled back here is then tried once more"
    } else if ends("state/restore.json") {
        "move it away and restore the same backup again (`kato node restore`): its first version of the files is then in the backup alone"
    } else if ends("state/maintenance.json") {
        "`kato maintenance off` turns the mode off; then move the file away"
    } else if ends("state/platform.json") {
        "it names what was stopped when the node was retired: start that by hand, move the file away, then run `kato node rejoin`"
    } else if ends("state/fence.json") || ends("state/cluster-lease.json") {
        "when no orchestrator is at work (`kato lock show` on Core), move it away; the next one writes it anew"
    } else if ends("state/plan.json") {
        "`kato node list` shows how far the nodes are: move it away, then run the same command with `--version` and the release that was on its way; \
         a pause of that plan is gone with it"
    } else if ends("state/patches/list.json") {
        "move it away; `kato patch update` fetches the list anew"
    } else if is_below("state/work") {
        "move it away, then run the same command again: its module is installed anew"
    } else if is_below("state/undo") {
        "the way back of its module is lost: move the file away and go forward with `kato node upgrade --force`, or bring the backup back with `kato node restore latest`"
    } else if ends("manifest.json") {
        "it belongs to one backup or archive: choose another (`kato node backup list`, `kato customizations list`)"
    } else {
        "it was written by kato and changed by something else: move it away, then run the same command again"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::paths::NodePaths;

    #[test]
    fn c11_every_document_of_the_state_folder_has_its_own_remedy() {
        let paths = NodePaths::new(Path::new("/"), Path::new("/var/stackato/upgrade"));
        let documents = [
            paths.installed(),
            paths.attempt(),
            paths.ownership(),
            paths.quarantine(),
            paths.restoration(),
            paths.maintenance(),
            paths.platform_notes(),
            paths.fence(),
            paths.patch_list(),
            paths.state_dir().join("state/plan.json"),
            paths.work().join("web.json"),
            paths.undo().join("001-web.json"),
            paths.backups().join("b1/manifest.json"),
            paths.state_dir().join("state/other.json"),
        ];
        let remedies: BTreeSet<_> = documents.iter().map(|path| of_damaged(path)).collect();
        assert_eq!(remedies.len(), documents.len(), "{remedies:#?}");
    }

    #[test]
    fn c11_only_what_root_could_do_is_answered_with_root() {
        let said = |errno: Errno| of_io(&io::Error::from(errno));
        for errno in [Errno::ACCESS, Errno::PERM] {
            assert!(said(errno).contains("root"), "{errno}");
        }
        for errno in [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::NOENT,
            Errno::NOTDIR,
            Errno::ISDIR,
            Errno::EXIST,
            Errno::LOOP,
            Errno::NAMETOOLONG,
            Errno::BUSY,
            Errno::TXTBSY,
            Errno::IO,
            Errno::ILSEQ,
        ] {
            assert!(!said(errno).contains("root"), "{errno}: {}", said(errno));
        }
        for (errno, word) in [
            (Errno::NOSPC, "free space"),
            (Errno::ROFS, "read-only"),
            (Errno::NOTDIR, "something else is in its place"),
            (Errno::LOOP, "back to itself"),
            (Errno::NAMETOOLONG, "too long"),
            (Errno::IO, "dmesg"),
        ] {
            assert!(said(errno).contains(word), "{errno}: {}", said(errno));
        }
    }
}
