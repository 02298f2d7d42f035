//! Starts a program of this machine with closed stdin (or a password on it) and a deadline, and reads what it says. The one place of `ssh/` that
//! spawns.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use super::{Ended, Output, STDERR_KEPT, secret::Secret};

/// Why a program gave no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("starting `{program}` failed")]
    Spawn {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("reading from `{program}` failed")]
    Read {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    #[error("nobody reads it any more")]
    Unread,
}

/// A program with its arguments.
#[derive(Debug)]
pub(super) struct Program {
    command: Command,
    name: String,
    input: Option<Secret>,
}

impl Program {
    #[expect(
        clippy::disallowed_methods,
        reason = "the owner of processes that reach nodes"
    )]
    pub(super) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self {
            command,
            name: program.display().to_string(),
            input: None,
        }
    }

    /// Adds variables to the environment.
    pub(super) fn env<S: AsRef<std::ffi::OsStr>>(
        mut self,
        env: impl IntoIterator<Item = (&'static str, S)>,
    ) -> Self {
        self.command.envs(env);
        self
    }

    /// Lets the program read this password and then the end of its input.
    pub(super) fn input(mut self, input: Option<Secret>) -> Self {
        if input.is_some() {
            self.command.stdin(Stdio::piped());
        }
        self.input = input;
        self
    }

    pub(super) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Replaces the whole environment.
    pub(super) fn only_env(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.command.env_clear().envs(env);
        self
    }

    /// Lets the program's own messages go nowhere: for programs that stay in the background and would keep a pipe open.
    pub(super) fn silent(mut self) -> Self {
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        self
    }

    /// Runs it to its end within `deadline`; lines of its standard output go to `lines` when given, else into the output.
    pub(super) async fn run(
        mut self,
        deadline: Option<Duration>,
        lines: Option<mpsc::Sender<String>>,
    ) -> Result<Output, ProcessError> {
        let mut child = self.command.spawn().map_err(|source| ProcessError::Spawn {
            program: self.name.clone(),
            source,
        })?;
        let (stdin, input) = (child.stdin.take(), self.input.take());
        let name = self.name.clone();
        let work = async {
            if let (Some(mut pipe), Some(input)) = (stdin, input) {
                // A program that ends without reading says so by its end.
                let written = pipe.write_all(&input.line()).await;
                tracing::trace!(ok = written.is_ok(), "a password was handed over");
            }
            finish(child, &name, lines).await
        };
        match deadline {
            None => work.await,
            Some(limit) => tokio::time::timeout(limit, work)
                .await
                .unwrap_or(Err(ProcessError::Deadline(limit))),
        }
    }
}

async fn finish(
    mut child: Child,
    name: &str,
    lines: Option<mpsc::Sender<String>>,
) -> Result<Output, ProcessError> {
    let read = |source| ProcessError::Read {
        program: name.to_owned(),
        source,
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let out = async {
        match (stdout, lines) {
            (None, _) => Ok(String::new()),
            (Some(pipe), None) => whole(pipe).await.map_err(read),
            (Some(pipe), Some(lines)) => each_line(pipe, lines, name).await.map(|()| String::new()),
        }
    };
    let err = async {
        match stderr {
            None => Ok(String::new()),
            Some(pipe) => tail(pipe).await.map_err(read),
        }
    };
    let (stdout, stderr) = tokio::try_join!(out, err)?;
    let status = child.wait().await.map_err(read)?;
    Ok(Output {
        ended: ended(status),
        stdout,
        stderr,
    })
}

async fn whole(mut pipe: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last [`STDERR_KEPT`] bytes.
async fn tail(mut pipe: impl AsyncRead + Unpin) -> std::io::Result<String> {
    let mut kept: Vec<u8> = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let count = pipe.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..count]);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
    Ok(String::from_utf8_lossy(&kept).trim().to_owned())
}

async fn each_line(
    pipe: impl AsyncRead + Unpin,
    lines: mpsc::Sender<String>,
    name: &str,
) -> Result<(), ProcessError> {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = reader
            .read_until(b'\n', &mut line)
            .await
            .map_err(|source| ProcessError::Read {
                program: name.to_owned(),
                source,
            })?;
        // A last line without its newline was cut off; it is left to the next connection to bring it whole.
        if count == 0 || line.last() != Some(&b'\n') {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if lines.send(text).await.is_err() {
            return Err(ProcessError::Unread);
        }
    }
}

fn ended(status: std::process::ExitStatus) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => from_shell(code),
        (None, Some(signal)) => Ended::Signal(signal),
        // Neither exited nor killed: stopped or continued, which `wait` does not report.
        (None, None) => Ended::Exit(-1),
    }
}

/// A shell says 128 + n for a program that signal n killed; `kato` itself never exits with such a code.
fn from_shell(code: i32) -> Ended {
    match code {
        129..=192 => Ended::Signal(code - 128),
        code => Ended::Exit(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Program {
        Program::new(Path::new("/bin/sh")).args(["-c", script])
    }

    #[tokio::test]
    async fn output_and_exit_code_come_back_and_stdin_is_closed() {
        let output = sh("cat; echo out; echo err >&2; exit 21")
            .run(Some(Duration::from_secs(30)), None)
            .await
            .unwrap();
        assert_eq!(output.ended, Ended::Exit(21));
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err"));
    }

    #[tokio::test]
    async fn r17_a_password_is_one_line_and_then_the_input_ends() {
        let output = sh("read -r one; printf '<%s>' \"$one\"; cat")
            .input(Some(Secret::new("it's $HOME".into())))
            .run(Some(Duration::from_secs(30)), None)
            .await
            .unwrap();
        assert_eq!(output.stdout, "<it's $HOME>");
    }

    #[tokio::test]
    async fn a_signal_is_no_exit_code_even_behind_a_shell() {
        let direct = sh("kill -9 $$").run(None, None).await.unwrap();
        assert_eq!(direct.ended, Ended::Signal(9));
        let behind = sh("sh -c 'kill -15 $$'; exit $?").run(None, None).await.unwrap();
        assert_eq!(behind.ended, Ended::Signal(15));
    }

    #[tokio::test]
    async fn c25_a_program_that_hangs_is_ended_at_its_deadline() {
        let error = sh("exec sleep 60")
            .run(Some(Duration::from_millis(50)), None)
            .await;
        assert!(matches!(error, Err(ProcessError::Deadline(_))), "{error:?}");
    }

    #[tokio::test]
    async fn lines_come_whole_and_a_torn_last_line_does_not_come() {
        let (send, mut receive) = mpsc::channel(1);
        let run = sh("printf 'one\\ntwo\\nthr'").run(None, Some(send));
        let collect = async {
            let mut all = Vec::new();
            while let Some(line) = receive.recv().await {
                all.push(line);
            }
            all
        };
        let (output, lines) = tokio::join!(run, collect);
        assert!(output.unwrap().ended.is_success());
        assert_eq!(lines, ["one", "two"]);
    }

    #[tokio::test]
    async fn the_last_words_on_stderr_are_kept() {
        let output = sh("yes filler | head -n 4000 >&2; echo the cause >&2")
            .run(None, None)
            .await
            .unwrap();
        assert!(output.stderr.len() <= STDERR_KEPT);
        assert!(output.stderr.ends_with("the cause"));
    }
}
