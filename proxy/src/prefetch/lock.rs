//! Lock files: which packages they name. Pure.
//!
//! | File | What is read of it |
//! |---|---|
//! | `Cargo.lock` | packages from registries: name, version, digest |
//! | `package-lock.json`, `npm-shrinkwrap.json` | `packages` (versions 2 and 3), else `dependencies` (1): address and integrity |
//! | `requirements.txt` | `name==version` with `--hash=sha256:…`, here and in the files that it names: see [`requirements`] |
//!
//! Packages from version control and folders are no business of a cache; they are named as left out.

mod requirements;

use std::{collections::BTreeMap, path::Path};

use requirements::Reader;
use serde::Deserialize;

/// Whose lock file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Of cargo.
    Cargo,
    /// Of npm.
    Npm,
    /// Of pip.
    Pip,
}

/// A package that a lock file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where the file is, where the lock file says so.
    pub address: Option<String>,
    /// Digests that its files may have: SHA-256, or for npm the text of `integrity`.
    pub digests: Vec<String>,
}

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Where it was read from.
    pub path: String,
    /// Whose it is.
    pub kind: LockKind,
    /// Its packages.
    pub packages: Vec<Package>,
    /// Packages that a cache cannot fetch, with the reason.
    pub left_out: Vec<String>,
    /// What people should know about it.
    pub notes: Vec<String>,
}

/// Why a lock file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is none.
    #[error("{path} is no lock file of {program}: {cause}")]
    Form {
        /// The path.
        path: String,
        /// Whose it should be.
        program: &'static str,
        /// What the parser says.
        cause: String,
    },
    /// A requirement that does not say which files are meant.
    #[error(
        "{path}: expected name==version with --hash=sha256:…, got `{line}`\nhint: `pip-compile --generate-hashes` or `uv pip compile --generate-hashes` writes such files"
    )]
    Unpinned {
        /// The path.
        path: String,
        /// The requirement.
        line: String,
    },
    /// A file of requirements that names itself.
    #[error(
        "{chain}: a file of requirements names itself, which pip cannot read either\nhint: take out the line of the last one that names the first"
    )]
    Cycle {
        /// The files.
        chain: String,
    },
    /// Files of requirements that name each other without end.
    #[error(
        "{chain}: expected at most {most} files of requirements, each named by the one before\nhint: put them into one file"
    )]
    TooDeep {
        /// The files.
        chain: String,
        /// The bound.
        most: usize,
    },
}

impl Lock {
    /// Reads the file at `path`; its name says whose it is, and a name that says nothing is pip's.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn read(path: &Path) -> Result<Self, LockError> {
        Self::read_by(path, &|path: &Path| std::fs::read_to_string(path))
    }

    /// The same, where `reader` reads files.
    fn read_by(path: &Path, reader: Reader<'_>) -> Result<Self, LockError> {
        let text = reader(path).map_err(|source| LockError::Read {
            path: path.display().to_string(),
            source,
        })?;
        let kind = match path.file_name().and_then(|name| name.to_str()) {
            Some("Cargo.lock") => LockKind::Cargo,
            _ if path.extension().is_some_and(|kind| kind == "json") => LockKind::Npm,
            _ => LockKind::Pip,
        };
        Self::with((path, &text), kind, reader)
    }

    /// Reads `text`, the lock file at `path`, which names no other.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn of(path: &str, kind: LockKind, text: &str) -> Result<Self, LockError> {
        Self::with((Path::new(path), text), kind, &|_none: &Path| {
            Err(std::io::ErrorKind::NotFound.into())
        })
    }

    fn with((path, text): (&Path, &str), kind: LockKind, reader: Reader<'_>) -> Result<Self, LockError> {
        let mut lock = Self {
            path: path.display().to_string(),
            kind,
            packages: Vec::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
        };
        match kind {
            LockKind::Cargo => lock.cargo(text)?,
            LockKind::Npm => lock.npm(text)?,
            LockKind::Pip => requirements::read(&mut lock, (path, text), reader)?,
        }
        if lock.packages.is_empty() {
            lock.notes.push("it names no package of an index".to_owned());
        }
        Ok(lock)
    }

    fn form(&self, program: &'static str, cause: &dyn std::fmt::Display) -> LockError {
        LockError::Form {
            path: self.path.clone(),
            program,
            cause: cause.to_string(),
        }
    }

    fn cargo(&mut self, text: &str) -> Result<(), LockError> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            package: Vec<Locked>,
        }
        #[derive(Deserialize)]
        struct Locked {
            name: String,
            version: String,
            source: Option<String>,
            checksum: Option<String>,
        }
        let file: File = toml::from_str(text).map_err(|error| self.form("cargo", &error.message()))?;
        for package in file.package {
            let shown = format!("{} {}", package.name, package.version);
            match (package.source, package.checksum) {
                // A member of the workspace.
                (None, _) => {}
                (Some(source), Some(digest)) if is_registry(&source) => self.packages.push(Package {
                    name: package.name,
                    version: package.version,
                    address: None,
                    digests: vec![digest],
                }),
                (Some(source), _) => self.left_out.push(format!("{shown}: from {source}")),
            }
        }
        Ok(())
    }

    fn npm(&mut self, text: &str) -> Result<(), LockError> {
        #[derive(Deserialize)]
        struct File {
            packages: Option<BTreeMap<String, Locked>>,
            #[serde(default)]
            dependencies: BTreeMap<String, Locked>,
        }
        let file: File = serde_json::from_str(text).map_err(|error| self.form("npm", &error))?;
        match file.packages {
            Some(packages) => {
                for (place, package) in packages {
                    let name = place
                        .rsplit_once("node_modules/")
                        .map(|(_, name)| name.to_owned());
                    if let Some(name) = name {
                        self.locked(name, package);
                    }
                }
            }
            None => self.nested(file.dependencies),
        }
        Ok(())
    }

    fn nested(&mut self, dependencies: BTreeMap<String, Locked>) {
        for (name, mut package) in dependencies {
            let inner = std::mem::take(&mut package.dependencies);
            self.locked(name, package);
            if let Inner::Packages(inner) = inner {
                self.nested(inner);
            }
        }
    }

    fn locked(&mut self, name: String, package: Locked) {
        if package.link || package.in_bundle || package.bundled {
            return;
        }
        let name = package.name.unwrap_or(name);
        let version = package.version.unwrap_or_default();
        match package.resolved {
            Some(address) if address.starts_with("http") => self.packages.push(Package {
                name,
                version,
                address: Some(address),
                digests: package.integrity.into_iter().collect(),
            }),
            Some(address) => self.left_out.push(format!("{name}: from {address}")),
            None => self
                .left_out
                .push(format!("{name}: the lock file does not say from where")),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Locked {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    bundled: bool,
    #[serde(default)]
    dependencies: Inner,
}

/// What stands under `dependencies` inside of a package: packages in version 1, ranges of versions later.
#[derive(Deserialize)]
#[serde(untagged)]
enum Inner {
    Packages(BTreeMap<String, Locked>),
    Ranges(serde::de::IgnoredAny),
}

impl Default for Inner {
    fn default() -> Self {
        Self::Ranges(serde::de::IgnoredAny)
    }
}

fn is_registry(source: &str) -> bool {
    source.starts_with("registry+") || source.starts_with("sparse+")
}

/// The name of a project as it stands in URLs: "all runs of the characters ., -, or _ replaced with a single -" (PEP 503).
fn normalised(name: &str) -> String {
    let words = name.split(['.', '-', '_']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(lock: &Lock) -> Vec<String> {
        let shown = |package: &Package| format!("{} {}", package.name, package.version);
        lock.packages.iter().map(shown).collect()
    }

    #[test]
    fn cargo_names_registries_and_leaves_out_version_control() {
        let text = r#"
version = 4
[[package]]
name = "me"
version = "0.1.0"
[[package]]
name = "a"
version = "1.0.0"
source = "registry+https://index.example/"
checksum = "00"
[[package]]
name = "b"
version = "2.0.0"
source = "git+https://git.example/b#1"
"#;
        let lock = Lock::of("Cargo.lock", LockKind::Cargo, text).unwrap();
        assert_eq!(names(&lock), ["a 1.0.0"]);
        assert_eq!(lock.left_out, ["b 2.0.0: from git+https://git.example/b#1"]);
        assert!(Lock::of("Cargo.lock", LockKind::Cargo, "[[").is_err());
    }

    #[test]
    fn npm_has_two_shapes() {
        let new = r#"{"lockfileVersion":3,"packages":{"":{"name":"me"},
            "node_modules/a":{"version":"1.0.0","resolved":"https://npm.example/a/-/a-1.0.0.tgz","integrity":"sha512-x","dependencies":{"b":"^1"}},
            "node_modules/a/node_modules/@s/b":{"version":"2.0.0","resolved":"https://npm.example/@s/b/-/b-2.0.0.tgz"},
            "node_modules/alias":{"name":"real","version":"3.0.0","resolved":"https://npm.example/real/-/real-3.0.0.tgz"},
            "node_modules/l":{"resolved":"packages/l","link":true},
            "node_modules/g":{"version":"1.0.0","resolved":"git+ssh://git.example/g.git#1"}}}"#;
        let lock = Lock::of("package-lock.json", LockKind::Npm, new).unwrap();
        assert_eq!(names(&lock), ["a 1.0.0", "@s/b 2.0.0", "real 3.0.0"]);
        assert_eq!(lock.left_out.len(), 1);
        let old = r#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0","resolved":"https://npm.example/a.tgz",
            "dependencies":{"b":{"version":"2.0.0","resolved":"https://npm.example/b.tgz"}}}}}"#;
        let lock = Lock::of("package-lock.json", LockKind::Npm, old).unwrap();
        assert_eq!(names(&lock), ["a 1.0.0", "b 2.0.0"]);
    }

    /// A project without dependencies has such a file: that is no fault, and said.
    #[test]
    fn a_lock_file_without_a_package_says_so() {
        for (kind, text) in [
            (
                LockKind::Cargo,
                "version = 4\n[[package]]\nname = \"me\"\nversion = \"0.1.0\"\n",
            ),
            (
                LockKind::Npm,
                r#"{"lockfileVersion":3,"packages":{"":{"name":"me"}}}"#,
            ),
            (LockKind::Pip, "# nothing\n"),
        ] {
            let lock = Lock::of("lock", kind, text).unwrap();
            assert_eq!(lock.notes, ["it names no package of an index"], "{kind:?}");
        }
    }
}
