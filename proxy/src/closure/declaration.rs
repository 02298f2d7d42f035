//! The file in which an operator declares what a site needs: what is checked in a snapshot, and what is run against it.
//!
//! ```toml
//! platforms = ["linux/amd64"]
//! lock      = ["Cargo.lock"]                        # beside this file
//! [[image]]
//! repository = "https://registry.example/team/app"
//! reference  = "1.0"                                # a tag or a digest
//! [[apt]]
//! archive = "http://deb.example/debian"
//! suite = "stable"
//! components = ["main"]
//! architectures = ["amd64"]
//! packages = ["lab-tool"]                           # NAME[:ARCHITECTURE][=VERSION]; all that they depend on is needed as well, from any of the suites
//! status = "dpkg-status"                            # beside this file: what the machine has installed is not needed
//! recommends = true                                 # what is recommended is needed as well; not by default
//! [[release]]
//! repository = "https://upgrade.example"
//! version = "2.0.0"
//! [[file]]
//! url = "https://files.example/tool.tar.gz"
//! digest = "sha256:…"                               # where it is known
//! [[command]]
//! argv = ["curl", "-fO", "{mirror}/files/tool.tar.gz"]
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use kato_shared::{
    Digest,
    settings::{self, HumanDuration, SettingsError},
};
use semver::Version;
use serde::Deserialize;
use url::Url;

use super::{
    Declaration, DeclaredImage, DeclaredPackage, DeclaredRelease, DeclaredSuite, Status, StatusError,
};
use crate::prefetch::{Lock, LockError, Platform};

/// How long a command may take that does not say otherwise.
const PATIENCE: HumanDuration = HumanDuration::from_secs(600);

/// What a site needs, and how that is tried out.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// What has to be there.
    pub what: Declaration,
    /// What has to work.
    pub commands: Vec<DeclaredCommand>,
}

/// A command of a client that has to succeed without a network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredCommand {
    /// Program and arguments. `{mirror}` in them becomes the URL of the server, `{address}` its host and port, `{work}` an empty folder, which is
    /// also `HOME` and the working folder.
    pub argv: Vec<String>,
    /// How long it may take.
    #[serde(default = "patience")]
    pub deadline: HumanDuration,
}

const fn patience() -> HumanDuration {
    PATIENCE
}

/// Why a declaration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeclarationError {
    /// The file.
    #[error(transparent)]
    File(#[from] SettingsError),
    /// A lock file that it names.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A status file that it names.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A value.
    #[error("`{path}`: {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Document {
    platforms: Vec<String>,
    lock: Vec<PathBuf>,
    image: Vec<Image>,
    apt: Vec<Suite>,
    release: Vec<Release>,
    file: Vec<File>,
    command: Vec<DeclaredCommand>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    repository: Url,
    reference: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite {
    archive: Url,
    #[serde(rename = "suite")]
    name: String,
    components: Vec<String>,
    architectures: Vec<String>,
    #[serde(default)]
    packages: Vec<String>,
    #[serde(default)]
    status: Option<PathBuf>,
    #[serde(default)]
    recommends: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    repository: Url,
    version: Version,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Url,
    #[serde(default)]
    digest: Option<Digest>,
}

impl Declared {
    /// Reads `path`, and the lock files that it names.
    ///
    /// # Errors
    /// [`DeclarationError`], with the line of what cannot be understood.
    pub fn read(path: &Path) -> Result<Self, DeclarationError> {
        let file: Document = settings::load(path)?;
        let beside = path.parent().unwrap_or(Path::new("."));
        let locks = file.lock.iter().map(|lock| Lock::read(&beside.join(lock)));
        let wrong = |problem: String| DeclarationError::Value {
            path: path.to_owned(),
            problem,
        };
        if file.command.iter().any(|command| command.argv.is_empty()) {
            return Err(wrong("a command has an empty `argv`".to_owned()));
        }
        let platforms = file
            .platforms
            .iter()
            .map(|platform| platform.parse().map_err(&wrong));
        let suites = file.apt.into_iter().map(|suite| suite.declared(beside, wrong));
        Ok(Self {
            what: Declaration {
                platforms: platforms.collect::<Result<Vec<Platform>, _>>()?,
                locks: locks.collect::<Result<_, _>>()?,
                images: file.image.into_iter().map(Image::declared).collect(),
                suites: suites.collect::<Result<_, _>>()?,
                releases: file.release.into_iter().map(Release::declared).collect(),
                files: file
                    .file
                    .into_iter()
                    .map(|file| (file.url.into(), file.digest))
                    .collect(),
            },
            commands: file.command,
        })
    }

    /// What is checked, a line each.
    pub fn subjects(&self) -> Vec<String> {
        let what = &self.what;
        let images = what.images.iter().map(|image| {
            format!(
                "image {}:{}{}",
                image.repository,
                image.reference,
                platforms(what)
            )
        });
        let suites = what
            .suites
            .iter()
            .map(|suite| format!("apt {} {}", suite.archive, suite.suite));
        let releases = what
            .releases
            .iter()
            .map(|release| format!("release {} of {}", release.version, release.repository));
        let locks = what.locks.iter().map(|lock| format!("lock file {}", lock.path));
        let files = what.files.iter().map(|(url, _)| format!("file {url}"));
        images
            .chain(suites)
            .chain(releases)
            .chain(locks)
            .chain(files)
            .collect()
    }
}

/// Which platforms of images are meant, in words.
fn platforms(what: &Declaration) -> String {
    let names: Vec<String> = what.platforms.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" for {}", names.join(", "))
    }
}

fn plain(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

impl Image {
    fn declared(mut self) -> DeclaredImage {
        // The door of registries, which people leave out when they name an image.
        let path = format!("/v2{}", self.repository.path());
        self.repository.set_path(&path);
        DeclaredImage {
            repository: plain(&self.repository),
            reference: self.reference,
        }
    }
}

impl Suite {
    fn declared(
        self,
        beside: &Path,
        wrong: impl Fn(String) -> DeclarationError,
    ) -> Result<DeclaredSuite, DeclarationError> {
        if self.name.ends_with('/') || self.components.is_empty() || self.architectures.is_empty() {
            return Err(wrong(format!(
                "suite `{}` of {}: expected a suite with components and architectures; declare the files of a flat archive as [[file]]",
                self.name, self.archive
            )));
        }
        let packages = self
            .packages
            .iter()
            .map(|package| package.parse().map_err(&wrong));
        let status = self.status.map(|path| Status::read(&beside.join(path)));
        Ok(DeclaredSuite {
            archive: plain(&self.archive),
            suite: self.name,
            components: self.components,
            architectures: self.architectures,
            packages: packages.collect::<Result<Vec<DeclaredPackage>, _>>()?,
            status: status.transpose()?.map(Arc::new),
            recommends: self.recommends,
        })
    }
}

impl Release {
    fn declared(self) -> DeclaredRelease {
        DeclaredRelease {
            repository: plain(&self.repository),
            version: self.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use kato_shared::durable;

    use super::*;

    fn read(text: &str) -> Result<Declared, DeclarationError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.toml");
        durable::write(&path, text.as_bytes(), 0o644).unwrap();
        Declared::read(&path)
    }

    #[test]
    fn a_declaration_is_read_and_names_its_subjects() {
        let declared = read(
            "platforms = [\"linux/arm64\"]\n[[image]]\nrepository = \"https://registry.example/team/app/\"\nreference = \"1.0\"\n\
             [[apt]]\narchive = \"http://deb.example/debian/\"\nsuite = \"stable\"\ncomponents = [\"main\"]\narchitectures = [\"amd64\"]\n\
             [[release]]\nrepository = \"https://upgrade.example/\"\nversion = \"2.0.0\"\n[[file]]\nurl = \"https://files.example/t.tar\"\n[[command]]\nargv = [\"true\"]\n",
        )
        .unwrap();
        assert_eq!(
            declared.subjects(),
            [
                "image https://registry.example/v2/team/app:1.0 for linux/arm64",
                "apt http://deb.example/debian stable",
                "release 2.0.0 of https://upgrade.example",
                "file https://files.example/t.tar",
            ]
        );
        assert_eq!(declared.what.platforms[0].architecture, "arm64");
        assert_eq!(declared.commands[0].deadline, PATIENCE);
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        for (text, expected) in [
            ("images = []\n", "images"),
            ("platforms = [\"amd64\"]\n", "OS/ARCHITECTURE"),
            ("[[command]]\nargv = []\n", "argv"),
            ("lock = [\"nowhere.lock\"]\n", "nowhere.lock"),
            (
                "[[file]]\nurl = \"https://f.example/\"\ndigest = \"0\"\n",
                "digest",
            ),
        ] {
            let error = read(text).unwrap_err();
            let said = kato_shared::chain::Chain(&error).to_string();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
