//! Inside of the namespace: loopback, the server, the commands, the notes.

use std::{
    io,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use kato_shared::chain::Chain;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{PATH, RehearsalError, Rehearsed, Stage, io_error, tail};
use crate::{closure::DeclaredCommand, offline::read_misses};

/// How long the server may take to begin and to end.
const SERVER: Duration = Duration::from_secs(60);

/// Runs `commands` against the store of `stage`, served without a network; the process is in a namespace of its own.
///
/// # Errors
/// [`RehearsalError`] when the server does not come up; a command that fails is no error but a finding.
pub async fn inside(stage: &Stage, commands: &[DeclaredCommand]) -> Result<Rehearsed, RehearsalError> {
    loopback().await?;
    let (mut server, address) = serve(stage).await?;
    let work = tempfile::tempdir().map_err(io_error("creating a folder for commands"))?;
    let mut rehearsed = Rehearsed::default();
    for command in commands {
        let line = command.argv.join(" ");
        let how = match run(command, &address, work.path()).await {
            Ok(output) if output.status.success() => {
                rehearsed.done.push(line);
                continue;
            }
            Ok(output) => format!("{}: {}", output.status, tail(&output.stderr)),
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

async fn run(declared: &DeclaredCommand, address: &str, work: &Path) -> Result<Output, RehearsalError> {
    let filled = |word: &String| {
        word.replace("{mirror}", &format!("http://{address}"))
            .replace("{address}", address)
            .replace("{work}", &work.display().to_string())
    };
    let mut words = declared.argv.iter().map(filled);
    let program = words.next().unwrap_or_default();
    let mut client = command(&program);
    client.args(words).current_dir(work).env("HOME", work);
    within(declared.deadline.get(), &program, client.output()).await
}

/// SIGTERM, so that all that was noted is written.
async fn end(server: &mut Child) -> Result<(), RehearsalError> {
    let pid = server.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(pid) = pid {
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
