//! Lock files: which packages they name. Pure.
//!
//! | File | What is read of it |
//! |---|---|
//! | `Cargo.lock` | packages from registries: name, version, digest |
//! | `package-lock.json`, `npm-shrinkwrap.json` | `packages` (versions 2 and 3), else `dependencies` (1): address and integrity |
//! | `requirements.txt` | `name==version` with `--hash=sha256:…` |
//!
//! Packages from version control and folders are no business of a cache; they are named as left out.

use std::{collections::BTreeMap, path::Path};

use kato_shared::Digest;
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
}

impl Lock {
    /// Reads the file at `path`; its name says whose it is, and a name that says nothing is pip's.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn read(path: &Path) -> Result<Self, LockError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| LockError::Read {
            path: shown.clone(),
            source,
        })?;
        let kind = match path.file_name().and_then(|name| name.to_str()) {
            Some("Cargo.lock") => LockKind::Cargo,
            _ if path.extension().is_some_and(|kind| kind == "json") => LockKind::Npm,
            _ => LockKind::Pip,
        };
        Self::of(&shown, kind, &text)
    }

    /// Reads `text`, the lock file at `path`.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn of(path: &str, kind: LockKind, text: &str) -> Result<Self, LockError> {
        let mut lock = Self {
            path: path.to_owned(),
            kind,
            packages: Vec::new(),
            left_out: Vec::new(),
        };
        match kind {
            LockKind::Cargo => lock.cargo(text)?,
            LockKind::Npm => lock.npm(text)?,
            LockKind::Pip => lock.pip(text)?,
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

    fn pip(&mut self, text: &str) -> Result<(), LockError> {
        let joined = text.replace("\\\r\n", " ").replace("\\\n", " ");
        for line in joined.lines() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            // Options such as --index-url are the client's business.
            if line.is_empty() || line.starts_with(['#', '-']) {
                continue;
            }
            let unpinned = || LockError::Unpinned {
                path: self.path.clone(),
                line: line.to_owned(),
            };
            let requirement = line.split(" --").next().unwrap_or_default();
            // What stands behind a semicolon says on which machines it is wanted; a mirror has it for all of them.
            let requirement = requirement.split(';').next().unwrap_or_default();
            let (name, version) = requirement.split_once("==").ok_or_else(unpinned)?;
            let name = name.split('[').next().unwrap_or_default().trim();
            let digests: Vec<String> = line
                .split_ascii_whitespace()
                .filter_map(|word| word.strip_prefix("--hash=sha256:"))
                .map(str::to_owned)
                .collect();
            let is_known = digests.iter().all(|digest| digest.parse::<Digest>().is_ok());
            if name.is_empty() || digests.is_empty() || !is_known {
                return Err(unpinned());
            }
            self.packages.push(Package {
                name: normalised(name),
                version: version.trim().trim_start_matches('=').to_owned(),
                address: None,
                digests,
            });
        }
        Ok(())
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

    #[test]
    fn pip_needs_versions_and_digests() {
        let digest = "ab".repeat(32);
        let text = format!(
            "# comment\n--index-url https://x.example/\nFoo.Bar_baz[extra]==1.0 ; python_version > \"3\" \\\n    --hash=sha256:{digest} \\\n    --hash=sha256:{digest}  # via x\n"
        );
        let lock = Lock::of("requirements.txt", LockKind::Pip, &text).unwrap();
        assert_eq!(names(&lock), ["foo-bar-baz 1.0"]);
        assert_eq!(lock.packages[0].digests.len(), 2);
        for line in [
            "foo>=1",
            "foo==1",
            "foo==1 --hash=sha256:zz",
            "foo==1 --hash=md5:00",
        ] {
            let error = Lock::of("r.txt", LockKind::Pip, line).unwrap_err();
            assert!(matches!(error, LockError::Unpinned { .. }), "{line}: {error}");
        }
    }
}
