//! Inside of the namespace: loopback, the server, the commands, the notes.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use kato_shared::chain::Chain;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{PATH, RehearsalError, Rehearsed, Stage, io_error, lifeline::Lifeline, orphans, tail};
use crate::{closure::DeclaredCommand, offline::read_misses};

/// How long the server may take to begin and to end.
const SERVER: Duration = Duration::from_secs(60);
/// How much of the end of what a command says is read.
const MOST_SAID: u64 = 8 << 10;

/// Runs `commands` against the store of `stage`, served without a network; the process is in a namespace of its own, the first there, and ends with
/// whoever has the other end of its stdin.
///
/// # Errors
/// [`RehearsalError`] when the server does not come up; a command that fails is no error but a finding.
pub async fn inside(stage: &Stage, commands: &[DeclaredCommand]) -> Result<Rehearsed, RehearsalError> {
    let lifeline = Lifeline::of_stdin()?;
    tokio::select! {
        rehearsed = rehearsed(stage, commands) => rehearsed,
        () = lifeline.cut() => Err(RehearsalError::Abandoned),
    }
}

async fn rehearsed(stage: &Stage, commands: &[DeclaredCommand]) -> Result<Rehearsed, RehearsalError> {
    loopback().await?;
    orphans::adopt()?;
    let (mut server, address) = serve(stage).await?;
    let spared = pid_of(&server);
    let work = tempfile::tempdir().map_err(io_error("creating a folder for commands"))?;
    let mut rehearsed = Rehearsed::default();
    for command in commands {
        let line = command.argv.join(" ");
        let ended = run(command, &address, work.path()).await;
        orphans::end(spared);
        let how = match ended {
            Ok((status, _)) if status.success() => {
                rehearsed.done.push(line);
                continue;
            }
            Ok((status, said)) => format!("{status}: {said}"),
            Err(error) => Chain(&error).to_string(),
        };
        rehearsed.failed.push(format!("{line}: {how}"));
    }
    end(&mut server).await?;
    let misses = read_misses(&stage.store).map_err(io_error("reading the notes about misses"))?;
    rehearsed.missed.extend(misses.into_iter().map(|miss| miss.url));
    Ok(rehearsed)
}

#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn loopback() -> Result<(), RehearsalError> {
    let mut ip = command("ip");
    ip.args(["link", "set", "lo", "up"]);
    let output = within(SERVER, "ip", ip.output()).await?;
    if output.status.success() {
        return Ok(());
    }
    Err(RehearsalError::NotBegun {
        said: tail(&output.stderr),
    })
}

/// A line of the server's announcement.
#[derive(Deserialize)]
struct Listening {
    listener: String,
    address: String,
}

/// The server, and where it listens.
async fn serve(stage: &Stage) -> Result<(Child, String), RehearsalError> {
    let own = std::env::current_exe().map_err(io_error("finding this program"))?;
    let mut serve = command(own);
    serve.args([
        "serve",
        "--offline",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--cache-dir",
    ]);
    serve.arg(&stage.store);
    if let Some(config) = &stage.config {
        serve.arg("--config").arg(config);
    }
    serve.stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut server = serve.spawn().map_err(io_error("starting the server"))?;
    let stdout = server
        .stdout
        .take()
        .ok_or_else(|| io_error("reading from the server")(io::Error::other("it has no stdout")))?;
    let mut lines = BufReader::new(stdout).lines();
    let announced = async {
        let mut data = None;
        while let Some(line) = lines.next_line().await? {
            let Ok(said) = serde_json::from_str::<Listening>(&line) else {
                continue;
            };
            match said.listener.as_str() {
                "data" => data = Some(said.address),
                // It is said last.
                "admin" => break,
                _ => {}
            }
        }
        Ok(data)
    };
    let data = within(SERVER, "the start of the server", announced).await?;
    let data = data.ok_or_else(|| RehearsalError::NotBegun {
        said: "the server ended at once; its words stand above".to_owned(),
    })?;
    Ok((server, data))
}

fn pid_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

/// Runs a command: how it ended, and the end of what it said. Its own end counts, and ends what it has left behind in its process group, which
/// may hold what it was given to write to: hence a file, not a pipe.
async fn run(
    declared: &DeclaredCommand,
    address: &str,
    work: &Path,
) -> Result<(ExitStatus, String), RehearsalError> {
    let filled = |word: &String| {
        word.replace("{mirror}", &format!("http://{address}"))
            .replace("{address}", address)
            .replace("{work}", &work.display().to_string())
    };
    let mut words = declared.argv.iter().map(filled);
    let program = words.next().unwrap_or_default();
    let to_file = || io_error("keeping what a command says");
    let mut said = tempfile::tempfile().map_err(to_file())?;
    let given = said.try_clone().map_err(to_file())?;
    let mut client = command(&program);
    client
        .args(words)
        .current_dir(work)
        .env("HOME", work)
        .stdout(Stdio::null())
        .stderr(given)
        .process_group(0);
    let mut child = client.spawn().map_err(io_error(format!("running `{program}`")))?;
    let group = pid_of(&child);
    let ended = within(declared.deadline.get(), &program, child.wait()).await;
    if let Some(group) = group {
        // Nobody is left in it, as a rule.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    if ended.is_err() {
        // Reaped here, as nobody else's orphan.
        let _ended = child.wait().await;
    }
    let status = ended?;
    let mut bytes = Vec::new();
    let length = said.seek(SeekFrom::End(0)).map_err(to_file())?;
    said.seek(SeekFrom::Start(length.saturating_sub(MOST_SAID)))
        .map_err(to_file())?;
    said.take(MOST_SAID).read_to_end(&mut bytes).map_err(to_file())?;
    Ok((status, tail(&bytes)))
}

/// SIGTERM, so that all that was noted is written.
async fn end(server: &mut Child) -> Result<(), RehearsalError> {
    if let Some(pid) = pid_of(server) {
        kill_process(pid, Signal::TERM)
            .map_err(io::Error::from)
            .map_err(io_error("ending the server"))?;
    }
    within(SERVER, "the end of the server", server.wait())
        .await
        .map(drop)
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = io::Result<T>>,
) -> Result<T, RehearsalError> {
    timeout(limit, work)
        .await
        .map_err(|_elapsed| RehearsalError::Slow {
            what: what.to_owned(),
            limit,
        })?
        .map_err(io_error(format!("running `{what}`")))
}
