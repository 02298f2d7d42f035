//! A throw-away cluster on this machine: three nodes as folders, an upgrade host, a cache, and the real commands.
//!
//! Flow: keys and two releases → an upgrade host that counts → three nodes with the old release → an operator's edits →
//! `--prepare` and `--cluster` as child processes → what the host, the cache and the nodes say → tables.
//!
//! Invariants: nothing is taken from the network, nothing outside the folder is written, and nothing is left behind, however
//! it ends (but SIGKILL). What is shown was measured, not computed; only the cost of direct upgrades is a sum.
//!
//! Deliberately absent: SSH and root. The nodes are roots on this machine, reached by the transport `local`.

mod child;
mod clean;
mod gather;
mod host;
mod outcome;
mod payload;
mod publish;
mod site;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use kato_shared::settings::byte_size::human;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::TaskTracker;

use crate::{
    exit::{Exit, Failure},
    prepare,
    report::terminal,
};
use child::Cache;
use host::UpgradeHost;
use outcome::Outcome;
use payload::{Edition, Programs};
use site::Site;

/// How the demonstration is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Leave everything as it is at the end.
    pub keep: bool,
    /// Where the throw-away folder is made.
    pub dir: PathBuf,
    /// Print the document instead of the tables.
    pub json: bool,
}

/// Runs the demonstration and prints what it showed.
///
/// # Errors
/// [`Failure`]: 20 when this machine lacks something, 75 when it was interrupted, 21 when a promise was not kept.
pub async fn run(options: &Options) -> Result<Exit, Failure> {
    let programs = programs()?;
    check_space(&options.dir, &programs)?;
    let folder = tempfile::Builder::new()
        .prefix("kato-demo-")
        .tempdir_in(&options.dir)
        .with_context(|| format!("making a folder in {} failed", options.dir.display()))
        .map_err(|error| Failure::new(Exit::Preflight, error).hint("name another folder with `--dir`"))?
        // Removed by `clean`, after the processes in it.
        .keep();
    let work = TaskTracker::new();
    let outcome = tokio::select! {
        outcome = show(&folder, &programs, work.clone()) => outcome.map_err(|error| {
            Failure::new(Exit::Failed, error)
                .hint("run it again with `--keep` and look at what the nodes and the cache have written")
        }),
        stopped = interrupted() => Err(Failure::new(Exit::TryAgain, stopped).hint("run the same command again")),
    };
    // What was interrupted in the middle of a file must not write to a folder that is being removed.
    work.close();
    work.wait().await;
    if options.keep {
        keep(&folder);
    } else {
        clean(&folder).await;
    }
    let outcome = outcome?;
    if options.json {
        terminal::json(&outcome);
    } else {
        outcome.lines().iter().for_each(|line| terminal::data(line));
    }
    for broken in outcome.broken() {
        terminal::say(&format!("error: {broken}"));
    }
    Ok(if outcome.ok { Exit::Done } else { Exit::Failed })
}

/// The demonstration itself.
async fn show(folder: &Path, programs: &Programs, work: TaskTracker) -> anyhow::Result<Outcome> {
    stage(1, "keys, and release 1.0.0 with small files");
    let mut publisher = publish::Publisher::create(folder, programs, work).await?;
    publisher.publish(Edition::Old).await?;
    let host = UpgradeHost::start(publisher.repository().to_owned())
        .await
        .context("starting the upgrade host failed")?;
    stage(
        2,
        "three nodes; each installs release 1.0.0 (set-up: not counted)",
    );
    let site = Site::create(folder, &host.url(), publisher.root(), programs)?;
    for node in &site.nodes {
        let install = ["node", "upgrade", "--version", "1.0.0", "--skip-confirmation"];
        child::kato(&programs.kato, &node.config, &install, Cache::Skipped).await?;
    }
    site.customise()?;
    stage(3, "release 2.0.0 is published");
    let release = publisher.publish(Edition::New).await?;
    host.forget();
    let core = &site.core().config;
    stage(
        4,
        "the cache on Core is started and filled: kato node upgrade --prepare",
    );
    child::kato(
        &programs.kato,
        core,
        &["node", "upgrade", "--prepare"],
        Cache::Allowed,
    )
    .await?;
    stage(5, "the cluster is upgraded: kato node upgrade --cluster");
    let upgrade = ["node", "upgrade", "--cluster", "--skip-confirmation"];
    child::kato(&programs.kato, core, &upgrade, Cache::Allowed).await?;
    stage(6, "what the upgrade host, the cache and the nodes say");
    gather::outcome(&site, &release, &host).await
}

fn stage(number: u32, text: &str) {
    terminal::say(&format!("[{number}/6] {text}"));
}

/// The running program, and the cache's program beside it or in `PATH`.
fn programs() -> Result<Programs, Failure> {
    let kato = std::env::current_exe()
        .context("finding the running program failed")
        .map_err(|error| Failure::new(Exit::Preflight, error))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = kato
        .parent()
        .map(Path::to_owned)
        .into_iter()
        .chain(std::env::split_paths(&path));
    let proxy = prepare::start::locate(Path::new("kato-proxy"), folders).map_err(|error| {
        let hint = "put `kato-proxy` beside `kato`; in a checkout, `cargo xtask demo` builds both";
        Failure::new(error.exit(), error).hint(hint)
    })?;
    Ok(Programs { kato, proxy })
}

/// Refuses when the disk is too small: every byte is there as source, as target, in the cache, and on three nodes staged,
/// unpacked and backed up.
fn check_space(dir: &Path, programs: &Programs) -> Result<(), Failure> {
    const COPIES: u64 = 12;
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |about| about.len());
    let needed = (payload::generated_bytes() + size(&programs.kato) + size(&programs.proxy)) * COPIES;
    let failed =
        |error: anyhow::Error| Failure::new(Exit::Preflight, error).hint("name another folder with `--dir`");
    let about = rustix::fs::statvfs(dir)
        .with_context(|| format!("looking at the file system of {} failed", dir.display()))
        .map_err(failed)?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    if free < needed {
        return Err(failed(anyhow!(
            "{} free on the file system of {}, the demonstration needs {}",
            human(free),
            dir.display(),
            human(needed)
        )));
    }
    Ok(())
}

/// Ends when the operator asks for it, with what to say then.
async fn interrupted() -> anyhow::Error {
    let signals = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)] = signals else {
        // Without signals to wait for there is nothing to be told.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    anyhow!("the demonstration was interrupted")
}

/// The cache's files on the demonstration's Core.
fn cache_files(folder: &Path) -> prepare::supervise::Files {
    let mut settings = crate::settings::Settings::default();
    settings.node.root = folder.join("nodes").join(site::CORE);
    prepare::files(&settings)
}

async fn clean(folder: &Path) {
    if let Err(error) = clean::all(folder, Some(cache_files(folder))).await {
        terminal::say(&format!("warning: something is left behind: {error:#}"));
    }
}

fn keep(folder: &Path) {
    let core = folder.join("nodes").join(site::CORE).join("etc/kato/kato.toml");
    let core = core.display();
    terminal::say(&format!("kept: {}", folder.display()));
    terminal::say("the upgrade host is gone, the cache still serves what it holds. Look around with");
    terminal::say(&format!("  kato --config {core} node upgrade --status"));
    terminal::say(&format!("  less {}", cache_files(folder).log().display()));
    terminal::say("and remove it with");
    terminal::say(&format!(
        "  kato --config {core} cache stop && rm -r {}",
        folder.display()
    ));
}
