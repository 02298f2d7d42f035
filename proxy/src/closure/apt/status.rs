//! What a machine has installed, by the status file of its dpkg.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::{Path, PathBuf},
};

use super::universe::Package;
use crate::ecosystem::apt::paragraph::paragraphs;

/// A status file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Where it was read from.
    pub path: String,
    /// The architecture of the machine.
    native: String,
    packages: Vec<Package>,
}

/// Why a status file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It cannot be read.
    #[error("reading `{path}` failed")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("`{path}` names no installed package: expected a copy of /var/lib/dpkg/status of the machine")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Status {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`StatusError`].
    pub fn read(path: &Path) -> Result<Self, StatusError> {
        let bytes = std::fs::read(path).map_err(|source| StatusError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::of(&path.display().to_string(), &String::from_utf8_lossy(&bytes)).ok_or_else(|| {
            StatusError::Empty {
                path: path.to_owned(),
            }
        })
    }

    /// Reads `text`; none where nothing is installed by it.
    pub(crate) fn of(path: &str, text: &str) -> Option<Self> {
        let is_installed = |status: &str| {
            // "want flag status". With triggers to run a package does what others need of it; what has to be installed once more is fetched.
            let words: Vec<&str> = status.split_ascii_whitespace().collect();
            let is_there = matches!(
                words.get(2),
                Some(&("installed" | "triggers-pending" | "triggers-awaited"))
            );
            is_there && words.get(1) != Some(&"reinstreq")
        };
        let installed = paragraphs(text).filter(|read| read.get("Status").is_some_and(is_installed));
        let packages: Vec<Package> = installed.filter_map(|read| Package::of(&read)).collect();
        let of_dpkg = packages.iter().find(|package| package.name == "dpkg");
        let any = packages.iter().find(|package| package.architecture != "all");
        let native = of_dpkg
            .or(any)
            .or(packages.first())
            .map(|package| package.architecture.clone())?;
        Some(Self {
            path: path.to_owned(),
            native,
            packages,
        })
    }

    /// The names of all that is installed, of whichever architecture.
    pub(super) fn names(&self) -> HashSet<&str> {
        self.packages
            .iter()
            .map(|package| package.name.as_str())
            .collect()
    }

    /// What counts as installed for packages of `architecture`, by name.
    pub(super) fn for_architecture(&self, architecture: &str) -> HashMap<&str, &Package> {
        // A machine without any package but those for all is of whichever architecture is asked for.
        let is_native = self.native == architecture || self.native == "all";
        let counts = |package: &&Package| {
            package.architecture == architecture
                || package.multi_arch == "foreign"
                || (is_native && package.architecture == "all")
        };
        let mut installed = HashMap::new();
        for package in self.packages.iter().filter(counts) {
            let known = installed.entry(package.name.as_str()).or_insert(package);
            if package.architecture == architecture {
                *known = package;
            }
        }
        installed
    }
}
