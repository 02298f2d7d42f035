//! The cache as a systemd unit, where systemd is the first process. It restarts the cache and survives a reboot of Core.

use std::{
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kato_shared::durable;
use tokio::{process::Command, time::timeout};

/// The unit's name.
pub const UNIT: &str = "kato-cache.service";

/// How long one `systemctl` may take; stopping waits for the cache's answers.
const DEADLINE: Duration = Duration::from_secs(60);

/// The system's service manager.
#[derive(Debug, Clone)]
pub struct Systemd {
    systemctl: PathBuf,
    units: PathBuf,
}

/// A command of the service manager that failed.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// It could not be run.
    #[error("running `{command}` failed")]
    Run {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took too long.
    #[error("`{command}` did not end within {} s", DEADLINE.as_secs())]
    Deadline {
        /// The command line.
        command: String,
    },
    /// It said no.
    #[error("`{command}` ended with {status}: {said}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last words.
        said: String,
    },
    /// The unit could not be written.
    #[error(transparent)]
    Durable(#[from] durable::DurableError),
}

impl Systemd {
    /// The service manager of this machine; `None` where systemd is not the first process (`sd_booted(3)`).
    pub fn of_this_machine() -> Option<Self> {
        Path::new("/run/systemd/system").is_dir().then(|| Self {
            systemctl: "systemctl".into(),
            units: "/etc/systemd/system".into(),
        })
    }

    /// Starts the cache, and with every boot from now on.
    ///
    /// # Errors
    /// [`SystemdError`] with what the service manager said.
    pub async fn start(&self, program: &Path, settings: &Path) -> Result<(), SystemdError> {
        durable::write(&self.units.join(UNIT), unit(program, settings).as_bytes(), 0o644)?;
        self.call(&["daemon-reload"]).await?;
        self.call(&["enable", UNIT]).await?;
        // `restart` also takes over new settings of a unit that runs.
        self.call(&["restart", UNIT]).await
    }

    /// Whether the unit runs.
    pub async fn is_active(&self) -> bool {
        self.call(&["is-active", "--quiet", UNIT]).await.is_ok()
    }

    /// Stops the cache for good; `false` when there was none.
    ///
    /// # Errors
    /// [`SystemdError`] with what the service manager said.
    pub async fn stop(&self) -> Result<bool, SystemdError> {
        if !self.units.join(UNIT).exists() {
            return Ok(false);
        }
        self.call(&["disable", "--now", UNIT]).await?;
        durable::remove(&self.units.join(UNIT))?;
        self.call(&["daemon-reload"]).await?;
        Ok(true)
    }

    #[expect(clippy::disallowed_methods, reason = "the owner of systemctl")]
    async fn call(&self, arguments: &[&str]) -> Result<(), SystemdError> {
        let command = format!("{} {}", self.systemctl.display(), arguments.join(" "));
        let output = Command::new(&self.systemctl)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match timeout(DEADLINE, output).await {
            Ok(Ok(output)) => output,
            Ok(Err(source)) => return Err(SystemdError::Run { command, source }),
            Err(_elapsed) => return Err(SystemdError::Deadline { command }),
        };
        if output.status.success() {
            return Ok(());
        }
        Err(SystemdError::Failed {
            command,
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

/// The unit's text (`systemd.service(5)`). A settings error is final: exit code 2 is not restarted.
fn unit(program: &Path, settings: &Path) -> String {
    format!(
        "# Written by `kato node upgrade --prepare`; removed by `kato cache stop`.\n\
         [Unit]\n\
         Description=Cache of the cluster upgrade\n\
         After=network-online.target\n\
         Wants=network-online.target\n\
         \n\
         [Service]\n\
         ExecStart={} serve --config {}\n\
         Restart=always\n\
         RestartSec=1\n\
         RestartPreventExitStatus=2\n\
         TimeoutStopSec=40\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        word(program),
        word(settings)
    )
}

/// One word of a unit's command line: `%` and `$` are doubled, quotes and backslashes escaped (`systemd.syntax(7)`).
pub(crate) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", text.replace('%', "%%").replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `systemctl` that writes down what it is asked; `is-active` says no.
    fn recording(folder: &Path) -> Systemd {
        let script = folder.join("systemctl");
        let log = folder.join("asked");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {}\n[ \"$1\" != is-active ]\n",
            log.display()
        );
        durable::write(&script, text.as_bytes(), 0o755).unwrap();
        Systemd {
            systemctl: script,
            units: folder.to_owned(),
        }
    }

    fn asked(folder: &Path) -> String {
        std::fs::read_to_string(folder.join("asked")).unwrap_or_default()
    }

    #[tokio::test]
    async fn r09_the_unit_is_written_enabled_started_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let systemd = recording(folder.path());
        assert!(!systemd.stop().await.unwrap());
        assert_eq!(asked(folder.path()), "");
        systemd
            .start(Path::new("/usr/bin/kato-proxy"), Path::new("/a b/100%.toml"))
            .await
            .unwrap();
        assert_eq!(
            asked(folder.path()),
            "daemon-reload\nenable kato-cache.service\nrestart kato-cache.service\n"
        );
        let unit = std::fs::read_to_string(folder.path().join(UNIT)).unwrap();
        assert!(
            unit.contains("\nExecStart=\"/usr/bin/kato-proxy\" serve --config \"/a b/100%%.toml\"\n"),
            "{unit}"
        );
        assert!(!systemd.is_active().await);
        assert!(systemd.stop().await.unwrap());
        assert!(!folder.path().join(UNIT).exists());
        assert!(asked(folder.path()).ends_with("disable --now kato-cache.service\ndaemon-reload\n"));
    }

    #[tokio::test]
    async fn what_systemctl_says_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let systemd = recording(folder.path());
        let script = "#!/bin/sh\necho no such unit >&2\nexit 5\n";
        durable::write(&systemd.systemctl, script.as_bytes(), 0o755).unwrap();
        let error = systemd
            .start(Path::new("/p"), Path::new("/s"))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("daemon-reload` ended with exit status: 5: no such unit"),
            "{error}"
        );
    }
}
