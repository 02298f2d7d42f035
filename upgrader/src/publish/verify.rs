//! Looks at a repository as a node would, and further: every byte of every target, every release document.

use kato_shared::{
    release::{PatchEntry, Release, Version, layout},
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
    /// The numbers of the published patches, ascending.
    pub patches: Vec<u32>,
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
    let is_document = |name: &str| {
        [layout::GRAPH, layout::PATCHES].contains(&name)
            || layout::version_of(name).is_some()
            || layout::patch_of(name).is_some()
    };
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
        agrees(repository, &release, &layout::release(version))?;
    }
    let list = repository.patches().await?;
    let patches = repository.patch_ids();
    if !list
        .patches
        .iter()
        .map(|entry| entry.id)
        .eq(patches.iter().copied())
    {
        return Err(TrustError::contradiction(
            layout::PATCHES,
            "it does not list the patches that are published",
        ));
    }
    for entry in &list.patches {
        let name = layout::patch(entry.id);
        let patch = repository.patch(entry.id).await?;
        let signed = repository.target(&name)?.digest;
        if PatchEntry::of(&patch, signed).as_ref() != Some(entry) {
            return Err(TrustError::contradiction(
                &name,
                "the list of patches says something else",
            ));
        }
        agrees(repository, &patch, &name)?;
    }
    Ok(Verified {
        product: graph.product,
        versions,
        patches,
        targets: targets.len(),
        bytes: targets.iter().map(|target| target.size).sum(),
    })
}

/// That every file that the document `subject` names is signed with the content that it names.
fn agrees(repository: &TrustedRepository, release: &Release, subject: &str) -> Result<(), TrustError> {
    for (name, digest, size) in needs(release) {
        let target = repository.target(name)?;
        if (target.digest, target.size) != (digest, size) {
            let problem = format!("it names other content for `{name}` than is signed");
            return Err(TrustError::contradiction(subject, &problem));
        }
    }
    Ok(())
}
