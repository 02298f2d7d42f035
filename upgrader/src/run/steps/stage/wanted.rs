//! Which files are staged: for every release on the way the archives of the node's modules, its document, and the `kato` that it brings.

use std::collections::BTreeSet;

use kato_shared::{
    Digest,
    release::{Release, layout},
};

use crate::{exit::Failure, plan::node::modules_for, run::Run, self_update, source::Wanted};

/// All files with their names for people, each once. Archives of modules with a latch are among them: it may be deleted in the middle of
/// the run.
///
/// Without the network nothing is asked for that a run can do without: an older `kato` may have staged archives alone.
///
/// # Errors
/// [`Failure`] when a document is not published any more, or this program cannot be read.
pub(super) fn all(run: &Run) -> Result<Vec<(String, Wanted)>, Failure> {
    let mut files: Vec<(String, Wanted)> = releases(run).flat_map(|release| archives(run, release)).collect();
    if run.source.is_some() {
        files.extend(documents(run)?);
        files.extend(programs(run)?);
    }
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    files.retain(|(_, wanted)| known.insert(wanted.sha256));
    Ok(files)
}

fn releases(run: &Run) -> impl Iterator<Item = &Release> {
    let then = run.attempt.then.iter().map(|target| &target.release);
    std::iter::once(&run.attempt.release).chain(then)
}

fn archives(run: &Run, release: &Release) -> Vec<(String, Wanted)> {
    let modules = modules_for(release, run.node.roles()).into_iter();
    let archives = modules.filter_map(|module| {
        let artifact = release.artifacts.get(&module.artifact)?;
        let wanted = Wanted {
            target: artifact.target.clone(),
            sha256: artifact.sha256,
            size: artifact.size,
        };
        Some((module.artifact.clone(), wanted))
    });
    archives.collect()
}

/// What a run without the network reads again: the `kato` that goes on may understand more of it than the one that staged it.
fn documents(run: &Run) -> Result<Vec<(String, Wanted)>, Failure> {
    let first = (&run.attempt.release, &run.attempt.release_digest);
    let then = run.attempt.then.iter().map(|then| (&then.release, &then.digest));
    let mut documents = Vec::new();
    for (release, digest) in std::iter::once(first).chain(then) {
        let Some(source) = run.source.as_ref().filter(|_| release.patch.is_none()) else {
            continue;
        };
        let wanted = source.document(&release.version)?;
        // It was published once more since the upgrade began, which goes on with what it began with.
        if wanted.sha256 == *digest {
            documents.push((format!("release {}", release.version), wanted));
        }
    }
    Ok(documents)
}

/// Each `kato` that will be at work on the way.
fn programs(run: &Run) -> Result<Vec<(String, Wanted)>, Failure> {
    let (mut version, mut digest) = (self_update::own_version(), self_update::running_digest()?);
    let mut programs = Vec::new();
    for release in releases(run) {
        // One that this program is too old for was refused before.
        let Ok(Some(next)) = self_update::decide(release, layout::HOST_TRIPLE, &version, &digest) else {
            continue;
        };
        (version, digest) = (next.version.clone(), next.sha256);
        let wanted = Wanted {
            target: next.target.clone(),
            sha256: next.sha256,
            size: next.size,
        };
        programs.push(("kato".to_owned(), wanted));
    }
    Ok(programs)
}
