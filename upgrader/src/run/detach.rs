//! Starts a run that does not end with the session it was started from: as a transient systemd unit where systemd is the
//! first process, else in a session of its own. The caller gets the run's id and the number after which its events begin.

use std::{os::unix::fs::OpenOptionsExt as _, path::Path, process::Stdio, time::Duration};

use kato_shared::durable;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    Node,
    event::{Event, EventKind},
    status,
};
use crate::{
    exit::{Exit, Failure},
    jsonl,
    lock::{self, Holder},
    report::terminal,
};

/// How long a run may take until it has begun or ended: it fetches the repository's metadata before it begins.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often is looked.
const POLL: Duration = Duration::from_millis(50);

/// What the caller reads.
#[derive(Serialize)]
struct Started<'a> {
    schema: u32,
    run: &'a str,
    after_seq: u64,
}

/// What the caller reads when another run is active.
#[derive(Serialize)]
struct Busy {
    schema: u32,
    holder: Holder,
}

/// Starts this program detached with `arguments`, as the run `run`.
///
/// # Errors
/// [`Failure`] with 25 and the holder on stdout when another run is active; 1 when the run did not start.
pub async fn start(node: &Node, run: &str, arguments: &[String]) -> Result<Exit, Failure> {
    let (holder, _) = status::at_work(node)?;
    if let Some(holder) = holder.filter(|holder| holder.run != run) {
        return Err(busy(node, holder));
    }
    let after_seq = last_seq(node)?;
    durable::create_folder(&node.paths.log())?;
    let log = node.paths.log().join(format!("{run}.log"));
    let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Bug, error))?;
    let mut child = spawn(&program, run, arguments, &log)?;
    let deadline = Instant::now() + START_LIMIT;
    while Instant::now() < deadline {
        if has_begun(node, run, after_seq)? {
            terminal::json(&Started {
                schema: 1,
                run,
                after_seq,
            });
            return Ok(Exit::Done);
        }
        let ended = child.try_wait().map_err(|error| Failure::new(Exit::Bug, error))?;
        if let Some(status) = ended.filter(|status| !status.success()) {
            if has_begun(node, run, after_seq)? {
                continue;
            }
            if let Some(holder) = lock::holder(&node.paths.lock()) {
                return Err(busy(node, holder));
            }
            return Err(not_started(run, &log, &format!("it ended with {status}")));
        }
        sleep(POLL).await;
    }
    Err(not_started(run, &log, "it said nothing in two minutes"))
}

fn busy(node: &Node, holder: Holder) -> Failure {
    let failure = lock::LockError::Held {
        path: node.paths.lock(),
        holder: Some(Box::new(holder.clone())),
    };
    terminal::json(&Busy { schema: 1, holder });
    failure.into()
}

fn not_started(run: &str, log: &Path, why: &str) -> Failure {
    let last: Vec<String> = std::fs::read_to_string(log)
        .unwrap_or_default()
        .lines()
        .rev()
        .take(5)
        .map(ToOwned::to_owned)
        .collect();
    let said: Vec<_> = last.into_iter().rev().collect();
    Failure::new(
        Exit::TryAgain,
        anyhow::anyhow!(
            "the run {run} did not start: {why}; it wrote: {}",
            said.join(" | ")
        ),
    )
    .hint(format!("read {}", log.display()))
}

fn last_seq(node: &Node) -> Result<u64, Failure> {
    let (events, _) = jsonl::read::<Event>(&node.paths.events())?;
    Ok(events.last().map_or(0, |event| event.seq))
}

/// Whether the run has written an event that only a run with the lock writes.
fn has_begun(node: &Node, run: &str, after: u64) -> Result<bool, Failure> {
    let (events, _) = jsonl::read::<Event>(&node.paths.events())?;
    Ok(events.iter().any(|event| {
        event.seq > after
            && event.run == run
            && matches!(
                event.kind,
                EventKind::RunStarted { .. } | EventKind::RunFinished { .. }
            )
    }))
}

/// Starts the program in a transient unit, or with `setsid` in its own session with its output in `log`.
#[expect(
    clippy::disallowed_methods,
    reason = "this child must outlive us; its deadline is the run's own"
)]
fn spawn(
    program: &Path,
    run: &str,
    arguments: &[String],
    log: &Path,
) -> Result<std::process::Child, Failure> {
    let failed = |error: std::io::Error| {
        let problem = anyhow::Error::new(error).context("starting the detached run failed");
        Failure::new(Exit::Preflight, problem).hint("`setsid` (package util-linux) or systemd is needed")
    };
    let output = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(failed)?;
    let mut command = if Path::new("/run/systemd/system").is_dir() {
        let mut command = std::process::Command::new("systemd-run");
        command.args(["--quiet", "--collect", "--property=Restart=no"]);
        command.arg(format!("--unit=kato-upgrade-{run}"));
        command.arg(format!("--property=StandardOutput=append:{}", log.display()));
        command.arg(format!("--property=StandardError=append:{}", log.display()));
        for name in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
            "http_proxy",
            "https_proxy",
            "no_proxy",
        ] {
            command.arg(format!("--setenv={name}"));
        }
        command
            .arg("--setenv=STACKATO_UPGRADE_SKIP_PROXY_CACHE")
            .arg("--");
        command
    } else {
        std::process::Command::new("setsid")
    };
    command
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .spawn()
        .map_err(failed)
}
