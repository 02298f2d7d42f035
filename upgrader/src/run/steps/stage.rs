//! `stage`: everything that the upgrade needs is on the node, verified, before anything of the node is changed.

use std::{collections::BTreeSet, path::PathBuf, sync::Mutex, time::Duration};

use async_trait::async_trait;
use kato_shared::Digest;
use tokio::time::Instant;

use crate::{
    exit::{Exit, Failure},
    failpoint, module,
    plan::node::{IMAGES, modules_for},
    run::{
        Run,
        engine::stopped,
        event::EventKind,
        step::{Acted, Step},
    },
    source::Wanted,
    space,
};

/// How often the operator is told how far a download is.
const TELL_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Stage;

#[async_trait]
impl Step for Stage {
    fn name(&self) -> String {
        "stage".into()
    }

    async fn act(&self, run: &mut Run) -> Result<Acted, Failure> {
        check_space(run)?;
        for (name, wanted) in wanted(run) {
            fetch(run, &wanted, "stage", &name).await?;
            failpoint::hit("stage.file");
        }
        preload(run).await?;
        run.attempt.staged = true;
        run.attempt.save(&run.node.paths)?;
        Ok(Acted::Done)
    }
}

/// What modules need beside their archives (images, packages of apt) in every release on the way.
async fn preload(run: &Run) -> Result<(), Failure> {
    let then = run.attempt.then.iter().map(|target| &target.release);
    for release in std::iter::once(&run.attempt.release).chain(then) {
        for module in modules_for(release, run.node.roles()) {
            let Some(artifact) = release.artifacts.get(&module.artifact) else {
                continue;
            };
            let job = run.job_with(module, artifact);
            let loaded = tokio::select! {
                loaded = module::preload(&job) => loaded,
                () = run.stop.cancelled() => return Err(stopped()),
            };
            loaded.map_err(|error| Failure {
                // Nothing was changed, and what could not be reached may be there later.
                exit: Exit::TryAgain,
                ..Failure::from(error)
            })?;
        }
    }
    Ok(())
}

/// The artifacts of the node's modules in every release on the way, latched ones included: a latch may be deleted in the
/// middle of the run. Each file once.
fn wanted(run: &Run) -> Vec<(String, Wanted)> {
    let mut known: BTreeSet<Digest> = BTreeSet::new();
    let mut files = Vec::new();
    let then = run.attempt.then.iter().map(|target| &target.release);
    for release in std::iter::once(&run.attempt.release).chain(then) {
        for module in modules_for(release, run.node.roles()) {
            if let Some(artifact) = release.artifacts.get(&module.artifact)
                && known.insert(artifact.sha256)
            {
                let wanted = Wanted {
                    target: artifact.target.clone(),
                    sha256: artifact.sha256,
                    size: artifact.size,
                };
                files.push((module.artifact.clone(), wanted));
            }
        }
    }
    files
}

fn check_space(run: &Run) -> Result<(), Failure> {
    let unreadable = |source: std::io::Error| {
        Failure::new(
            Exit::Preflight,
            anyhow::Error::new(source).context("asking for free space failed"),
        )
    };
    let mut needs = Vec::with_capacity(run.plan.space.len());
    for need in run.plan.space.iter().chain(&run.later_space) {
        // Downloads, backups and images are named by their real place, modules by the release's.
        let path = if need.path.starts_with(run.node.paths.state_dir()) || need.purpose == IMAGES {
            need.path.clone()
        } else {
            run.node.paths.on_node(&need.path)
        };
        needs.push((need, space::mount_of(&path).map_err(unreadable)?));
    }
    space::judge(needs).map_err(|short| {
        let hint = format!(
            "nothing was changed; free space on {}, or move `[node].state_dir` to a larger file system, then run the same command again",
            short.mount.display()
        );
        Failure::new(Exit::Preflight, short).hint(hint)
    })
}

/// Puts one file into the staging folder, and tells how far it is.
pub(super) async fn fetch(
    run: &mut Run,
    wanted: &Wanted,
    step: &str,
    name: &str,
) -> Result<PathBuf, Failure> {
    let staging = run.node.paths.staging();
    let Some(source) = run.source.clone() else {
        return staged(&staging.join(wanted.sha256.hex()), wanted, name);
    };
    let latest = Mutex::new((0_u64, 0_u64));
    let progress = |done: u64, total: u64| {
        if let Ok(mut latest) = latest.lock() {
            *latest = (done, total);
        }
    };
    let download = source.fetch(wanted, &staging, &progress);
    tokio::pin!(download);
    let mut tick = tokio::time::interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
    let tell = |run: &mut Run, (done, total): (u64, u64)| {
        run.stream.tell(EventKind::Progress {
            step: step.to_owned(),
            subject: name.to_owned(),
            done,
            total,
        });
    };
    let cancelled = run.stop.clone();
    loop {
        tokio::select! {
            path = &mut download => {
                let path = path?;
                tell(run, (wanted.size, wanted.size));
                return Ok(path);
            }
            _ = tick.tick() => {
                let now = latest.lock().map(|latest| *latest).unwrap_or_default();
                tell(run, now);
            }
            () = cancelled.cancelled() => return Err(stopped()),
        }
    }
}

/// Without the network: what was downloaded before, verified again.
fn staged(path: &std::path::Path, wanted: &Wanted, name: &str) -> Result<PathBuf, Failure> {
    let missing = |problem: anyhow::Error| {
        Failure::new(Exit::TryAgain, problem)
            .hint("run the same command again without `--offline`, when the upgrade host or the cache can be reached")
    };
    match module::tree::digest(path) {
        Ok(found) if found == wanted.sha256 => Ok(path.to_owned()),
        Ok(found) => Err(missing(anyhow::anyhow!(
            "{} ({name}) is not what the release lists: expected {}, found {found}",
            path.display(),
            wanted.sha256
        ))),
        Err(error) => Err(missing(
            anyhow::Error::new(error)
                .context(format!("{} ({name}) was not downloaded before", path.display())),
        )),
    }
}
