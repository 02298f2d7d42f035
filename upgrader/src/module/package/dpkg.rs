//! dpkg and apt, never interactive: closed input, no questions about settings files, no restarts by `needrestart`.
//!
//! Settings files that were changed here stay (`--force-confold`), and the rest is dpkg's default (`--force-confdef`).

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use kato_shared::{chain::Chain, release::Package};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use tokio::time::{Instant, sleep};

use crate::{
    module::{ModuleError, child::Line},
    platform::process::{Children, ProcessError},
    settings::Settings,
};

/// How often it is asked whether the lock is free.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// The files that programs lock which change packages (`dpkg(1)`, and apt's front ends).
const LOCKS: [&str; 2] = ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"];

const QUIET: [&str; 5] = [
    "DEBIAN_FRONTEND=noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN=true",
    "APT_LISTCHANGES_FRONTEND=none",
    // Lists what would be restarted; the platform restarts services when all modules are installed.
    "NEEDRESTART_MODE=l",
    "LC_ALL=C.UTF-8",
];

const KEEP_SETTINGS: [&str; 2] = ["--force-confdef", "--force-confold"];

/// The packages of one root.
#[derive(Debug)]
pub(super) struct Dpkg<'a> {
    root: PathBuf,
    children: &'a Children,
}

impl<'a> Dpkg<'a> {
    /// Those below `root`; the programs run as some of `children`.
    pub(super) fn at(root: &Path, children: &'a Children) -> Self {
        Self {
            root: root.to_owned(),
            children,
        }
    }

    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The version of the package that is installed, by dpkg's own word.
    pub(super) async fn version(&self, name: &str, deadline: Instant) -> Result<Option<String>, ModuleError> {
        let found = self.status(name, deadline).await?;
        Ok(found.and_then(|line| line.strip_prefix("installed\t").map(str::to_owned)))
    }

    /// Whether files of the package are there, also of one whose scripts have failed: `half-configured`, `unpacked` and so on.
    pub(super) async fn has_files(&self, name: &str, deadline: Instant) -> Result<bool, ModuleError> {
        let found = self.status(name, deadline).await?;
        let status = found.as_deref().and_then(|line| line.split('\t').next());
        Ok(status.is_some_and(|status| !matches!(status, "not-installed" | "config-files")))
    }

    /// Status and version of the package, with a tab in between.
    async fn status(&self, name: &str, deadline: Instant) -> Result<Option<String>, ModuleError> {
        let mut query = Line::new(["dpkg-query"]);
        if !self.is_machine() {
            query = query.with([format!("--admindir={}", self.root.join("var/lib/dpkg").display())]);
        }
        let query = query.with(["--show", "--showformat=${db:Status-Status}\\t${Version}\\n", name]);
        let limit = deadline.saturating_duration_since(Instant::now());
        let children = self.children.on("asking for the version of a package");
        let output = match query.ask(&children, limit).await {
            Ok(output) => output,
            // dpkg-query(1): 1 is "no packages found".
            Err(ProcessError::Status { status, .. }) if status.code() == Some(1) => return Ok(None),
            Err(source) => {
                return Err(ModuleError::Command {
                    what: format!("asking for the version of {name}"),
                    source,
                });
            }
        };
        // One line for each architecture of it.
        let lines = || output.lines();
        let found = lines()
            .find(|line| line.starts_with("installed\t"))
            .or_else(|| lines().next());
        Ok(found.map(str::to_owned))
    }

    /// A file of the archive is the package that the release says it is.
    pub(super) async fn is_what_it_says(
        &self,
        package: &Package,
        deb: &Path,
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        let show = Line::new(["dpkg-deb", "--show", "--showformat=${Package}=${Version}"]);
        let found = show
            .with([deb.display().to_string()])
            .run(self.children, "reading a package of the archive", deadline)
            .await?;
        let expected = format!("{}={}", package.bare_name(), package.version);
        if found == expected {
            return Ok(());
        }
        Err(ModuleError::Differs {
            path: deb.to_owned(),
            problem: format!("it holds the package {found}, expected {expected}"),
        })
    }

    /// Configures what another run left unpacked; whether nothing of it is left. A package whose own script fails is no reason not
    /// to install another version of it: that is what mends it.
    pub(super) async fn configure(&self, deadline: Instant) -> Result<bool, ModuleError> {
        match self.configure_all(deadline).await {
            Ok(()) => Ok(true),
            Err(
                error @ ModuleError::Command {
                    source: ProcessError::Status { .. },
                    ..
                },
            ) => {
                tracing::warn!(error = %Chain(&error), "packages stay half configured for now");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Configures what is unpacked, all of it.
    pub(super) async fn configure_all(&self, deadline: Instant) -> Result<(), ModuleError> {
        self.free(deadline).await?;
        let line = self.dpkg().with(KEEP_SETTINGS).with(["--configure", "--pending"]);
        line.run(self.children, "configuring what was left unpacked", deadline)
            .await?;
        Ok(())
    }

    /// Installs files in one call, so that they may depend on each other in any order.
    pub(super) async fn install(&self, debs: &[PathBuf], deadline: Instant) -> Result<(), ModuleError> {
        self.free(deadline).await?;
        let files = debs.iter().map(|deb| deb.display().to_string());
        let line = self.dpkg().with(KEEP_SETTINGS).with(["--install"]).with(files);
        line.run(self.children, "installing packages with dpkg", deadline)
            .await?;
        Ok(())
    }

    /// Removes packages with their settings files.
    pub(super) async fn purge(&self, names: &[String], deadline: Instant) -> Result<(), ModuleError> {
        self.free(deadline).await?;
        let line = self.dpkg().with(["--purge"]).with(names.to_vec());
        line.run(self.children, "purging packages that were not there", deadline)
            .await?;
        Ok(())
    }

    /// Installs `packages` by name, together with the files `debs`.
    pub(super) async fn apt_install(
        &self,
        settings: &Settings,
        debs: &[PathBuf],
        packages: &[&Package],
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        self.free(deadline).await?;
        let files = debs.iter().map(|deb| deb.display().to_string());
        let names = packages.iter().map(ToString::to_string);
        let line = self
            .apt(settings, deadline)
            .with(["install", "--no-install-recommends", "--allow-downgrades"])
            .with(files)
            .with(names);
        line.run(self.children, "installing packages with apt-get", deadline)
            .await?;
        Ok(())
    }

    /// Brings the indexes up to date and downloads `packages` with what they depend on.
    pub(super) async fn apt_download(
        &self,
        settings: &Settings,
        packages: &[&Package],
        deadline: Instant,
    ) -> Result<(), ModuleError> {
        let update = self.apt(settings, deadline).with(["update"]);
        update
            .run(self.children, "updating apt's indexes", deadline)
            .await?;
        let line = self
            .apt(settings, deadline)
            .with([
                "install",
                "--download-only",
                "--no-install-recommends",
                "--allow-downgrades",
            ])
            .with(packages.iter().map(ToString::to_string));
        line.run(self.children, "downloading packages with apt-get", deadline)
            .await?;
        Ok(())
    }

    fn dpkg(&self) -> Line {
        let line = quiet(["dpkg"]);
        if self.is_machine() {
            line
        } else {
            line.with([format!("--root={}", self.root.display())])
        }
    }

    fn apt(&self, settings: &Settings, deadline: Instant) -> Line {
        let limit = deadline.saturating_duration_since(Instant::now());
        let mut options = vec![
            format!("DPkg::Lock::Timeout={}", limit.as_secs()),
            // A warning about an index that could not be had must not pass for success.
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        options.extend(KEEP_SETTINGS.map(|option| format!("DPkg::Options::={option}")));
        if let Some(cache) = &settings.cache.url {
            options.push(format!("Acquire::http::Proxy={cache}"));
        }
        if !self.is_machine() {
            let root = self.root.display();
            options.push(format!("Dir={root}"));
            options.push(format!("Dir::State::status={root}/var/lib/dpkg/status"));
            options.push(format!("DPkg::Options::=--root={root}"));
        }
        quiet(["apt-get", "-q", "-y"]).with(options.into_iter().flat_map(|option| ["-o".to_owned(), option]))
    }

    /// Waits until nobody else changes packages.
    async fn free(&self, deadline: Instant) -> Result<(), ModuleError> {
        let began = Instant::now();
        while let Some((lock, holder)) = self.held()? {
            if Instant::now() + ASK_EVERY >= deadline {
                return Err(ModuleError::Busy {
                    lock,
                    holder,
                    waited: Duration::from_secs(began.elapsed().as_secs()),
                });
            }
            tracing::info!(lock = %lock.display(), holder, "waiting for the lock of the packages");
            sleep(ASK_EVERY).await;
        }
        Ok(())
    }

    /// The lock that somebody holds, and who.
    fn held(&self) -> Result<Option<(PathBuf, String)>, ModuleError> {
        for lock in LOCKS.map(|lock| self.root.join(lock)) {
            let Ok(file) = File::open(&lock) else {
                // Not there, so never locked; where we may not look, dpkg says so itself.
                continue;
            };
            let found = fcntl_getlk(&file, &Flock::from(FlockType::WriteLock))
                .map_err(|error| ModuleError::io("asking who locks", &lock)(error.into()))?;
            if let Some(found) = found {
                return Ok(Some((
                    lock,
                    named(found.pid.map(|pid| pid.as_raw_nonzero().get())),
                )));
            }
        }
        Ok(None)
    }
}

fn quiet<const N: usize>(argv: [&str; N]) -> Line {
    Line {
        env: QUIET.map(Into::into).into(),
        ..Line::new(argv)
    }
}

/// A process as a person would look for it.
fn named(pid: Option<i32>) -> String {
    let Some(pid) = pid else {
        return "a process of another machine or container".to_owned();
    };
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    format!("process {pid} ({})", words.join(" "))
}
