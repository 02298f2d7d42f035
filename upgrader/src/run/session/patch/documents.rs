//! The documents of chosen patches: verified against the list, and refused when they come out of order.

use anyhow::anyhow;
use kato_shared::release::{PatchEntry, Release};

use crate::{
    attempt::Target,
    exit::{Exit, Failure},
    patch::{choice::Here, places},
    source::Source,
};

/// The verified documents of `entries`, as targets on the release of `here`.
pub(super) async fn documents(
    source: &dyn Source,
    entries: &[&PatchEntry],
    here: &Here<'_>,
) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::with_capacity(entries.len());
    for entry in entries {
        let (mut release, digest) = source.patch(entry.id).await?;
        if digest != entry.sha256 {
            let problem = anyhow!(
                "the list of patches and the targets metadata disagree on the patch `{}`: {} and {digest}",
                entry.name,
                entry.sha256
            );
            return Err(Failure::new(Exit::Trust, problem)
                .hint("nothing was changed; ask the publisher to run `kato release verify`"));
        }
        in_order(entry, &release, here)?;
        // On this node it is a change of the release that is installed.
        release.version = here.version.clone();
        targets.push(Target { release, digest });
    }
    Ok(targets)
}

/// Refuses a patch that would put older content over that of a newer one.
fn in_order(entry: &PatchEntry, release: &Release, here: &Here<'_>) -> Result<(), Failure> {
    let changes = places::of(&release.modules, here.roles);
    let mut newer = here.patches.installed.iter().filter(|other| other.id > entry.id);
    let over = newer.find_map(|other| Some((other, other.overlaps(&changes)?)));
    let Some((other, path)) = over else {
        return Ok(());
    };
    let problem = anyhow!(
        "the patch `{}` changes {}, and so does `{}`, which is newer and installed",
        entry.name,
        path.display(),
        other.name
    );
    Err(Failure::new(Exit::Preflight, problem).hint(format!(
        "nothing was changed; run `kato patch revert {}` first, and install both again in their order",
        other.name
    )))
}
