//! Child processes: argv only, a clean environment, a deadline, and the whole output.
//!
//! The environment is cleared because a proxy variable or a locale of the machine must not decide a test.

use std::{
    ffi::OsStr,
    io::{Read, Write},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::wait;

/// What every child sees.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a process that has ended may keep its pipes open through its own children.
const PIPES: Duration = Duration::from_secs(5);

/// `program` with a clean environment and closed stdin.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place in the tests that makes commands"
)]
pub fn new(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

/// Runs `argv` to its end and wants success; returns stdout.
///
/// # Errors
/// When it cannot start, does not end in a minute, or fails; its stderr is in the message.
pub fn ok<A: AsRef<OsStr>>(argv: &[A]) -> Result<String> {
    let (program, rest) = argv.split_first().context("an empty command")?;
    let mut command = new(program);
    command.args(rest);
    success(&line(&command), run(command, Duration::from_secs(60), &[])?)
}

/// Runs `command` to its end within `deadline`, with `stdin` as its input.
///
/// # Errors
/// When it cannot start or the deadline has passed; it is killed then.
pub fn run(mut command: Command, deadline: Duration, stdin: &[u8]) -> Result<Output> {
    let line = line(&command);
    if !stdin.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let input = child.stdin.take();
    thread::scope(|scope| {
        // A child that reads nothing is no error of ours: how it ends says enough.
        scope.spawn(move || input.map(|mut pipe| pipe.write_all(stdin)));
        let status = end(&mut child, &line, deadline)?;
        let (stdout, stderr) = (stdout.recv_timeout(PIPES), stderr.recv_timeout(PIPES));
        let (Ok(stdout), Ok(stderr)) = (stdout, stderr) else {
            bail!("`{line}` ended with {status}, but a child of it keeps its output open");
        };
        Ok(Output {
            status,
            stdout,
            stderr,
        })
    })
}

/// Waits for the end of `child` and kills it when `deadline` has passed.
///
/// # Errors
/// When it had to be killed.
pub fn end(child: &mut Child, line: &str, deadline: Duration) -> Result<ExitStatus> {
    let ended = wait::until(&format!("end of `{line}`"), deadline, || {
        child.try_wait().transpose()
    });
    if ended.is_err() {
        child.kill().with_context(|| format!("cannot kill `{line}`"))?;
        child
            .wait()
            .with_context(|| format!("cannot wait for `{line}`"))?;
    }
    ended?.with_context(|| format!("cannot wait for `{line}`"))
}

/// The stdout of a command that succeeded, as text without the last newline.
///
/// # Errors
/// When it failed; its stderr is in the message.
pub fn success(line: &str, output: Output) -> Result<String> {
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {}: {}", output.status, stderr.trim_end());
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("`{line}` did not print UTF-8"))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// The command as a person would type it, for messages.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe cannot stop the child.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // An unreadable pipe ends like a closed one; what was read so far counts.
            pipe.read_to_end(&mut bytes).ok();
        }
        sender.send(bytes).ok();
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_input_of_more_than_a_pipe_pass_whole() {
        let megabyte = vec![b'x'; 1 << 20];
        let output = run(new("cat"), Duration::from_secs(20), &megabyte).unwrap();
        assert_eq!(output.stdout, megabyte);
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_and_named() {
        let mut command = new("sleep");
        command.arg("600");
        let error = run(command, Duration::from_millis(50), &[]).unwrap_err();
        assert!(error.to_string().contains("end of `sleep 600`"), "{error}");
    }

    #[test]
    fn failure_carries_what_was_said() {
        let error = ok(&["ls", "/no/such/folder"]).unwrap_err().to_string();
        assert!(
            error.contains("/no/such/folder") && error.contains("No such file"),
            "{error}"
        );
    }
}
