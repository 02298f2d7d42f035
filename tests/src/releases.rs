//! Small signed repositories of releases, through the publisher's own library.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use integration_tests::{releases::Repository, static_server::StaticServer};
//! let folder = tempfile::tempdir()?;
//! let repository = Repository::with_two_releases(folder.path()).await?; // 1.0.0 and 2.0.0
//! let host = StaticServer::start(&repository.dir()).await?;
//! // [release] url = host.url(), trusted_root = repository.root()
//! # Ok(()) }
//! ```
//!
//! Keys are real, signatures are checked, nothing is mocked; only the payload is small. Every file of a release says
//! its version, so that a test can see which release a node has.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use jiff::Timestamp;
use kato_shared::{
    clock::Clock,
    durable,
    release::{Version, layout},
};
use kato_upgrader::publish::{self, BuildOptions, InitOptions, Lifetimes, UpgraderFile};

/// A repository in a folder: `repo/` (served), `keys/`, `build-<version>/`, `description-<version>/`.
#[derive(Debug, Clone)]
pub struct Repository {
    folder: PathBuf,
    lifetimes: Lifetimes,
    now: Timestamp,
}

/// A release to publish.
#[derive(Debug, Clone)]
pub struct TestRelease {
    /// Its version.
    pub version: Version,
    /// Its modules.
    pub modules: Vec<TestModule>,
    /// More keys of `release.toml`, in front of the modules, e.g. `restart = "none"`.
    pub head: String,
    /// More tables of `release.toml`, after the modules, e.g. `[[check]]`.
    pub tail: String,
    /// The upgrader that it ships: program and version.
    pub upgrader: Option<(PathBuf, Version)>,
}

/// A module of a [`TestRelease`].
#[derive(Debug, Clone)]
pub struct TestModule {
    /// Its name.
    pub name: String,
    /// The keys of `[module.install]`.
    pub install: String,
    /// More keys of `[[module]]`, e.g. `roles = ["dea"]`.
    pub keys: String,
    /// Its files: path, content, mode.
    pub files: Vec<(String, Vec<u8>, u32)>,
}

impl TestModule {
    /// A module for every role with the files `files` (mode 0644).
    pub fn new(name: &str, install: &str, files: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            install: install.to_owned(),
            keys: String::new(),
            files: files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec(), 0o644))
                .collect(),
        }
    }

    /// A module for every role that fails until `file` is below the node's root. Once installed it can be taken back.
    pub fn failing_until(name: &str, file: &str) -> Self {
        let shell = |script: String| format!("[\"sh\", \"-c\", '{script}']");
        let install = format!(
            "policy = \"exec\"\ncmd = {}\nprobe = {}\nundo = {}",
            shell(format!(
                "test -e \"$KATO_ROOT/{file}\" && touch \"$KATO_ROOT/{file}.done\""
            )),
            shell(format!("test -e \"$KATO_ROOT/{file}.done\"")),
            shell(format!("rm -f \"$KATO_ROOT/{file}.done\"")),
        );
        Self::new(name, &install, &[])
    }

    /// The same module for `roles` only.
    #[must_use]
    pub fn for_roles(mut self, roles: &[&str]) -> Self {
        // Role names need no escapes, so Rust's notation of a list of them is TOML's.
        let _infallible = writeln!(self.keys, "roles = {roles:?}");
        self
    }

    /// The same module with one more file.
    #[must_use]
    pub fn with_file(mut self, path: &str, content: Vec<u8>, mode: u32) -> Self {
        self.files.push((path.to_owned(), content, mode));
        self
    }
}

impl TestRelease {
    /// A release with all three policies: `app` (versioned, in `/s/code/app`, every node), `console` (replace,
    /// `/s/code/console`, after `app`, roles controller and primary), `etc` (overlay, `/s/etc`, every node) and
    /// `runner` (versioned, `/s/code/runner`, role dea). It restarts nothing and reads the version back.
    ///
    /// # Panics
    /// When `version` is none.
    pub fn standard(version: &str) -> Self {
        let run = format!("#!/bin/sh\necho {version}\n");
        let text = format!("version {version}\n");
        let app = TestModule::new(
            "app",
            "policy = \"versioned\"\ndest = \"/s/code/app\"",
            &[("VERSION", &text)],
        )
        .with_file("bin/run", run.clone().into_bytes(), 0o755);
        let mut console = TestModule::new(
            "console",
            "policy = \"replace\"\ndest = \"/s/code/console\"",
            &[("index.html", &text), ("sub/page.html", &text)],
        )
        .for_roles(&["controller", "primary"]);
        console.keys.push_str("after = [\"app\"]\n");
        let etc = TestModule::new(
            "etc",
            "policy = \"overlay\"\ndest = \"/s/etc\"",
            &[("app.conf", &text), ("nginx/site.conf", &text)],
        );
        let runner = TestModule::new(
            "runner",
            "policy = \"versioned\"\ndest = \"/s/code/runner\"\nlink = \"/s/bin/runner\"\nlink_to = \"bin/run\"",
            &[],
        )
        .with_file("bin/run", run.into_bytes(), 0o755)
        .for_roles(&["dea"]);
        Self {
            version: version.parse().expect("a version"),
            modules: vec![app, console, etc, runner],
            head: "restart = \"none\"\n".into(),
            tail: String::new(),
            upgrader: None,
        }
    }

    /// The same release with a file of `size` incompressible bytes in its first module, other ones for each version.
    #[must_use]
    pub fn with_payload(mut self, size: usize) -> Self {
        let seed = self.version.to_string();
        if let Some(module) = self.modules.first_mut() {
            let content = incompressible(&seed, size);
            module.files.push(("payload.bin".into(), content, 0o644));
        }
        self
    }

    /// The same release with the upgrader `program` of `version`.
    ///
    /// # Panics
    /// When `version` is none.
    #[must_use]
    pub fn with_upgrader(mut self, program: &Path, version: &str) -> Self {
        self.upgrader = Some((program.to_owned(), version.parse().expect("a version")));
        self
    }

    /// Writes `release.toml` and the modules' folders.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn describe(&self, folder: &Path) -> Result<()> {
        let mut text = format!(
            "product = \"demo\"\nversion = \"{}\"\n{}",
            self.version, self.head
        );
        for module in &self.modules {
            write!(
                text,
                "\n[[module]]\nname = \"{}\"\n{}\n[module.install]\n{}\n",
                module.name, module.keys, module.install
            )?;
            durable::create_folder(&folder.join(&module.name))?;
            for (path, content, mode) in &module.files {
                let path = folder.join(&module.name).join(path);
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
                durable::write(&path, content, *mode)?;
            }
        }
        text.push_str(&self.tail);
        Ok(durable::write(
            &folder.join("release.toml"),
            text.as_bytes(),
            0o644,
        )?)
    }
}

impl Repository {
    /// A repository without releases in `folder`, with one root key.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn empty(folder: &Path) -> Result<Self> {
        Self::with_roots(folder, 1, 1).await
    }

    /// A repository without releases whose root is signed by `threshold` of `keys` root keys.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn with_roots(folder: &Path, keys: u8, threshold: u8) -> Result<Self> {
        let made = Self {
            folder: folder.to_owned(),
            lifetimes: Lifetimes::default(),
            now: Clock::system().now(),
        };
        let options = InitOptions {
            root_keys: keys,
            root_threshold: threshold,
            ..InitOptions::default()
        };
        publish::init(&made.dir(), &made.keys(), options, made.now).await?;
        Ok(made)
    }

    /// A repository with the standard releases 1.0.0 and 2.0.0.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn with_two_releases(folder: &Path) -> Result<Self> {
        let repository = Self::empty(folder).await?;
        for version in ["1.0.0", "2.0.0"] {
            repository.publish(&TestRelease::standard(version)).await?;
        }
        Ok(repository)
    }

    /// The same repository as if it were `now`: what is published or refreshed from here on expires accordingly.
    #[must_use]
    pub const fn at(mut self, now: Timestamp) -> Self {
        self.now = now;
        self
    }

    /// The static files: what a web server serves.
    pub fn dir(&self) -> PathBuf {
        self.folder.join("repo")
    }

    /// The root metadata file that a node is given.
    pub fn root(&self) -> PathBuf {
        self.dir().join("metadata/1.root.json")
    }

    /// The folder of the keys.
    pub fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// The file of a target, e.g. `releases/1.0.0/release.json` or the end of an artifact's name.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn target(&self, name_end: &str) -> Result<PathBuf> {
        let mut waiting = vec![self.dir().join("targets")];
        let mut found = Vec::new();
        while let Some(folder) = waiting.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    waiting.push(path);
                } else if path.to_string_lossy().ends_with(name_end) {
                    found.push(path);
                }
            }
        }
        anyhow::ensure!(found.len() == 1, "{} targets end with `{name_end}`", found.len());
        Ok(found.swap_remove(0))
    }

    /// Builds, signs and publishes `release`.
    ///
    /// # Errors
    /// When a step is refused.
    pub async fn publish(&self, release: &TestRelease) -> Result<()> {
        let build = self.build(release)?;
        publish::sign(&build, &self.dir(), &self.keys(), self.lifetimes, self.now).await?;
        publish::publish(&build, &self.dir(), &self.keys(), self.lifetimes, self.now).await?;
        Ok(())
    }

    /// Builds `release` and gives the build folder.
    ///
    /// # Errors
    /// When the description is refused.
    pub fn build(&self, release: &TestRelease) -> Result<PathBuf> {
        let description = self.folder.join(format!("description-{}", release.version));
        let build = self.folder.join(format!("build-{}", release.version));
        release.describe(&description)?;
        let upgraders = release.upgrader.iter().map(|(file, version)| UpgraderFile {
            file: file.clone(),
            triple: layout::HOST_TRIPLE.into(),
            version: version.clone(),
        });
        let options = BuildOptions {
            upgraders: upgraders.collect(),
            level: 1,
        };
        publish::build(&description, &build, &options, self.now)?;
        Ok(build)
    }

    /// Signs snapshot and timestamp anew.
    ///
    /// # Errors
    /// When nothing is published.
    pub async fn refresh(&self) -> Result<()> {
        publish::refresh(&self.dir(), &self.keys(), self.lifetimes, self.now).await?;
        Ok(())
    }
}

/// Bytes that no compressor makes smaller; the same ones for the same seed.
pub fn incompressible(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    let mut block = kato_shared::Digest::of(seed.as_bytes());
    while bytes.len() < size {
        bytes.extend_from_slice(block.as_bytes());
        block = kato_shared::Digest::of(block.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_releases_are_made_and_verify() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::with_two_releases(folder.path()).await.unwrap();
        let document = fs::read(repository.target("releases/2.0.0/release.json").unwrap()).unwrap();
        let release = kato_shared::release::Release::from_json("2.0.0", &document).unwrap();
        assert_eq!(release.modules.len(), 4);
        assert!(release.artifacts.keys().any(|name| name == "app-2.0.0.tar.zst"));
    }
}
