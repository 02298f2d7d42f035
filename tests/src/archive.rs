//! A Debian archive of one suite, signed by a key of its own, for an [`Origin`] to serve: small enough to be changed between two requests.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use kato_shared::{Digest, digest::OtherHasher, durable};
use tempfile::TempDir;

use crate::{
    command,
    origin::{Origin, Resource},
};

/// Making a key and a signature takes a moment; a busy machine takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where an archive has its suite, and what it says about it: what differs from one distribution to the next.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// The path of the archive, with a slash at both ends.
    pub base: &'static str,
    /// The suite.
    pub suite: &'static str,
    /// The processors that it is for.
    pub architectures: &'static str,
    /// Who made it.
    pub origin: &'static str,
}

impl Layout {
    /// An archive with one suite, for tests that are about no distribution.
    pub const LAB: Self = Self {
        base: "/debian/",
        suite: "stable",
        architectures: "amd64 all",
        origin: "Lab",
    };

    /// The path of what stands at `path` below the suite.
    fn in_suite(&self, path: &str) -> String {
        format!("{}dists/{}/{path}", self.base, self.suite)
    }
}

/// What an archive has; nothing is served before [`Archive::publish`].
#[derive(Debug)]
pub struct Archive {
    home: TempDir,
    layout: Layout,
    /// By path below `dists/stable/`.
    indexes: BTreeMap<String, Vec<u8>>,
    generation: u32,
    is_listed_by_sha512: bool,
    /// By path below the suite, as [`Archive::publish`] has served it last.
    published: Vec<(String, Vec<u8>)>,
}

impl Archive {
    /// An archive without anything, and its key.
    ///
    /// # Errors
    /// When gpg is not there.
    pub fn new() -> Result<Self> {
        Self::laid_out(Layout::LAB)
    }

    /// An archive without anything that is laid out like this, and its key.
    ///
    /// # Errors
    /// When gpg is not there.
    pub fn laid_out(layout: Layout) -> Result<Self> {
        let archive = Self {
            home: tempfile::tempdir()?,
            layout,
            indexes: BTreeMap::new(),
            generation: 0,
            is_listed_by_sha512: false,
            published: Vec::new(),
        };
        let user = [
            "--quick-gen-key",
            "archive@lab.example",
            "ed25519",
            "sign",
            "never",
        ];
        archive.gpg(&user)?;
        let key = archive.key();
        archive.gpg(&["--output", text(&key)?, "--export"])?;
        Ok(archive)
    }

    /// The file of the public key, for `Signed-By`.
    pub fn key(&self) -> PathBuf {
        self.home.path().join("archive.gpg")
    }

    /// Has this index, by its path below the suite, in the next generation.
    pub fn index(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.indexes.insert(path.to_owned(), content.into());
    }

    /// Lists its indexes by SHA-512 as well, as most archives do, and has names by it: apt asks for those alone then.
    pub fn list_by_sha512(&mut self) {
        self.is_listed_by_sha512 = true;
    }

    /// Signs the indexes and serves them on `origin` below its suite, by their names and by their digests; to be validated
    /// each time, as archives have it.
    ///
    /// # Errors
    /// When gpg fails.
    pub fn publish(&mut self, origin: &Origin) -> Result<()> {
        self.generation += 1;
        let mut files = Vec::new();
        let Layout {
            suite,
            architectures,
            origin: made_by,
            ..
        } = self.layout;
        let mut release = format!(
            "Origin: {made_by}\nSuite: {suite}\nCodename: {suite}\nArchitectures: {architectures}\nComponents: main\n\
             Acquire-By-Hash: yes\nDate: Thu, 0{} Jan 2026 00:00:00 UTC\nSHA256:\n",
            self.generation
        );
        for (path, content) in &self.indexes {
            let digest = Digest::of(content).hex();
            writeln!(release, " {digest} {} {path}", content.len())?;
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            files.push((path.clone(), content.clone()));
            files.push((format!("{folder}/by-hash/SHA256/{digest}"), content.clone()));
        }
        if self.is_listed_by_sha512 {
            release.push_str("SHA512:\n");
            for (path, content) in &self.indexes {
                let mut hasher = OtherHasher::sha512();
                hasher.update(content);
                let digest = hasher
                    .finish()
                    .iter()
                    .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                writeln!(release, " {digest} {} {path}", content.len())?;
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                files.push((format!("{folder}/by-hash/SHA512/{digest}"), content.clone()));
            }
        }
        let (plain, inline, apart) = ("Release", "InRelease", "Release.gpg");
        let [plain_at, inline_at, apart_at] = [plain, inline, apart].map(|name| self.home.path().join(name));
        durable::write(&plain_at, release.as_bytes(), 0o644)?;
        self.gpg(&[
            "--yes",
            "--output",
            text(&inline_at)?,
            "--clear-sign",
            text(&plain_at)?,
        ])?;
        self.gpg(&[
            "--yes",
            "--armor",
            "--output",
            text(&apart_at)?,
            "--detach-sign",
            text(&plain_at)?,
        ])?;
        files.push((plain.to_owned(), release.into_bytes()));
        files.push((inline.to_owned(), std::fs::read(&inline_at)?));
        files.push((apart.to_owned(), std::fs::read(&apart_at)?));
        self.published = files;
        self.mirror(origin);
        Ok(())
    }

    /// Serves what was published last on another server as well: a mirror, which has every byte of it.
    pub fn mirror(&self, origin: &Origin) {
        let tag = format!("\"{}\"", self.generation);
        // As archives say it. Without it a time would stand for the content, and two generations may have one second.
        let modified = format!("Thu, 0{} Jan 2026 00:00:00 GMT", self.generation);
        for (path, content) in &self.published {
            let resource = Resource::new(content.clone())
                .header("etag", &tag)
                .header("last-modified", &modified)
                .header("cache-control", "max-age=0");
            origin.serve(&self.layout.in_suite(path), resource);
        }
    }

    fn gpg(&self, rest: &[&str]) -> Result<()> {
        let mut gpg = command::new("gpg");
        gpg.args([
            "--batch",
            "--homedir",
            text(self.home.path())?,
            "--passphrase",
            "",
        ]);
        gpg.args(rest);
        let line = command::line(&gpg);
        command::success(&line, command::run(gpg, PATIENCE, &[])?).map(drop)
    }
}

impl Drop for Archive {
    /// Ends the agent that gpg has left behind.
    fn drop(&mut self) {
        let mut end = command::new("gpgconf");
        end.arg("--homedir")
            .arg(self.home.path())
            .args(["--kill", "gpg-agent"]);
        command::run(end, PATIENCE, &[]).ok();
    }
}

/// A package for every architecture, made by `dpkg-deb` in `folder`: its file below the archive, and its paragraph in `Packages`.
///
/// # Errors
/// When `dpkg-deb` fails.
pub fn package(folder: &Path, name: &str, depends: &[String]) -> Result<(String, Vec<u8>, String)> {
    let tree = folder.join(name);
    durable::create_folder(&tree.join("DEBIAN"))?;
    durable::create_folder(&tree.join("usr/share").join(name))?;
    let mut control =
        format!("Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: Lab <lab@lab.example>\n");
    if !depends.is_empty() {
        writeln!(control, "Depends: {}", depends.join(", "))?;
    }
    control.push_str("Description: a package of the lab\n");
    durable::write(&tree.join("DEBIAN/control"), control.as_bytes(), 0o644)?;
    let content = format!("{name}\n").repeat(500);
    durable::write(
        &tree.join("usr/share").join(name).join("text"),
        content.as_bytes(),
        0o644,
    )?;
    let file = folder.join(format!("{name}_1.0_all.deb"));
    command::ok(&[
        "dpkg-deb",
        "--root-owner-group",
        "--build",
        text(&tree)?,
        text(&file)?,
    ])?;
    let bytes = std::fs::read(&file)?;
    let path = format!("pool/{name}_1.0_all.deb");
    let digest = Digest::of(&bytes).hex();
    writeln!(
        control,
        "Filename: {path}\nSize: {}\nSHA256: {digest}\n",
        bytes.len()
    )?;
    Ok((path, bytes, control))
}

/// Options of apt on a node of the lab: its own lists and cache, one source, and nothing of the machine's settings.
pub const ON_A_NODE: [&str; 7] = [
    "Dir::Etc::SourceList=/etc/lab/sources.list",
    "Dir::Etc::SourceParts=/dev/null",
    "Dir::State::lists=/var/lib/lab-apt/lists",
    "Dir::Cache=/var/cache/lab-apt",
    "APT::Sandbox::User=root",
    "Acquire::Retries=0",
    // A warning about an index that could not be had must not pass for success.
    "APT::Update::Error-Mode=any",
];

/// apt with settings, lists and cache of its own below `root`, and nothing of this machine's.
///
/// # Errors
/// When the folders cannot be made.
pub fn apt(root: &Path, options: &[String], words: &[&str]) -> Result<std::process::Command> {
    for folder in ["lists/partial", "cache/archives/partial", "etc"] {
        durable::create_folder(&root.join(folder))?;
    }
    let status = root.join("status");
    if !status.exists() {
        durable::write(&status, b"", 0o644)?;
    }
    let at = text(root)?;
    let mut apt = command::new("apt-get");
    // The machine's own settings may name a proxy.
    apt.current_dir(root)
        .env("APT_CONFIG", root.join("none"))
        .arg("-q");
    durable::write(
        &root.join("none"),
        format!("Dir::Etc \"{at}/etc\";\n").as_bytes(),
        0o644,
    )?;
    let own = [
        format!("Dir::State={at}"),
        format!("Dir::State::lists={at}/lists"),
        format!("Dir::State::status={at}/status"),
        format!("Dir::Cache={at}/cache"),
        "APT::Sandbox::User=".to_owned(),
        "APT::Architecture=amd64".to_owned(),
        "Acquire::Retries=0".to_owned(),
        "APT::Update::Error-Mode=any".to_owned(),
    ];
    for option in own.iter().chain(options) {
        apt.args(["-o", option]);
    }
    apt.args(words);
    Ok(apt)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
