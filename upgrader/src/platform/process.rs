//! Runs one child process: program and arguments, never a shell line; no input; a deadline; output kept for errors.
//!
//! Output goes to unnamed files instead of pipes, so that a service which the child starts and which keeps its output open
//! does not hold the run back. At the deadline, and when nobody waits for it any more, the child and all that belongs to it
//! ([`kin`]) is ended ([`running`]).
//!
//! What a run with the node's lock starts is noted before it acts ([`gate`], [`children`]), so that no command of a kato that was
//! killed goes on unseen ([`orphans`]).

mod children;
mod gate;
mod kin;
mod name;
mod orphans;
mod running;
mod table;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::process::Child;

pub use self::{
    children::{Children, Services},
    orphans::{Left, Orphan, StillThere},
};

use self::running::Running;
use crate::failpoint;

/// How many of the last lines of output an error shows.
const SHOWN_LINES: usize = 50;

/// How much of the output is read back, from its end, in bytes.
const SHOWN_BYTES: u64 = 256 * 1024;

/// How large an answer of [`answer`] may be, in bytes: all pods of a large node as JSON are a few megabytes.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// A child process that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no program to run.
    #[error("the command is empty, expected a program and its arguments")]
    Empty,
    /// It could not be started.
    #[error("starting `{program}` failed")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be noted, and was not let loose.
    #[error("`{program}` was not run: its note could not be written")]
    Unnoted {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with another status than 0.
    #[error("`{command}` ended with {status}{}", shown(output))]
    Status {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The last lines of what it wrote.
        output: String,
    },
    /// It did not end in time.
    #[error("`{command}` was stopped after {}{}", humantime::format_duration(*limit), shown(output))]
    Timeout {
        /// The command.
        command: String,
        /// How long it might take.
        limit: Duration,
        /// The last lines of what it wrote.
        output: String,
    },
    /// It wrote more than anybody would read.
    #[error("`{command}` wrote {size} bytes, expected at most {ANSWER_BYTES}")]
    TooMuch {
        /// The command.
        command: String,
        /// How much.
        size: u64,
    },
}

fn shown(output: &str) -> String {
    if output.is_empty() {
        ", without a word".into()
    } else {
        format!("; it wrote:\n{output}")
    }
}

/// Runs `argv` in `folder` as one of `children` and gives what it wrote to stdout.
///
/// # Errors
/// [`ProcessError`].
///
/// # Cancel safety
/// Dropping it ends the child and all that it started.
pub async fn run(
    children: &Children,
    argv: &[String],
    folder: Option<&Path>,
    limit: Duration,
) -> Result<String, ProcessError> {
    let mut out = execute(children, argv, folder, limit).await?;
    Ok(tail(&mut out))
}

/// Runs `argv` as one of `children` and gives all that it wrote to stdout, byte for byte.
///
/// # Errors
/// [`ProcessError`], also when it is more than 64 MiB.
///
/// # Cancel safety
/// As [`run`].
pub async fn answer(children: &Children, argv: &[String], limit: Duration) -> Result<Vec<u8>, ProcessError> {
    let mut out = execute(children, argv, None, limit).await?;
    let size = out.metadata().map_or(0, |metadata| metadata.len());
    if size > ANSWER_BYTES {
        let command = argv.join(" ");
        return Err(ProcessError::TooMuch { command, size });
    }
    let mut bytes = Vec::new();
    out.rewind()
        .and_then(|()| out.read_to_end(&mut bytes))
        .map_err(|source| ProcessError::Start {
            program: argv.first().cloned().unwrap_or_default(),
            source,
        })?;
    Ok(bytes)
}

/// Runs `argv` in `folder` and gives the file with what it wrote to stdout.
async fn execute(
    children: &Children,
    argv: &[String],
    folder: Option<&Path>,
    limit: Duration,
) -> Result<File, ProcessError> {
    let program = argv.first().ok_or(ProcessError::Empty)?;
    let start = |source| ProcessError::Start {
        program: program.clone(),
        source,
    };
    let (mut out, mut err) = (unnamed().map_err(start)?, unnamed().map_err(start)?);
    let output = (out.try_clone().map_err(start)?, err.try_clone().map_err(start)?);
    let mut running = if children.is_noting() {
        let mut running = Running::new(at_the_gate(argv, folder, output).map_err(start)?);
        let_loose(children, argv, &mut running).await?;
        running
    } else {
        Running::new(spawn(program, &argv[1..], folder, Stdio::null(), output).map_err(start)?)
    };
    let waited = tokio::time::timeout(limit, running.wait()).await;
    let Ok(ended) = waited else {
        running.end().await;
        return Err(ProcessError::Timeout {
            command: argv.join(" "),
            limit,
            output: last_lines(&mut out, &mut err),
        });
    };
    // What it started and left behind, such as a service, stays.
    running.let_go();
    let status = ended.map_err(start)?;
    if status.success() {
        return Ok(out);
    }
    Err(ProcessError::Status {
        command: argv.join(" "),
        status,
        output: last_lines(&mut out, &mut err),
    })
}

/// Starts `program` as the first of a group of its own.
fn spawn(
    program: &str,
    arguments: &[String],
    folder: Option<&Path>,
    input: Stdio,
    (out, err): (File, File),
) -> io::Result<Child> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the owner of the node's child processes"
    )]
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(input)
        .stdout(out)
        .stderr(err)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    command.spawn()
}

/// Starts the process that becomes `argv` once its gate is opened.
fn at_the_gate(argv: &[String], folder: Option<&Path>, output: (File, File)) -> io::Result<Child> {
    gate::find(&argv[0], folder)?;
    let words = gate::ARGUMENTS.iter().map(ToString::to_string);
    let words: Vec<_> = words.chain(argv.iter().cloned()).collect();
    spawn(gate::SHELL, &words, folder, Stdio::piped(), output)
}

/// Notes the command `argv`, then opens its gate.
async fn let_loose(children: &Children, argv: &[String], running: &mut Running) -> Result<(), ProcessError> {
    let unnoted = |source| ProcessError::Unnoted {
        program: argv[0].clone(),
        source,
    };
    failpoint::hit("child.spawned");
    let note = children.note(running.id(), argv).map_err(unnoted)?;
    let mark = note
        .as_ref()
        .map(|note| note.name.to_string())
        .unwrap_or_default();
    running.noted(note);
    failpoint::hit("child.noted");
    if let Some(gate) = running.gate() {
        gate::open(gate, &mark).await.map_err(unnoted)?;
    }
    failpoint::hit("child.started");
    Ok(())
}

/// A file in memory: on a full disk a command that says something would fail, also the one that puts the node back.
fn unnamed() -> io::Result<File> {
    let file = rustix::fs::memfd_create("kato-output", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(file.into())
}

fn tail(file: &mut File) -> String {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::new();
    let read = file
        .seek(io::SeekFrom::Start(length.saturating_sub(SHOWN_BYTES)))
        .and_then(|_| file.take(SHOWN_BYTES).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("(its output cannot be read: {error})"),
    }
}

fn last_lines(out: &mut File, err: &mut File) -> String {
    let text = format!("{}{}", tail(out), tail(err));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests;
