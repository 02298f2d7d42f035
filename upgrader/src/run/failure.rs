//! How each error of a run ends the command, and what its operator should do next.

use kato_shared::durable::DurableError;

use crate::{
    backup::BackupError,
    exit::{Exit, Failure},
    journal::JournalError,
    jsonl::LinesError,
    latch::LatchError,
    lock::LockError,
    module::{ModuleError, unpack::UnpackError},
    platform::PlatformError,
    self_update::SelfUpdateError,
};

use super::remedy::{self, FREE_SPACE};

const AGAIN: &str = "run the same command again; modules that are done are skipped";

impl From<DurableError> for Failure {
    fn from(error: DurableError) -> Self {
        let hint = remedy::of_io(&error.source);
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<LinesError> for Failure {
    fn from(error: LinesError) -> Self {
        let (exit, hint) = match &error {
            LinesError::Damaged { .. } => (
                Exit::Damaged,
                "look at the line; with the file moved away, the same command goes on with a new one",
            ),
            LinesError::Io { source, .. } => (Exit::Failed, remedy::of_io(source)),
            LinesError::Append(error) => (Exit::Failed, remedy::of_io(&error.source)),
        };
        Self::new(exit, error).hint(hint)
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

impl From<LatchError> for Failure {
    fn from(error: LatchError) -> Self {
        let hint = match &error {
            LatchError::Read { source, .. } => remedy::of_io(source),
            LatchError::Write(error) => remedy::of_io(&error.source),
        };
        Self::new(Exit::Failed, error).hint(hint)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        match &error {
            LockError::Held { .. } => Self::new(Exit::LockHeld, error)
                .hint("wait for it, or follow it with `kato node upgrade --status`; `kato lock show` says whether its holder is alive"),
            LockError::Io { source, .. } => {
                let hint = remedy::of_io(source);
                Self::new(Exit::Preflight, error).hint(hint)
            }
            LockError::Durable(inner) => {
                let hint = remedy::of_io(&inner.source);
                Self::new(Exit::Preflight, error).hint(hint)
            }
        }
    }
}

impl From<ModuleError> for Failure {
    fn from(error: ModuleError) -> Self {
        let (exit, hint) = match &error {
            ModuleError::Unpack(UnpackError::Disagrees { .. } | UnpackError::Entry { .. }) => (
                Exit::Trust,
                "its publisher signed a list that is not that of the archive: have the release built and published anew".to_owned(),
            ),
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
            ModuleError::NoNote { .. } => (
                Exit::Failed,
                "`kato node restore latest` brings the node back from the backup of this upgrade".to_owned(),
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
            ModuleError::Silent { .. } | ModuleError::Unclear { .. } => (
                Exit::Failed,
                "see to it that the container runtime answers, or name the right one in kato.toml ([images] runtime, command), then run the same command again"
                    .to_owned(),
            ),
            ModuleError::NotBack { .. } => (
                Exit::Failed,
                "set it right by hand and run the same command again".to_owned(),
            ),
            ModuleError::Note(note) => remedy::of_document(note),
            ModuleError::Io { source, .. } | ModuleError::Unpack(UnpackError::Write { source, .. }) => {
                (Exit::Failed, remedy::of_io(source).to_owned())
            }
            ModuleError::Durable(error) => (Exit::Failed, remedy::of_io(&error.source).to_owned()),
            ModuleError::Command { .. }
            | ModuleError::Undone { .. }
            | ModuleError::Unpack(_)
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
            BackupError::Document(document) => {
                return document_of_backup(remedy::of_document(document), error);
            }
            BackupError::Io { source, .. } => (Exit::Preflight, remedy::of_io(source)),
            BackupError::Durable(inner) => (Exit::Preflight, remedy::of_io(&inner.source)),
            BackupError::Digest { .. } | BackupError::Altered { .. } => (Exit::Preflight, AGAIN),
        };
        Self::new(exit, error).hint(hint)
    }
}

/// What was begun of a backup or a restoration had changed nothing.
fn document_of_backup((exit, hint): (Exit, String), error: BackupError) -> Failure {
    let exit = if exit == Exit::Failed {
        Exit::Preflight
    } else {
        exit
    };
    Failure::new(exit, error).hint(hint)
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
            SelfUpdateError::Settings { .. } => (Exit::Preflight, crate::self_update::MEND),
            SelfUpdateError::Loop { .. } => (Exit::Bug, "look at what the link of kato points to"),
            SelfUpdateError::Io { .. }
            | SelfUpdateError::Durable(_)
            | SelfUpdateError::SelfTest { .. }
            | SelfUpdateError::Answer { .. }
            | SelfUpdateError::Altered { .. } => (
                Exit::Failed,
                "kato itself is unchanged; run the same command again",
            ),
        };
        Self::new(exit, error).hint(hint)
    }
}
