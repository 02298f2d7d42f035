//! The repository of the settings, as a node trusts it, and how a command ends when it does not.

use std::path::Path;

use kato_shared::{
    chain::Chain,
    trust::{TrustError, TrustKind, TrustedRepository},
};

use super::{Fetcher, error};
use crate::{
    exit::{Exit, Failure},
    settings::ReleaseSettings,
};

/// Loads and verifies the repository that `[release]` names; `datastore` is this node's memory of it.
///
/// # Errors
/// [`Failure`]: 2 when the trusted root cannot be read, 26 when it is no root or the metadata are refused, 75 when the
/// repository cannot be reached.
pub async fn trusted(
    fetcher: &Fetcher,
    release: &ReleaseSettings,
    datastore: &Path,
) -> Result<TrustedRepository, Failure> {
    let path = &release.trusted_root;
    let root = std::fs::read(path).map_err(|source| {
        let problem = anyhow::Error::new(source).context(format!("reading the trusted root `{}` failed", path.display()));
        Failure::new(Exit::Usage, problem)
            .hint("install the publisher's `root.json` from a trusted source, or name it in kato.toml: [release] trusted_root")
    })?;
    let loaded = fetcher.repository(&root, &release.url, datastore).await;
    loaded.map_err(|error| {
        let is_pinned_root = matches!(error, TrustError::PinnedRoot { .. });
        let mut failure = trust_failure(error);
        if is_pinned_root {
            let subject = format!("the trusted root `{}` cannot be used", path.display());
            failure.source = failure.source.context(subject);
        }
        failure
    })
}

/// How a command ends with a [`TrustError`]: 26 for a refusal, 75 for what may pass, 20 for a release that is not for
/// this node, 27 when what the node remembers cannot be read.
pub fn trust_exit(error: &TrustError) -> Exit {
    match error.kind() {
        TrustKind::Refused => Exit::Trust,
        TrustKind::Unreachable | TrustKind::Local => Exit::TryAgain,
        TrustKind::Unusable => Exit::Preflight,
        TrustKind::Damaged => Exit::Damaged,
    }
}

/// [`trust_exit`] with the error's own hint, ready to be returned by a command.
///
/// A failure of the way carries the fetcher's error inside; that one knows peer, cache and proxy, so its words win.
pub fn trust_failure(error: TrustError) -> Failure {
    let exit = trust_exit(&error);
    let Some(fetched) = error::inside(&error) else {
        let hint = error.hint().to_owned();
        return Failure::new(exit, error).hint(hint);
    };
    // It names peer and URL itself; what lies around it would only say them again.
    Failure::new(exit, anyhow::Error::msg(Chain(fetched).to_string())).hint(fetched.hint())
}
