//! The built `kato-proxy` as a child process: started on free ports, read from its own announcement, ended by signals.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use kato_shared::api::Stats;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    task::{JoinSet, yield_now},
    time::timeout,
};

use crate::{
    binaries,
    client::{Client, Request},
};

/// Long beside a start or an end on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The program under test: `$KATO_PROXY_BIN`, else the one that this workspace builds.
///
/// # Errors
/// When it has not been built.
pub fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os("KATO_PROXY_BIN") {
        return Ok(PathBuf::from(named));
    }
    binaries::built("kato-proxy")
}

#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
fn command() -> Result<Command> {
    let mut command = Command::new(program()?);
    // A proxy variable of the machine must not decide a test.
    command
        .env_clear()
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    Ok(command)
}

/// How to start a proxy.
#[derive(Debug, Clone)]
pub struct Settings {
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl Settings {
    /// Ports chosen by the system, the store in `cache`, no upstream.
    pub fn new(cache: &Path) -> Self {
        let fixed = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--cache-dir",
        ];
        let arguments = fixed
            .into_iter()
            .map(OsString::from)
            .chain([cache.as_os_str().to_owned()])
            .collect();
        Self {
            arguments,
            environment: Vec::new(),
        }
    }

    /// One more upstream.
    #[must_use]
    pub fn upstream(self, name: &str, url: &str) -> Self {
        self.arguments(&["--upstream", &format!("{name}={url}")])
    }

    /// Other addresses for clients and operators.
    #[must_use]
    pub fn listening_on(mut self, data: &str, admin: &str) -> Self {
        for (flag, address) in [("--listen", data), ("--admin", admin)] {
            if let Some(at) = self.arguments.iter().position(|word| word == flag) {
                self.arguments[at + 1] = OsString::from(address);
            }
        }
        self
    }

    /// More arguments.
    #[must_use]
    pub fn arguments(mut self, more: &[&str]) -> Self {
        self.arguments.extend(more.iter().map(OsString::from));
        self
    }

    /// One more variable of its environment, which has next to none.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the proxy and waits until it has said where it listens.
    ///
    /// # Errors
    /// When it ends before that, with what it wrote.
    pub async fn start(&self) -> Result<Proxy> {
        let mut child = command()?
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .spawn()
            .context("cannot start kato-proxy")?;
        let log = Log::default();
        let mut reading = JoinSet::new();
        if let Some(mut pipe) = child.stderr.take() {
            let log = log.clone();
            reading.spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                    log.append(&buffer[..count]);
                }
            });
        }
        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let announced = timeout(SOON, listeners(&mut lines)).await;
        let Announced { data, tls, admin } = announced
            .context("kato-proxy did not say in time where it listens")
            .flatten()
            .with_context(|| format!("kato-proxy wrote:\n{}", log.text()))?;
        reading.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Proxy {
            data,
            tls,
            admin,
            child,
            log,
            _reading: reading,
        })
    }

    /// Runs the proxy to its end, which must come soon by itself.
    ///
    /// # Errors
    /// When it keeps running.
    pub async fn run_to_end(&self) -> Result<Ended> {
        run_to_end(&self.arguments).await
    }
}

/// Runs `kato-proxy` with `arguments` to its end.
///
/// # Errors
/// When it keeps running.
pub async fn run_to_end<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Result<Ended> {
    let child = command()?
        .args(arguments)
        .spawn()
        .context("cannot start kato-proxy")?;
    let output = timeout(SOON, child.wait_with_output())
        .await
        .context("kato-proxy keeps running")??;
    let stderr = String::from_utf8(output.stderr).context("stderr is not UTF-8")?;
    let stdout = String::from_utf8(output.stdout).context("stdout is not UTF-8")?;
    Ok(Ended {
        code: output.status.code(),
        stderr,
        stdout,
    })
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    /// All it wrote there.
    pub stderr: String,
    /// All it wrote there.
    pub stdout: String,
}

/// One line of the announcement on stdout.
#[derive(Deserialize)]
struct Listener {
    listener: String,
    address: SocketAddr,
}

/// Where it listens; the address of operators is said last.
struct Announced {
    data: SocketAddr,
    tls: Option<SocketAddr>,
    admin: SocketAddr,
}

async fn listeners(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Announced> {
    let (mut data, mut tls, mut admin) = (None, None, None);
    loop {
        if let (Some(data), Some(admin)) = (data, admin) {
            return Ok(Announced { data, tls, admin });
        }
        let Some(line) = lines.next_line().await? else {
            bail!("kato-proxy ended at once")
        };
        let said: Listener = serde_json::from_str(&line).with_context(|| format!("stdout: {line}"))?;
        match said.listener.as_str() {
            "data" => data = Some(said.address),
            "tls" => tls = Some(said.address),
            "admin" => admin = Some(said.address),
            other => bail!("unknown listener {other:?}"),
        }
    }
}

/// A running proxy; it is killed when dropped, and its log is then shown with a failing test.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients ask.
    pub data: SocketAddr,
    /// Where clients ask with TLS, if it has a certificate.
    pub tls: Option<SocketAddr>,
    /// Where operators ask.
    pub admin: SocketAddr,
    child: Child,
    log: Log,
    _reading: JoinSet<()>,
}

impl Proxy {
    /// A client of the data listener.
    pub fn client(&self) -> Client {
        Client::new(self.data)
    }

    /// A client of the admin listener.
    pub fn admin_client(&self) -> Client {
        Client::new(self.admin)
    }

    /// The statistics that it gives to operators.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn stats(&self) -> Result<Stats> {
        let (_, body) = self.admin_client().fetch("/-/api/stats").await?;
        serde_json::from_slice(&body).context("the statistics")
    }

    /// Waits until the statistics are as wanted.
    ///
    /// # Errors
    /// When that does not come soon.
    pub async fn wait_for_stats(&self, wanted: impl Fn(&Stats) -> bool) -> Result<()> {
        let reached = async {
            while !wanted(&self.stats().await?) {}
            Ok(())
        };
        timeout(SOON, reached)
            .await
            .context("the statistics stay otherwise")?
    }

    /// Waits until the store alone answers `request` with `content`, however stale, and a kill would lose nothing: a client's body
    /// ends a moment before that.
    ///
    /// # Errors
    /// When that does not come soon; never for what may not be stale, such as `must-revalidate`.
    pub async fn wait_until_stored(&self, request: &Request, content: &[u8]) -> Result<()> {
        let request = request
            .clone()
            .header("cache-control", "only-if-cached, max-stale");
        let stored = async {
            while request.fetch().await?.1 != content {}
            while self.stats().await?.queued_responses > 0 {}
            Ok(())
        };
        timeout(SOON, stored)
            .await
            .with_context(|| format!("not stored in time: {request:?}"))?
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Resident memory now, in bytes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?.as_raw_nonzero()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kilobytes: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .context("VmRSS is no number")?;
        Ok(kilobytes * 1024)
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When it is not running.
    pub fn terminate(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::TERM).context("cannot send SIGTERM")
    }

    /// Sends SIGHUP: it reads its settings again.
    ///
    /// # Errors
    /// When it is not running.
    pub fn reload(&self) -> Result<()> {
        kill_process(self.pid()?, Signal::HUP).context("cannot send SIGHUP")
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    /// When that does not come soon.
    pub async fn wait_for_log(&self, text: &str) -> Result<()> {
        let written = async {
            while !self.log().contains(text) {
                yield_now().await;
            }
        };
        timeout(SOON, written)
            .await
            .with_context(|| format!("it does not say {text:?}"))
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it ended otherwise.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.start_kill().context("cannot kill")?;
        let status = self.ended().await?;
        ensure!(
            status.signal() == Some(Signal::KILL.as_raw()),
            "ended with {status} before the kill"
        );
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When that does not come soon.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        Ok(timeout(SOON, self.child.wait())
            .await
            .context("kato-proxy does not end")??)
    }

    fn pid(&self) -> Result<Pid> {
        let raw = self.child.id().context("kato-proxy is not running")?;
        Pid::from_raw(i32::try_from(raw)?).context("process id 0")
    }
}

impl Drop for Proxy {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with a failing test")]
    fn drop(&mut self) {
        eprintln!("--- kato-proxy ---\n{}", self.log());
    }
}

/// Shared text that grows.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn append(&self, bytes: &[u8]) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}
