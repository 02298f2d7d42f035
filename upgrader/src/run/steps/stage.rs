//! `stage`: everything that the upgrade needs is on the node, verified, before anything of the node is changed, `kato` included.
//!
//! A `kato` that is too old for the release downloads its files, and leaves to the one that the release brings what modules need
//! beside them: how that is to be understood, the older one may not know.

mod wanted;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    attempt::Attempt,
    exit::{Exit, Failure},
    failpoint, fetch,
    module::{self, ModuleError},
    plan::node::{IMAGES, modules_for},
    report::terminal,
    run::{
        Run,
        engine::stopped,
        event::EventKind,
        kept::{self, Spare},
        remedy,
        step::{Acted, Step},
        steps::Finding,
    },
    self_update,
    source::Wanted,
    space::{
        self, Need, Shortfall,
        reserve::{self, ReserveError},
        users,
    },
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
        reach(run).await?;
        fetch::give_back(&run.node.paths.staging());
        reserve::give_all(&run.node.paths)?;
        make_room(run)?;
        hold(run)?;
        for (name, wanted) in wanted::all(run)? {
            download(run, &wanted, "stage", &name).await?;
            failpoint::hit("stage.file");
        }
        if self_update::suffices(&run.attempt.release) {
            archives_agree(run)?;
            preload(run).await?;
        }
        run.attempt.staged = true;
        run.save()?;
        Ok(Acted::Done)
    }
}

/// Each archive holds exactly what the signed release lists, in every release on the way. One that does not is found here, before
/// anything is changed, and not while its module is unpacked.
fn archives_agree(run: &Run) -> Result<(), Failure> {
    let then = run.attempt.then.iter().map(|target| &target.release);
    for release in std::iter::once(&run.attempt.release).chain(then) {
        for module in modules_for(release, run.node.roles()) {
            let Some(artifact) = release.artifacts.get(&module.artifact) else {
                continue;
            };
            if run.stop.is_cancelled() {
                return Err(stopped());
            }
            let archive = run.job_with(module, artifact).archive();
            module::unpack::agrees(&archive, module).map_err(|error| {
                let mut failure = Failure::from(ModuleError::from(error));
                failure.hint = failure.hint.map(|hint| format!("nothing was changed; {hint}"));
                failure
            })?;
        }
    }
    Ok(())
}

/// What modules need beside their archives (images, packages of apt) in every release on the way.
async fn preload(run: &mut Run) -> Result<(), Failure> {
    settle_on_a_runtime(run).await?;
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

/// Which container runtime the images of all releases on the way go to is settled before anything is changed.
async fn settle_on_a_runtime(run: &mut Run) -> Result<(), Failure> {
    if run.attempt.engine.is_some() {
        return Ok(());
    }
    let then = run.attempt.then.iter().map(|target| &target.release);
    let modules: Vec<_> = std::iter::once(&run.attempt.release)
        .chain(then)
        .flat_map(|release| modules_for(release, run.node.roles()))
        .collect();
    let settling = module::image::settle(&modules, &run.node.settings.images, &run.node.children);
    let settled = tokio::select! {
        settled = settling => settled,
        () = run.stop.cancelled() => return Err(stopped()),
    };
    run.attempt.engine = settled.map_err(|error| Failure {
        // Nothing was changed, and what does not answer may do so later.
        exit: Exit::TryAgain,
        ..Failure::from(error)
    })?;
    Ok(())
}

/// The hosts that modules download from later, beside that of the releases, which has just answered. All that are silent are named.
async fn reach(run: &Run) -> Result<(), Failure> {
    let Some(source) = run.source.as_ref().filter(|_| !run.attempt.staged) else {
        return Ok(());
    };
    let mut silent = Vec::new();
    let mut last = None;
    for url in &run.node.settings.upgrade.hosts {
        if let Err(failure) = source.reach(url).await {
            silent.push(terminal::describe(&failure));
            last = Some(failure);
        }
    }
    let Some(last) = last else {
        return Ok(());
    };
    let problem = anyhow::anyhow!(
        "hosts that the upgrade needs cannot be reached: {}",
        silent.join("; ")
    );
    let hint = last.hint.unwrap_or_default();
    Err(Failure::new(Exit::TryAgain, problem).hint(format!("nothing was changed; {hint}")))
}

/// The place of a need on the machine. Downloads, backups and images are named by their real place, modules by the release's.
fn place(run: &Run, need: &Need) -> PathBuf {
    if need.path.starts_with(run.node.paths.state_dir()) || need.purpose == IMAGES {
        need.path.clone()
    } else {
        run.node.paths.on_node(&need.path)
    }
}

/// Looks whether there is room; where there is none, what is kept of a release that was rolled back makes way.
fn make_room(run: &mut Run) -> Result<(), Failure> {
    if let Some(spare) = wants_spare(run)? {
        run.warn(makes_way(&spare));
        spare.give_up()?;
        room(run, 0)?;
    }
    Ok(())
}

/// What [`make_room`] would find.
pub(super) fn room_ahead(run: &Run) -> Option<Finding> {
    match wants_spare(run) {
        Ok(spare) => Some(Finding::Warned(makes_way(&spare?))),
        Err(failure) => Some(Finding::Refused(failure)),
    }
}

/// What is kept of a release that was rolled back, where there is room without it and none beside it.
fn wants_spare(run: &Run) -> Result<Option<Spare>, Failure> {
    let Err(short) = room(run, 0) else {
        return Ok(None);
    };
    // One that has begun and is not this one needs its own to go on.
    let begun = Attempt::load(&run.node.paths)?.filter(|attempt| attempt.begun);
    let spare = kept::spare(&run.node.paths, begun.iter().chain([&run.attempt]))?;
    if spare.bytes == 0 || room(run, spare.bytes).is_err() {
        return Err(short);
    }
    Ok(Some(spare))
}

fn makes_way(spare: &Spare) -> String {
    format!(
        "there is no room beside the downloads of the release that was rolled back: they make way ({} bytes), and to try that one again \
         needs the network",
        spare.bytes
    )
}

/// Whether there is room with `spare` bytes more where downloads lie.
fn room(run: &Run, spare: u64) -> Result<(), Failure> {
    let unreadable = |source: std::io::Error| {
        Failure::new(
            Exit::Preflight,
            anyhow::Error::new(source).context("asking for free space failed"),
        )
    };
    // What was received before is on the disk already.
    let staging = run.node.paths.staging();
    let mut there: u64 = wanted::all(run)?
        .iter()
        .map(|(_, wanted)| {
            let part = staging.join(format!("{}.part", wanted.sha256.hex()));
            space::taken_by(&part).min(wanted.size)
        })
        .sum();
    let mut needs: Vec<Need> = run.plan.space.iter().chain(&run.later_space).cloned().collect();
    for need in needs.iter_mut().filter(|need| need.purpose == "downloads") {
        let less = there.min(need.bytes);
        need.bytes -= less;
        there -= less;
    }
    let here = space::mount_of(&staging).map_err(unreadable)?.device;
    let mut mounts = Vec::with_capacity(needs.len());
    for need in &needs {
        let mut mount = space::mount_of(&place(run, need)).map_err(unreadable)?;
        if mount.device == here {
            mount.free = mount.free.saturating_add(spare);
        }
        mounts.push((need, mount));
    }
    space::judge(mounts).map_err(|short| {
        let mount = short.mount().to_owned();
        no_room(run, &mount, short)
    })
}

/// Holds the space that was just looked at: for each download in its own file, for every later step until it begins.
fn hold(run: &mut Run) -> Result<(), Failure> {
    let staging = run.node.paths.staging();
    let mut cannot = BTreeSet::new();
    if run.source.is_some() {
        for (_, wanted) in wanted::all(run)? {
            if !fetch::hold(&wanted.sha256, wanted.size, &staging)? {
                cannot.extend(space::mount_of(&staging).map(|mount| mount.point));
            }
        }
    }
    let installed = run.plan.modules.iter().filter(|module| module.skip.is_none());
    let names: Vec<&str> = installed.map(|module| module.name.as_str()).collect();
    let mut claims = reserve::claims(&run.plan.space, &run.later_space, &names);
    for claim in &mut claims {
        let need = Need {
            path: claim.path.clone(),
            bytes: claim.bytes,
            inodes: 0,
            purpose: "",
        };
        claim.path = place(run, &need);
    }
    // A look at what there is, or only a download, leaves nothing to be written later.
    if !run.request.download_only {
        let taken = reserve::take(&run.node.paths, &claims);
        cannot.extend(taken.map_err(|error| match error {
            ReserveError::Full { ref mount, .. } => {
                let mount = mount.clone();
                no_room(run, &mount, error)
            }
            ReserveError::Durable(_) | ReserveError::Mount { .. } => Failure::new(Exit::Preflight, error),
        })?);
    }
    for mount in cannot {
        run.warn(format!(
            "the file system on {} cannot hold space: others may take it before it is needed",
            mount.display()
        ));
    }
    Ok(())
}

/// No room: who else is there, and what to do.
fn no_room(run: &Run, mount: &Path, error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    if let Some(Shortfall::Inodes { .. }) = error.downcast_ref() {
        return Failure::new(Exit::Preflight, error).hint(format!(
            "nothing was changed; remove small files that are not needed on {} (`df -i` shows its inodes), then run the same command again",
            mount.display()
        ));
    }
    let backups = run.node.paths.backups();
    let users = users::largest(
        mount,
        &[(
            &backups,
            "old backups: lower `[upgrade].backup_keep`, or move them away",
        )],
    );
    let users = if users.is_empty() {
        String::new()
    } else {
        format!(" (the largest there: {users})")
    };
    let hint = format!(
        "nothing was changed; free space on {}{users}, or move `[node].state_dir` to a larger file system, then run the same command again",
        mount.display()
    );
    Failure::new(Exit::Preflight, error).hint(hint)
}

/// Puts one file into the staging folder, and tells how far it is.
pub(super) async fn download(
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
    let fetching = source.fetch(wanted, &staging, &progress);
    tokio::pin!(fetching);
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
    let mut told = (0, 0);
    loop {
        tokio::select! {
            path = &mut fetching => {
                let path = path?;
                tell(run, (wanted.size, wanted.size));
                return Ok(path);
            }
            _ = tick.tick() => {
                let now = latest.lock().map(|latest| *latest).unwrap_or_default();
                // A server that says nothing is no news.
                if now != told {
                    tell(run, now);
                    told = now;
                }
            }
            () = cancelled.cancelled() => return Err(stopped()),
        }
    }
}

/// Without the network: what was downloaded before, verified again.
fn staged(path: &Path, wanted: &Wanted, name: &str) -> Result<PathBuf, Failure> {
    let reachable = "when the upgrade host or the cache can be reached";
    match module::tree::digest(path) {
        Ok(found) if found == wanted.sha256 => Ok(path.to_owned()),
        Ok(found) => {
            let problem = anyhow::anyhow!(
                "{} ({name}) is not what the release lists: expected {}, found {found}",
                path.display(),
                wanted.sha256
            );
            // To wait for the host and to run it once more would find the same bytes.
            Err(Failure::new(Exit::Trust, problem).hint(format!(
                "it was changed on this node: find out by whom, delete it, and run the same command again {reachable}; it is then downloaded anew"
            )))
        }
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
            let problem = anyhow::Error::new(missing)
                .context(format!("{} ({name}) was not downloaded before", path.display()));
            Err(Failure::new(Exit::TryAgain, problem).hint(format!(
                "run the same command again without `--offline`, {reachable}"
            )))
        }
        Err(error) => {
            let hint = remedy::of_io(&error);
            let problem =
                anyhow::Error::new(error).context(format!("reading {} ({name}) failed", path.display()));
            Err(Failure::new(Exit::Preflight, problem).hint(hint))
        }
    }
}
