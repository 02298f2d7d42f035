//! Starts the cache on Core, or finds that it runs already; and stops it.
//!
//! Flow: the settings that are wanted → a cache of ours that runs with exactly these is used as it is → else an old one
//! is stopped, the ports are checked, the settings written durably, the cache started (systemd unit, or our own
//! [`super::supervise`]) → wait for its health with a deadline.
//!
//! Invariants: asked twice, the cache is started once; nothing of somebody else is ever stopped.

mod error;

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kato_shared::{Digest, chain::Chain, durable};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};
use url::Url;

use super::{
    holder,
    process::{self, Running},
    proxy_settings::Wanted,
    report::Report,
    supervise::{Files, STOP_GRACE},
    systemd::Systemd,
};
use crate::fetch::probe;
pub use error::StartError;

/// How long a cache may take from its start until it is healthy. It opens its store without a scan, so that this is
/// generous; a slower disk than that would not serve a cluster.
const HEALTHY_WITHIN: Duration = Duration::from_secs(30);

/// How often its health is asked for meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// What is needed to start the cache.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Its files.
    pub files: Files,
    /// Its program.
    pub program: PathBuf,
    /// Its settings.
    pub wanted: Wanted,
    /// The service manager; without one, our own supervisor is used.
    pub systemd: Option<Systemd>,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It ran already.
    Already,
    /// It was started.
    Now,
}

/// The program of the cache: a path is taken as it is, a name is looked for in `folders`, in order.
///
/// # Errors
/// [`StartError::NoProgram`].
pub fn locate(program: &Path, folders: impl IntoIterator<Item = PathBuf>) -> Result<PathBuf, StartError> {
    let candidates: Vec<_> = if program.components().count() > 1 {
        vec![program.to_owned()]
    } else {
        folders.into_iter().map(|folder| folder.join(program)).collect()
    };
    match candidates.iter().find(|candidate| candidate.is_file()) {
        Some(found) => Ok(found.clone()),
        None => Err(StartError::NoProgram {
            program: program.to_owned(),
            looked_in: candidates,
        }),
    }
}

impl Launch {
    /// Makes the cache run with the wanted settings.
    ///
    /// # Errors
    /// [`StartError`]; a cache that was started here and is not healthy is stopped again.
    pub async fn ensure(&self, report: &dyn Report) -> Result<Started, StartError> {
        let settings = self.wanted.to_toml()?;
        if self.runs_with(settings.as_bytes()).await {
            return Ok(Started::Already);
        }
        if self.stop().await? {
            report.say("the cache that ran with other settings, or unattended, was stopped");
        }
        holder::check_free(self.wanted.listen())?;
        holder::check_free(self.wanted.admin())?;
        durable::create_folder(self.files.folder())?;
        durable::create_folder(&self.wanted.dir)?;
        durable::write(&self.files.settings(), settings.as_bytes(), 0o644)?;
        report.say(&format!(
            "starting {} on {}, waiting until it is healthy",
            self.program.display(),
            self.wanted.listen()
        ));
        let healthy = if let Some(systemd) = &self.systemd {
            systemd.start(&self.program, &self.files.settings()).await?;
            self.wait_until_healthy(None, 0).await
        } else {
            let log_start = fs::metadata(self.files.log()).map_or(0, |log| log.len());
            let mut supervisor = self.spawn_supervisor()?;
            self.wait_until_healthy(Some(&mut supervisor), log_start).await
        };
        if let Err(error) = healthy {
            if let Err(failed) = self.stop().await {
                tracing::warn!(error = %Chain(&failed), "the cache that is not healthy could not be stopped");
            }
            return Err(error);
        }
        Ok(Started::Now)
    }

    /// Stops a cache of ours, with its supervisor; `false` when there was none.
    ///
    /// # Errors
    /// [`StartError`] when it belongs to somebody else.
    pub async fn stop(&self) -> Result<bool, StartError> {
        stop(&self.files, self.systemd.as_ref()).await
    }

    /// Where its health is asked for.
    pub fn health_url(&self) -> Url {
        admin_url(&self.wanted, "-/healthz")
    }

    /// Whether a cache of ours runs, attended, with exactly these settings and this program.
    async fn runs_with(&self, settings: &[u8]) -> bool {
        let attended = match &self.systemd {
            Some(systemd) => {
                fs::read(self.files.settings()).is_ok_and(|now| now == settings) && systemd.is_active().await
            }
            None => self.files.read_record().is_some_and(|record| {
                record.settings == Digest::of(settings)
                    && record.program == self.program
                    && record.supervisor.is_running()
            }),
        };
        // Between two lives of the cache its supervisor is about to start it again: that is waited for here.
        attended && self.wait_until_healthy(None, 0).await.is_ok()
    }

    /// A `kato` of its own session; what it and the cache say goes to the log.
    #[expect(clippy::disallowed_methods, reason = "the owner of the supervisor's process")]
    fn spawn_supervisor(&self) -> Result<Child, StartError> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o644)
            .open(self.files.log())
            .map_err(StartError::process("opening the log of the cache"))?;
        let second = log
            .try_clone()
            .map_err(StartError::process("opening the log of the cache"))?;
        let kato = std::env::current_exe().map_err(StartError::process("finding the running program"))?;
        Command::new(kato)
            .args(["cache", "supervise", "--folder"])
            .arg(self.files.folder())
            .arg("--program")
            .arg(&self.program)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .spawn()
            .map_err(StartError::process("starting the supervisor of the cache"))
    }

    async fn wait_until_healthy(
        &self,
        mut supervisor: Option<&mut Child>,
        log_start: u64,
    ) -> Result<(), StartError> {
        let end = Instant::now() + HEALTHY_WITHIN;
        let url = self.health_url();
        loop {
            let Err(source) = probe::answers(&url).await else {
                return Ok(());
            };
            let ended = match &mut supervisor {
                Some(supervisor) => supervisor.try_wait(),
                None => Ok(None),
            };
            if ended
                .map_err(StartError::process("watching the supervisor of the cache"))?
                .is_some()
            {
                return Err(StartError::Ended {
                    log: self.files.log(),
                    tail: tail(&self.files.log(), log_start),
                });
            }
            if Instant::now() >= end {
                return Err(StartError::Unhealthy {
                    log: self.files.log(),
                    source: Box::new(source),
                });
            }
            sleep(ASK_EVERY).await;
        }
    }
}

/// A path of the cache's admin listener.
pub fn admin_url(wanted: &Wanted, path: &str) -> Url {
    let mut url = super::place::http_url(wanted.admin());
    url.set_path(path);
    url
}

/// Stops the cache with these files; `false` when there was none. Processes are known by their record, or by being told
/// to serve with exactly this settings file; never by name.
///
/// # Errors
/// [`StartError`] when it belongs to somebody else.
pub async fn stop(files: &Files, systemd: Option<&Systemd>) -> Result<bool, StartError> {
    let mut stopped = false;
    if let Some(systemd) = systemd {
        stopped |= systemd.stop().await?;
    }
    let record = files.read_record();
    let supervisor = record.as_ref().map(|record| record.supervisor.clone());
    let proxy = record.and_then(|record| record.proxy);
    let settings = files.settings().display().to_string();
    let serves = |running: &Running| {
        running
            .arguments
            .windows(3)
            .any(|words| words == ["serve", "--config", &settings])
    };
    let others = process::others().map_err(StartError::process("reading /proc"))?;
    let strays = others.into_iter().filter(serves).map(|running| running.id);
    // The supervisor first, else it would start the cache again.
    for process in supervisor.into_iter().chain(proxy).chain(strays) {
        stopped |= process.is_running();
        process
            .stop(STOP_GRACE + Duration::from_secs(5))
            .await
            .map_err(StartError::process("stopping the cache"))?;
    }
    durable::remove(&files.record())?;
    Ok(stopped)
}

/// The last lines of `log` from the byte `start` on.
fn tail(log: &Path, start: u64) -> String {
    const LINES: usize = 12;
    let bytes = fs::read(log).unwrap_or_default();
    let new = usize::try_from(start)
        .ok()
        .and_then(|start| bytes.get(start..))
        .unwrap_or_default();
    let text = String::from_utf8_lossy(new);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_looked_for_beside_and_in_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let (beside, path) = (folder.path().join("beside"), folder.path().join("path"));
        let folders = || [beside.clone(), path.clone()];
        let name = Path::new("kato-proxy");
        let error = locate(name, folders()).unwrap_err().to_string();
        assert!(
            error.contains("`kato-proxy` was not found") && error.contains("beside/kato-proxy"),
            "{error}"
        );
        for place in [&path, &beside] {
            durable::create_folder(place).unwrap();
            durable::write(&place.join(name), b"", 0o755).unwrap();
            assert_eq!(locate(name, folders()).unwrap(), place.join(name));
        }
        assert!(matches!(
            locate(Path::new("/none/kato-proxy"), folders()),
            Err(StartError::NoProgram { .. })
        ));
    }

    #[test]
    fn the_tail_is_of_this_start_alone() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        durable::write(&log, b"old\nnew 1\nnew 2\n", 0o644).unwrap();
        assert_eq!(tail(&log, 4), "new 1\nnew 2");
        assert_eq!(tail(&log, 99), "");
    }
}
