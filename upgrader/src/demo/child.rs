//! The real commands as child processes: `kato` with a node's settings, its words passed on, ended with the demonstration.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::{exit::Exit, prepare::profile, report::terminal};

/// How long one command may take: hundreds of MiB through a slow disk, three times.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Variables of this environment that would change what the demonstration shows.
const FOREIGN: [&str; 8] = [
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "KATO_CONFIG",
    profile::SKIP,
];

/// Whether downloads of a child may go through a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    Allowed,
    Skipped,
}

/// Runs `kato --config <config> <arguments>` and passes its words on to stderr.
///
/// # Errors
/// When it ends with anything but success, with its exit code.
pub(super) async fn kato(
    program: &Path,
    config: &Path,
    arguments: &[&str],
    cache: Cache,
) -> anyhow::Result<()> {
    let shown = format!("kato {}", arguments.join(" "));
    terminal::say(&format!(
        "$ kato --config {} {}",
        config.display(),
        arguments.join(" ")
    ));
    match timeout(DEADLINE, run(program, config, arguments, cache)).await {
        Ok(ended) => ended.with_context(|| format!("`{shown}` failed")),
        Err(_elapsed) => bail!("`{shown}` did not end within {} minutes", DEADLINE.as_secs() / 60),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the owner of the demonstration's children"
)]
async fn run(program: &Path, config: &Path, arguments: &[&str], cache: Cache) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // Live progress is the child's own.
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    for name in FOREIGN {
        command.env_remove(name);
    }
    if cache == Cache::Skipped {
        command.env(profile::SKIP, "1");
    }
    let mut child = command.spawn()?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            terminal::say(&line);
        }
    }
    let status = child.wait().await?;
    match status.code().map(Exit::from_code) {
        Some(Some(Exit::Done)) => Ok(()),
        Some(Some(exit)) => Err(anyhow!("exit code {} ({exit:?}), expected 0", exit.code())),
        Some(None) | None => Err(anyhow!("{status}, expected exit code 0")),
    }
}
