//! Looks at a repository as a node would, and further: every byte of every target, every release document.

use kato_shared::{
    release::{Version, layout},
    trust::{TrustError, TrustedRepository},
};
use serde::Serialize;

use super::sign::needs;

/// What was verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The product.
    pub product: String,
    /// The published versions, ascending.
    pub versions: Vec<Version>,
    /// How many targets there are.
    pub targets: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Reads every target of `repository` and every document in it; `progress` is told each target's name before.
///
/// # Errors
/// [`TrustError`] with the first target that is missing, altered, or contradicts another.
pub async fn verify(
    repository: &TrustedRepository,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Verified, TrustError> {
    let targets = repository.targets();
    // Documents are checked when they are read, below.
    let is_document = |name: &str| name == layout::GRAPH || layout::version_of(name).is_some();
    for target in targets.iter().filter(|target| !is_document(&target.name)) {
        progress(&target.name);
        repository.check(target).await?;
    }
    let graph = repository.graph().await?;
    let versions = repository.versions();
    if graph.versions() != versions {
        return Err(TrustError::contradiction(
            layout::GRAPH,
            "it does not list the releases that are published",
        ));
    }
    for version in &versions {
        let release = repository.release(version).await?;
        for (name, digest, size) in needs(&release) {
            let target = repository.target(name)?;
            if (target.digest, target.size) != (digest, size) {
                let problem = format!("it names other content for `{name}` than is signed");
                return Err(TrustError::contradiction(&layout::release(version), &problem));
            }
        }
    }
    Ok(Verified {
        product: graph.product,
        versions,
        targets: targets.len(),
        bytes: targets.iter().map(|target| target.size).sum(),
    })
}
