//! The node's side: the highest token that an orchestrator has shown here. A smaller one is refused, whatever it asks for.
//!
//! Every command from Core carries its token, so the check stands before all of them (`kato --fence N …`). The first words of a
//! new orchestrator go to every node before it changes any: from then on its predecessor is refused everywhere.

use std::{
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
};

use jiff::Timestamp;
use kato_shared::{
    clock::Clock,
    durable::{self, DurableError},
};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::{
    document::{self, DocumentError},
    exit::{Exit, Failure},
    paths::NodePaths,
    run::remedy,
};

/// The version of the document.
const SCHEMA: u32 = 1;

/// What the node remembers: `state/fence.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The version of this format.
    pub schema: u32,
    /// The highest token that was shown.
    pub token: u64,
    /// When it was shown first.
    pub since: Timestamp,
}

/// Why an orchestrator is not obeyed.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// Another one has come after it.
    #[error(
        "another orchestrator has taken over: its token {newest} was shown here at {since}, this one has {token}"
    )]
    Superseded {
        /// The token of the refused one.
        token: u64,
        /// The highest that was shown.
        newest: u64,
        /// When.
        since: Timestamp,
    },
    /// The note is damaged. It is never taken for "nobody was here".
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The note cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// Two calls cannot be kept apart.
    #[error("locking `{path}` failed")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<FenceError> for Failure {
    fn from(error: FenceError) -> Self {
        let (exit, hint) = match &error {
            FenceError::Superseded { .. } => (
                Exit::LockHeld,
                "`kato lock show` on Core says who has the lock of the cluster".into(),
            ),
            FenceError::Document(document) => remedy::of_document(document),
            FenceError::Durable(error) => (Exit::Preflight, remedy::of_io(&error.source).into()),
            FenceError::Lock { source, .. } => (Exit::Preflight, remedy::of_io(source).into()),
        };
        Self::new(exit, error).hint(hint)
    }
}

/// What the node at `paths` remembers; `None` when no orchestrator was here.
///
/// # Errors
/// [`DocumentError`] when the note is damaged.
pub fn seen(paths: &NodePaths) -> Result<Option<Fence>, DocumentError> {
    document::read(&paths.fence(), "the highest token of an orchestrator")
}

/// Lets the orchestrator with `token` through, and remembers it when it is the highest so far.
///
/// # Errors
/// [`FenceError::Superseded`] when a higher one was here.
pub fn admit(paths: &NodePaths, token: u64, clock: &Clock) -> Result<(), FenceError> {
    let _one_at_a_time = guard(paths)?;
    match seen(paths)? {
        Some(newest) if newest.token > token => Err(FenceError::Superseded {
            token,
            newest: newest.token,
            since: newest.since,
        }),
        Some(same) if same.token == token => Ok(()),
        _lower_or_none => {
            let fence = Fence {
                schema: SCHEMA,
                token,
                since: clock.now(),
            };
            durable::write_json(&paths.fence(), &fence, 0o644)?;
            Ok(())
        }
    }
}

/// Two calls at once must not both read the old note and write the smaller token last.
fn guard(paths: &NodePaths) -> Result<File, FenceError> {
    let path = paths.fence().with_extension("lock");
    if let Some(folder) = path.parent() {
        durable::create_folder(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .and_then(|file| {
            rustix::fs::flock(&file, FlockOperation::LockExclusive)
                .map(|()| file)
                .map_err(Into::into)
        });
    file.map_err(|source| FenceError::Lock { path, source })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn c03_a_smaller_token_is_refused_for_good_and_a_greater_one_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(folder.path(), Path::new("/var/k"));
        let clock = Clock::held_at(Timestamp::UNIX_EPOCH);
        for token in [7, 7, 8] {
            admit(&paths, token, &clock).unwrap();
        }
        let refused = admit(&paths, 7, &clock).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "another orchestrator has taken over: its token 8 was shown here at 1970-01-01T00:00:00Z, this one has 7"
        );
        assert_eq!(Failure::from(refused).exit, Exit::LockHeld);
        assert_eq!(seen(&paths).unwrap().unwrap().token, 8);
    }

    #[test]
    fn c03_a_damaged_note_lets_nobody_through() {
        let folder = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(folder.path(), Path::new("/var/k"));
        durable::create_folder(paths.fence().parent().unwrap()).unwrap();
        durable::write(&paths.fence(), b"{", 0o644).unwrap();
        let refused = admit(&paths, 9, &Clock::held_at(Timestamp::UNIX_EPOCH));
        assert!(matches!(refused, Err(FenceError::Document(_))), "{refused:?}");
    }
}
