//! Leaves nothing behind: every process whose command line names the demonstration's folder, then the folder.
//!
//! The folder's name is random and of this run, so that a process that names it can only be ours: the cache, its
//! supervisor, and runs of nodes that were detached from their command.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::prepare::{process, start, supervise::Files};

/// How long a process may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Rounds of looking for processes: one that ends may have started another just before.
const ROUNDS: usize = 5;

/// Ends all processes of the demonstration in `folder`, the cache with the files `cache` first, and removes the folder.
///
/// # Errors
/// When something is left, naming it.
pub(super) async fn all(folder: &Path, cache: Option<Files>) -> anyhow::Result<()> {
    if let Some(files) = cache {
        start::stop(&files, None)
            .await
            .context("stopping the cache failed")?;
    }
    for _round in 0..ROUNDS {
        let left = ours(folder)?;
        if left.is_empty() {
            return remove(folder.to_owned()).await;
        }
        for process in left {
            process
                .id
                .stop(GRACE)
                .await
                .with_context(|| format!("ending process {} failed", process.id.pid))?;
        }
    }
    match ours(folder)?.first() {
        Some(process) => bail!(
            "process {} cannot be ended: {}",
            process.id.pid,
            process.arguments.join(" ")
        ),
        None => remove(folder.to_owned()).await,
    }
}

fn ours(folder: &Path) -> anyhow::Result<Vec<process::Running>> {
    let mut others = process::others().context("reading /proc failed")?;
    others.retain(|running| running.names(folder));
    Ok(others)
}

async fn remove(folder: PathBuf) -> anyhow::Result<()> {
    let shown = folder.display().to_string();
    tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&folder))
        .await?
        .with_context(|| format!("removing {shown} failed"))
}
