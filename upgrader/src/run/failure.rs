//! How each error of a run ends the command, and what its operator should do next.

use std::path::Path;

use kato_shared::durable::DurableError;

use crate::{
    backup::BackupError,
    document::DocumentError,
    exit::{Exit, Failure},
    journal::JournalError,
    jsonl::LinesError,
    latch::LatchError,
    lock::LockError,
    module::ModuleError,
    platform::PlatformError,
    self_update::SelfUpdateError,
};

const AGAIN: &str = "run the same command again; modules that are done are skipped";
const FREE_SPACE: &str = "free space there, then run the same command again";

impl From<DurableError> for Failure {
    fn from(error: DurableError) -> Self {
        let hint = if error.is_disk_full() {
            FREE_SPACE
        } else {
            "check the permissions of the folder and the file system, then run the same command again"
        };
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<LinesError> for Failure {
    fn from(error: LinesError) -> Self {
        let hint = match &error {
            LinesError::Damaged { .. } => "look at the file; moved out of the way, a new one is begun",
            LinesError::Io { .. } | LinesError::Append(_) => {
                "check free space and the permissions of the state folder, then run the same command again"
            }
        };
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Lines(lines) => lines.into(),
            JournalError::Newer { .. } => Self::new(Exit::Preflight, error)
                .hint("nothing was changed; a newer kato was at work here: run that one, or bring it back with fix-kato.sh"),
        }
    }
}

impl From<DocumentError> for Failure {
    fn from(error: DocumentError) -> Self {
        let is_backed_up = |path: &Path| path.ends_with("state/installed.json");
        let hint = match &error {
            DocumentError::Damaged { path, .. } | DocumentError::Empty { path, .. } if is_backed_up(path) => {
                "every backup has a copy (`kato node backup list`; in its files.tar.zst): put the newest in its place, then run the same command again"
            }
            DocumentError::Damaged { .. } | DocumentError::Empty { .. } | DocumentError::Read { .. } => {
                "look at the file; it was written by kato and should not have been changed"
            }
        };
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<LatchError> for Failure {
    fn from(error: LatchError) -> Self {
        Self::new(Exit::Failed, error).hint("check the permissions of the latch folder")
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { .. } => Self::new(Exit::LockHeld, error)
                .hint("wait for it, or follow it with `kato node upgrade --status`; `kato lock show` says whether its holder is alive"),
            LockError::Io { .. } | LockError::Durable(_) => Self::new(Exit::Preflight, error)
                .hint("kato needs to write to its state folder; run it as root"),
        }
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        let (exit, hint) = match &error {
            _ if error.is_refusal() => (
                Exit::Trust,
                "delete the file from the staging folder and run the same command again".to_owned(),
            ),
            _ if error.is_disk_full() => (Exit::Failed, FREE_SPACE.to_owned()),
            ModuleError::Conflict { dest, .. } => (
                Exit::Failed,
                format!(
                    "move your changes out of {} and run the same command again",
                    dest.display()
                ),
            ),
            ModuleError::Lost { kept, .. } => (
                Exit::Failed,
                format!("unpack it from the backup of this upgrade to {}", kept.display()),
            ),
            ModuleError::OutsideRoot { .. } => (
                Exit::Failed,
                "let the link point to a folder below the root".to_owned(),
            ),
            ModuleError::Busy { .. } => (
                Exit::Failed,
                "wait for it or stop it, then run the same command again".to_owned(),
            ),
            ModuleError::NoRuntime { .. } => (
                Exit::Failed,
                "start the container runtime, or name it in kato.toml ([images] runtime, command), then run the same command again"
                    .to_owned(),
            ),
            ModuleError::NotBack { .. } => (
                Exit::Failed,
                "set it right by hand and run the same command again".to_owned(),
            ),
            ModuleError::Command { .. }
            | ModuleError::Undone { .. }
            | ModuleError::Unpack(_)
            | ModuleError::Durable(_)
            | ModuleError::Note(_)
            | ModuleError::Io { .. }
            | ModuleError::Differs { .. } => (Exit::Failed, AGAIN.to_owned()),
        };
        Self::new(exit, error).hint(hint)
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        // Nothing of the node was changed before its backup is whole, or before what is restored is staged.
        let (exit, hint) = match &error {
            _ if error.is_disk_full() => (Exit::Preflight, FREE_SPACE),
            _ if error.is_altered() => (
                Exit::Trust,
                "nothing was changed; choose another backup, `kato node backup verify` tells which are whole",
            ),
            BackupError::Unknown { .. } => (Exit::Usage, "`kato node backup list` shows what there is"),
            BackupError::SecondName { .. } => (Exit::Usage, "name the folder that holds both instead"),
            BackupError::Io { .. }
            | BackupError::Durable(_)
            | BackupError::Document(_)
            | BackupError::Digest { .. }
            | BackupError::Altered { .. } => (Exit::Preflight, AGAIN),
        };
        Self::new(exit, error).hint(hint)
    }
}

impl From<PlatformError> for Failure {
    fn from(error: PlatformError) -> Self {
        let hint = match &error {
            PlatformError::Command { setting, .. } => format!(
                "try the command that is named above by hand, and look at `{setting}` in kato.toml; then run the same command again"
            ),
            PlatformError::Output { verb, .. } => {
                format!("look at what the platform prints for `{verb}`; then run the same command again")
            }
            PlatformError::Refused { .. } => AGAIN.to_owned(),
            PlatformError::Notes { .. } => FREE_SPACE.to_owned(),
        };
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<SelfUpdateError> for Failure {
    fn from(error: SelfUpdateError) -> Self {
        let (exit, hint) = match &error {
            SelfUpdateError::TooOld { .. } => (
                Exit::Preflight,
                "install a newer kato on this node by hand, then run the same command again",
            ),
            SelfUpdateError::Loop { .. } => (Exit::Bug, "look at what the link of kato points to"),
            SelfUpdateError::Io { .. }
            | SelfUpdateError::Durable(_)
            | SelfUpdateError::SelfTest { .. }
            | SelfUpdateError::Altered { .. } => (
                Exit::Failed,
                "kato itself is unchanged; run the same command again",
            ),
        };
        Self::new(exit, error).hint(hint)
    }
}
