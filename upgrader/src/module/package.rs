//! `package`: Debian packages, each in exactly the version that the release names.
//!
//! Flow: unpack the archive → compare its `.deb` files with the release → note the versions that there are → finish what
//! another run left half configured → install, in one call of dpkg, or of apt when a package is named that has no file in the
//! archive → finish again, where that failed before → ask dpkg for every version. What is installed already is not touched. A
//! package whose script fails is mended by another version of it, so its failure bars neither the way forward nor the way back.
//!
//! The way back: the `.deb` files of an installation are kept until the next one, and are what it goes back with; packages
//! that were not there are purged. Where no file of the old version is kept, the plan says that there is no way back.
//!
//! Deliberately absent: removing packages, and taking back what apt installed as a dependency.

mod dpkg;
mod kept;

use std::path::{Path, PathBuf};

use kato_shared::{durable, release::Package};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::dpkg::Dpkg;
use super::{
    Job, ModuleError, Report, tree,
    undo::{Act, Note},
};
use crate::{failpoint, paths::NodePaths, platform::Children};

/// How a package was before an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The package's name.
    pub name: String,
    /// Its version; `None` when it was not installed.
    pub version: Option<String>,
    /// The file that it can be installed from again.
    pub deb: Option<PathBuf>,
}

pub(super) async fn install(job: &Job<'_>, packages: &[Package]) -> Result<Report, ModuleError> {
    let dpkg = Dpkg::at(job.paths.root(), job.children);
    let content = job.content();
    let mut note = Note::open(job, true)?;
    note.leftover(&content);
    note.save(job.paths)?;
    job.unpack_content()?;
    let debs = own_files(job, packages);
    for (package, deb) in &debs {
        dpkg.is_what_it_says(package, deb, job.deadline).await?;
    }
    let before = before(&dpkg, job.paths, packages, job.deadline).await?;
    let is_installed =
        |package: &Package, before: &Before| before.version.as_deref() == Some(&package.version);
    if packages
        .iter()
        .zip(&before)
        .all(|(package, before)| is_installed(package, before))
    {
        return Ok(Report::default());
    }
    let lines = packages
        .iter()
        .zip(&before)
        .filter(|(package, before)| !is_installed(package, before))
        .map(|(package, before)| {
            let from = before.version.as_deref().unwrap_or("nothing");
            format!("{}: {from} → {}", package.name, package.version)
        })
        .collect();
    let report = Report { lines };
    let act = Act::Packages {
        before,
        root: job.paths.root().to_owned(),
    };
    note.act(act, job.module.timeout.get());
    note.save(job.paths)?;
    let is_configured = dpkg.configure(job.deadline).await?;
    failpoint::hit("package.configured");
    let named = named(job, packages);
    let files: Vec<_> = debs.into_iter().map(|(_, deb)| deb).collect();
    if named.is_empty() {
        dpkg.install(&files, job.deadline).await?;
    } else {
        dpkg.apt_install(job.settings, &files, &named, job.deadline)
            .await?;
    }
    if !is_configured {
        // What was broken is replaced by now, or it is another package, which dpkg names.
        dpkg.configure_all(job.deadline).await?;
    }
    failpoint::hit("package.installed");
    Ok(report)
}

/// Every package is there in its version.
pub(super) async fn check(job: &Job<'_>, packages: &[Package]) -> Result<(), ModuleError> {
    let dpkg = Dpkg::at(job.paths.root(), job.children);
    for package in packages {
        let found = dpkg.version(&package.name, job.deadline).await?;
        if found.as_deref() != Some(&package.version) {
            return Err(ModuleError::Undone {
                module: job.module.name.clone(),
                problem: format!(
                    "the package {} has version {}, expected {}",
                    package.name,
                    found.as_deref().unwrap_or("none"),
                    package.version
                ),
            });
        }
    }
    Ok(())
}

/// Downloads what apt will install, before anything of the node is changed.
pub(super) async fn preload(job: &Job<'_>, packages: &[Package]) -> Result<(), ModuleError> {
    let dpkg = Dpkg::at(job.paths.root(), job.children);
    let mut missing = Vec::new();
    for package in named(job, packages) {
        if dpkg.version(&package.name, job.deadline).await?.as_deref() != Some(&package.version) {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    dpkg.apt_download(job.settings, &missing, job.deadline).await
}

/// Keeps the files of what is installed now: the next upgrade goes back with them.
pub(super) fn settle(job: &Job<'_>, packages: &[Package]) -> Result<(), ModuleError> {
    let files = own_files(job, packages)
        .into_iter()
        .filter(|(_, deb)| deb.is_file())
        .collect::<Vec<_>>();
    let fetched = named(job, packages).into_iter().filter_map(|package| {
        let deb = kept::fetched_by_apt(job.paths, &package.name, &package.version)?;
        Some((package, deb))
    });
    let all: Vec<_> = files.into_iter().chain(fetched).collect();
    if all.is_empty() {
        return Ok(());
    }
    kept::replace(job.paths, &job.module.name, &all)
}

/// Why the packages of a module cannot get their versions back, when one of them cannot.
pub(super) async fn irreversible(
    paths: &NodePaths,
    module: &str,
    packages: &[Package],
    children: &Children,
    deadline: Instant,
) -> Result<Option<String>, ModuleError> {
    let noted = super::undo::read(paths, module)?
        .into_iter()
        .flat_map(|note| note.acts)
        .find_map(|noted| match noted.act {
            Act::Packages { before, .. } => Some(before),
            Act::Tag(_) | Act::Command { .. } => None,
        });
    let before = match noted {
        Some(before) => before,
        None => before(&Dpkg::at(paths.root(), children), paths, packages, deadline).await?,
    };
    let lost = packages.iter().zip(&before).find(|(package, before)| {
        let changes = before.version.as_deref() != Some(&package.version);
        changes && before.version.is_some() && before.deb.as_ref().is_none_or(|deb| !deb.is_file())
    });
    Ok(lost.map(|(_, before)| {
        format!(
            "the module {module} cannot be undone: no .deb of {} {} is kept here",
            before.name,
            before.version.as_deref().unwrap_or_default()
        )
    }))
}

/// Gives the packages the versions that they had. May be killed anywhere and called again.
pub(super) async fn take_back(
    root: &Path,
    before: &[Before],
    children: &Children,
    deadline: Instant,
) -> Result<(), ModuleError> {
    let dpkg = Dpkg::at(root, children);
    let is_configured = dpkg.configure(deadline).await?;
    let (mut files, mut away) = (Vec::new(), Vec::new());
    for package in before {
        let now = dpkg.version(&package.name, deadline).await?;
        match (&package.version, &package.deb) {
            // What was not there, and is not installed, may be half of it all the same.
            (None, _) if now.is_none() && !dpkg.has_files(&package.name, deadline).await? => {}
            (Some(version), _) if now.as_ref() == Some(version) => {}
            (Some(_), Some(deb)) => files.push(deb.clone()),
            (Some(version), None) => {
                return Err(ModuleError::NotBack {
                    what: format!("no .deb of {} {version} is kept", package.name),
                });
            }
            (None, _) => away.push(package.name.clone()),
        }
    }
    if !files.is_empty() {
        dpkg.install(&files, deadline).await?;
    }
    if !away.is_empty() {
        dpkg.purge(&away, deadline).await?;
    }
    if !is_configured {
        dpkg.configure_all(deadline).await?;
    }
    for package in before {
        let now = dpkg.version(&package.name, deadline).await?;
        if now != package.version {
            return Err(ModuleError::NotBack {
                what: format!(
                    "the package {} has version {}, expected {}",
                    package.name,
                    now.as_deref().unwrap_or("none"),
                    package.version.as_deref().unwrap_or("none")
                ),
            });
        }
    }
    Ok(())
}

/// The versions that there are, and what they can be installed from again.
async fn before(
    dpkg: &Dpkg<'_>,
    paths: &NodePaths,
    packages: &[Package],
    deadline: Instant,
) -> Result<Vec<Before>, ModuleError> {
    let mut all = Vec::with_capacity(packages.len());
    for package in packages {
        let version = dpkg.version(&package.name, deadline).await?;
        let deb = version
            .as_deref()
            .and_then(|version| kept::find(paths, &package.name, version));
        all.push(Before {
            name: package.name.clone(),
            version,
            deb,
        });
    }
    Ok(all)
}

/// The packages that have a file in the module's archive, with the file as it is unpacked.
fn own_files<'a>(job: &Job<'_>, packages: &'a [Package]) -> Vec<(&'a Package, PathBuf)> {
    let of = |package: &'a Package| {
        let file = job.module.files.iter().find(|file| package.is_file(&file.path))?;
        Some((package, job.content().join(&file.path)))
    };
    packages.iter().filter_map(of).collect()
}

/// The packages that apt has to find by their names.
fn named<'a>(job: &Job<'_>, packages: &'a [Package]) -> Vec<&'a Package> {
    let is_own = |package: &Package| job.module.files.iter().any(|file| package.is_file(&file.path));
    packages.iter().filter(|package| !is_own(package)).collect()
}

/// Copies `from` to `to`, flushed.
fn copy(from: &Path, to: &Path) -> Result<(), ModuleError> {
    if let Some(folder) = to.parent() {
        durable::create_folder(folder)?;
    }
    Ok(durable::copy(from, to, 0o644, None)?)
}

/// Removes a folder, if it is there.
fn remove(folder: &Path) -> Result<(), ModuleError> {
    tree::remove(folder).map_err(ModuleError::io("removing", folder))
}
