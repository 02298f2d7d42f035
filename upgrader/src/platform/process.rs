//! Runs one child process: program and arguments, never a shell line; no input; a deadline; output kept for errors.
//!
//! Output goes to unnamed files instead of pipes, so that a service which the child starts and which keeps its output open
//! does not hold the run back. At the deadline, and when nobody waits for it any more, the child's whole process group is
//! ended ([`running`]).

mod running;

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::Path,
    process::Stdio,
    time::Duration,
};

use self::running::Running;

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

/// Runs `argv` in `folder` and gives what it wrote to stdout.
///
/// # Errors
/// [`ProcessError`].
///
/// # Cancel safety
/// Dropping it ends the child and all that it started.
pub async fn run(argv: &[String], folder: Option<&Path>, limit: Duration) -> Result<String, ProcessError> {
    execute(argv, folder, limit).await.map(|mut out| tail(&mut out))
}

/// Runs `argv` and gives all that it wrote to stdout, byte for byte.
///
/// # Errors
/// [`ProcessError`], also when it is more than 64 MiB.
///
/// # Cancel safety
/// As [`run`].
pub async fn answer(argv: &[String], limit: Duration) -> Result<Vec<u8>, ProcessError> {
    let mut out = execute(argv, None, limit).await?;
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
async fn execute(argv: &[String], folder: Option<&Path>, limit: Duration) -> Result<File, ProcessError> {
    let (program, arguments) = argv.split_first().ok_or(ProcessError::Empty)?;
    let start = |source| ProcessError::Start {
        program: program.clone(),
        source,
    };
    let (mut out, mut err) = (unnamed().map_err(start)?, unnamed().map_err(start)?);
    #[expect(
        clippy::disallowed_methods,
        reason = "the owner of the node's child processes"
    )]
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(start)?)
        .stderr(err.try_clone().map_err(start)?)
        .process_group(0)
        .kill_on_drop(true);
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let mut running = Running::new(command.spawn().map_err(start)?);
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
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(Into::into).into()
    }

    async fn run_for(script: &str, limit: Duration) -> Result<String, ProcessError> {
        run(&sh(script), None, limit).await
    }

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn output_is_given_and_input_is_closed() {
        assert_eq!(run_for("echo hello; cat", LONG).await.unwrap(), "hello\n");
    }

    #[tokio::test]
    async fn c11_a_failure_shows_the_status_and_the_last_fifty_lines() {
        let error = run_for("seq 1 60; echo why >&2; exit 3", LONG)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("60\nwhy"),
            "{error}"
        );
        assert!(error.contains("\n12\n") && !error.contains("\n11\n"), "{error}");
        let error = run(&["/nonexistent/program".into()], None, LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, ProcessError::Start { .. }));
    }

    #[tokio::test]
    async fn c20_a_command_that_hangs_is_stopped_with_all_its_children() {
        let error = run_for("echo waiting; sleep 600 & wait", Duration::from_millis(300))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, ProcessError::Timeout { output, .. } if output == "waiting"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn c20_a_command_that_is_ended_may_put_its_things_in_order_first() {
        let script = "trap 'echo in order; exit 1' TERM; sleep 600 & wait";
        let error = run_for(script, Duration::from_millis(300)).await.unwrap_err();
        assert!(
            matches!(&error, ProcessError::Timeout { output, .. } if output == "in order"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn c20_a_command_that_nobody_waits_for_any_more_is_ended_also_when_it_hears_no_signal() {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("pid");
        let script = format!(
            "trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; sleep 600",
            noted.display()
        );
        let is_noted = async {
            while !noted.exists() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ended = run_for(&script, LONG) => {}
            () = is_noted => {}
        }
        let pid = std::fs::read_to_string(&noted).unwrap();
        let process = Path::new("/proc").join(pid.trim());
        // Killed is killed, but the kernel and the runtime take their time to clean up.
        let is_alive =
            || std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| !stat.contains(") Z"));
        let is_gone = async {
            while is_alive() {
                tokio::task::yield_now().await;
            }
        };
        assert!(
            tokio::time::timeout(LONG, is_gone).await.is_ok(),
            "{}",
            process.display()
        );
    }

    #[tokio::test]
    async fn a_service_that_keeps_its_output_open_does_not_hold_the_run_back() {
        let output = run_for("sleep 5 & echo started", Duration::from_secs(4))
            .await
            .unwrap();
        assert_eq!(output, "started\n");
    }
}
