//! `kato-resume.service`: goes on with the upgrade after the machine was restarted, where systemd is the first process.
//!
//! The unit is there only while an upgrade is in progress: it is written and enabled before the machine is restarted, and
//! removed by the run that ends the upgrade. A run that is killed, that fails, or that was about something else leaves it for the next start;
//! systemd itself calls it again for what may pass (`Restart=` in the unit, and which exits a person must look at).
//! Elsewhere an operator, or the orchestrator on Core, runs `kato node upgrade --resume`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::durable::{self, DurableError};

use crate::{
    cli::node::UpgradeRequest,
    failpoint,
    paths::NodePaths,
    platform::{Children, ProcessError, process},
    prepare::systemd::word,
};

/// The unit's name.
pub const UNIT: &str = "kato-resume.service";

/// The unit as it is shipped, with the default paths.
const SHIPPED: &str = include_str!("../../config/systemd/kato-resume.service");

/// How long one `systemctl` may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A unit that could not be put into place or removed.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The file could not be written or removed.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The service manager said no.
    #[error("the service manager refused")]
    Systemctl(#[from] ProcessError),
}

/// The service manager of a node.
#[derive(Debug, Clone)]
pub struct ResumeUnit {
    root: PathBuf,
    waits_for: PathBuf,
    children: Children,
}

impl ResumeUnit {
    /// The service manager of the node, whose program runs as one of `children`; `None` where systemd is not the first process (`sd_booted(3)`).
    pub fn of(paths: &NodePaths, children: &Children) -> Option<Self> {
        let root = paths.root().to_owned();
        root.join("run/systemd/system").is_dir().then(|| Self {
            root,
            waits_for: paths.attempt(),
            children: children.on("the unit that goes on after a restart"),
        })
    }

    fn file(&self) -> PathBuf {
        self.root.join("etc/systemd/system").join(UNIT)
    }

    /// Whether the next start of the machine goes on with the upgrade.
    pub fn is_there(&self) -> bool {
        self.file().exists()
    }

    /// Has the next start of the machine run `program` with `config` and the flags of `request`.
    ///
    /// # Errors
    /// [`ResumeError`] with what the service manager said; the upgrade must then be resumed by hand.
    pub async fn enable(
        &self,
        program: &Path,
        config: &Path,
        request: &UpgradeRequest,
    ) -> Result<(), ResumeError> {
        let file = self.file();
        if let Some(folder) = file.parent() {
            durable::create_folder(folder)?;
            durable::remove_temporary_files(folder)?;
        }
        durable::write(&file, self.text(program, config, request).as_bytes(), 0o644)?;
        self.call(&["enable", UNIT]).await?;
        failpoint::hit("resume.enabled");
        Ok(())
    }

    /// Removes the unit, if it is there.
    ///
    /// # Errors
    /// [`ResumeError`]; a unit that stays finds nothing to resume.
    pub async fn remove(&self) -> Result<(), ResumeError> {
        if self.is_there() {
            self.call(&["disable", UNIT]).await?;
            durable::remove(&self.file())?;
        }
        Ok(())
    }

    /// The shipped unit with this node's paths.
    fn text(&self, program: &Path, config: &Path, request: &UpgradeRequest) -> String {
        let mut command: Vec<String> = vec![word(program), "--config".into(), word(config)];
        command.extend(["node", "upgrade", "--resume"].map(Into::into));
        command.extend(flags(request).iter().map(|flag| word(Path::new(flag))));
        let line = |line: &str| {
            if line.starts_with("ExecStart=") {
                format!("ExecStart={}\n", command.join(" "))
            } else if line.starts_with("ConditionPathExists=") {
                format!("ConditionPathExists={}\n", self.waits_for.display())
            } else {
                format!("{line}\n")
            }
        };
        SHIPPED.lines().map(line).collect()
    }

    /// Below another root the units are only linked: there is no service manager to ask.
    async fn call(&self, arguments: &[&str]) -> Result<(), ProcessError> {
        let is_here = self.root == Path::new("/");
        let mut argv = vec!["systemctl".to_owned()];
        if !is_here {
            argv.push(format!("--root={}", self.root.display()));
        }
        argv.extend(arguments.iter().map(ToString::to_string));
        process::run(&self.children, &argv, None, DEADLINE)
            .await
            .map(drop)
    }
}

/// The way to the releases that the first run was given.
fn flags(request: &UpgradeRequest) -> Vec<String> {
    let mut flags = Vec::new();
    let mut with =
        |name: &str, value: Option<String>| flags.extend(value.map(|value| format!("--{name}={value}")));
    with("cache-ip", request.cache_ip.map(|ip| ip.to_string()));
    with("cache-url", request.cache_url.as_ref().map(ToString::to_string));
    with("skip-cache", request.skip_cache.clone());
    flags.extend(request.offline.then(|| "--offline".into()));
    flags.extend(request.skip_drain.then(|| "--skip-drain".into()));
    flags.extend(request.tolerant.then(|| "--tolerant".into()));
    flags.extend(request.development.then(|| "--development".into()));
    flags
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn r41_the_unit_is_the_shipped_one_with_the_nodes_own_words() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths::new(root.path(), Path::new("/var/kato"));
        assert!(
            ResumeUnit::of(&paths, &Children::default()).is_none(),
            "systemd does not run there"
        );
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let unit = ResumeUnit::of(&paths, &Children::default()).unwrap();
        assert!(!unit.is_there());
        let request = UpgradeRequest {
            cache_ip: Some([10, 0, 0, 1].into()),
            offline: true,
            ..UpgradeRequest::default()
        };
        let text = unit.text(Path::new("/bin/kato"), Path::new("/a b/100%.toml"), &request);
        let of_node =
            |line: &&str| line.starts_with("ExecStart=") || line.starts_with("ConditionPathExists=");
        let lines: Vec<_> = text.lines().filter(of_node).collect();
        assert_eq!(
            lines,
            [
                format!("ConditionPathExists={}", paths.attempt().display()).as_str(),
                "ExecStart=\"/bin/kato\" --config \"/a b/100%%.toml\" node upgrade --resume \"--cache-ip=10.0.0.1\" \"--offline\"",
            ]
        );
        assert_eq!(text.lines().count(), SHIPPED.lines().count());
    }

    /// systemd tries again what passes, and leaves to people what does not. (A service of this type may not say which status it is to be
    /// started again for: systemd 252 refuses such a unit.)
    #[test]
    fn r41_the_unit_is_tried_again_for_what_passes_and_for_nothing_else() {
        let codes = |key: &str| -> Vec<i32> {
            let value = SHIPPED.lines().find_map(|line| line.strip_prefix(key));
            let words = value.unwrap_or_default().split(' ');
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let (fine, for_people) = (codes("SuccessExitStatus="), codes("RestartPreventExitStatus="));
        assert!(SHIPPED.contains("\nRestart=on-failure\n") && !SHIPPED.contains("\nRestartForceExitStatus"));
        for exit in Exit::ALL {
            let is_tried_again = match exit {
                Exit::Done | Exit::RolledBack => {
                    assert!(exit == Exit::Done || fine.contains(&exit.code().into()));
                    continue;
                }
                // A run that nobody is asked in, of one node, does not end so.
                Exit::Declined | Exit::UpgradeAvailable | Exit::LocalChanges | Exit::Partial => continue,
                Exit::Failed | Exit::LockHeld | Exit::TryAgain => true,
                Exit::Bug
                | Exit::Usage
                | Exit::Preflight
                | Exit::RollbackFailed
                | Exit::Trust
                | Exit::Damaged => false,
            };
            let code = exit.code().into();
            assert_eq!(for_people.contains(&code), !is_tried_again, "{exit:?}");
            assert!(!fine.contains(&code), "{exit:?}");
        }
    }
}
