//! Packages of apt: the machine's own `apt-get` reads the suites and finds the dependencies, in a throw-away root, through the cache.
//!
//! Nobody knows better which packages an installation needs, and which indexes a client reads on its way: those are in the cache when it is
//! done. It installs nothing and touches nothing of this machine; it only says which files it would fetch (`--print-uris`), with sizes and digests.
//!
//! The indexes are read by both of their names, the plain one and the one by digest that an archive may have: clients differ in what they ask for.
//!
//! One run an architecture. Signatures are verified by apt with the keys that were given; without a key for a source it refuses.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    str::FromStr,
    time::Duration,
};

use kato_shared::durable::{self, DurableError};
use tokio::{process::Command, time::timeout};
use url::Url;

use super::{Cache, Gathered, Item, mirror_path};
use crate::{ecosystem::Integrity, setup::VALID_UNTIL_MIN};

/// Reading the indexes of a large distribution over a slow line.
const PATIENCE: Duration = Duration::from_secs(1800);
/// The end of what apt says when it fails.
const MOST_SAID: usize = 2000;

/// The most bytes of an `InRelease`, which tells whether an archive answers.
const MOST_RELEASE: usize = 32 << 20;

/// A source such as `https://deb.example/debian bookworm main contrib`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AptSource {
    /// The archive.
    pub url: Url,
    /// The suite; one that ends with a slash has no components.
    pub suite: String,
    /// The components.
    pub components: Vec<String>,
}

impl FromStr for AptSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected 'URL SUITE COMPONENT…', got `{text}`");
        let mut words = text.split_ascii_whitespace().skip_while(|word| *word == "deb");
        let url: Url = words.next().and_then(|url| url.parse().ok()).ok_or_else(bad)?;
        let is_word = |word: &&str| {
            word.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-/+~".contains(&byte))
        };
        let suite = words.next().filter(is_word).ok_or_else(bad)?.to_owned();
        let components: Vec<String> = words.clone().map(str::to_owned).collect();
        let fits = components.is_empty() == suite.ends_with('/') && words.all(|word| is_word(&word));
        if !matches!(url.scheme(), "http" | "https") || !fits {
            return Err(bad());
        }
        Ok(Self {
            url,
            suite,
            components,
        })
    }
}

/// What is wanted of apt.
#[derive(Debug, Clone, Default)]
pub struct AptInput {
    /// The sources.
    pub sources: Vec<AptSource>,
    /// Keyrings by which their signatures are verified.
    pub keys: Vec<PathBuf>,
    /// Architectures, as Debian calls them.
    pub architectures: Vec<String>,
    /// Packages to install.
    pub packages: Vec<String>,
    /// The `status` file of dpkg of a machine that is to be upgraded.
    pub status: Option<PathBuf>,
    /// Whether recommended packages come as well.
    pub recommends: bool,
}

/// Why apt did not say what it needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum AptError {
    /// The throw-away root cannot be made.
    #[error("no temporary folder")]
    Folder(#[source] std::io::Error),
    /// Something cannot be written there.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// It cannot be started.
    #[error("apt-get cannot be started\nhint: run this on a machine with apt")]
    Start(#[source] std::io::Error),
    /// It takes too long.
    #[error("apt-get {verb} did not end within {}s", PATIENCE.as_secs())]
    Slow {
        /// What it should do.
        verb: String,
    },
    /// It says no.
    #[error("apt-get {verb} failed ({status}): {said}")]
    Failed {
        /// What it should do.
        verb: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its words.
        said: String,
    },
}

impl AptError {
    /// Whether the same may succeed later: not where apt has been given all that it asked for, and says no.
    async fn may_pass(&self, cache: &Cache, input: &AptInput) -> bool {
        match self {
            Self::Folder(_) | Self::Durable(_) | Self::Start(_) => false,
            Self::Slow { .. } => true,
            Self::Failed { .. } => {
                for source in &input.sources {
                    let suite = source.suite.trim_end_matches('/');
                    let place = if source.components.is_empty() {
                        String::new()
                    } else {
                        "dists/".to_owned()
                    };
                    let path = format!(
                        "{}/{place}{suite}/InRelease",
                        mirror_path(&source.url).trim_end_matches('/')
                    );
                    let asked = cache.document(&Item::at(path), MOST_RELEASE).await;
                    if asked.is_err_and(|error| error.is_temporary()) {
                        return true;
                    }
                }
                false
            }
        }
    }
}

/// Adds the packages that `input` comes to.
pub(super) async fn gather(cache: &Cache, input: &AptInput, gathered: &mut Gathered) {
    for architecture in &input.architectures {
        match of_architecture(cache, input, architecture).await {
            Ok(items) => items.into_iter().for_each(|item| gathered.add(item)),
            Err(error) => {
                let is_temporary = error.may_pass(cache, input).await;
                gathered.fail(&format!("apt ({architecture})"), &error, is_temporary);
            }
        }
    }
}

async fn of_architecture(cache: &Cache, input: &AptInput, architecture: &str) -> Result<Vec<Item>, AptError> {
    let folder = tempfile::tempdir().map_err(AptError::Folder)?;
    let root = folder.path();
    for below in [
        "etc/apt/sources.list.d",
        "etc/apt/trusted.gpg.d",
        "etc/apt/preferences.d",
        "etc/apt/apt.conf.d",
        "state/lists/partial",
        "cache/archives/partial",
        "log",
    ] {
        durable::create_folder(&root.join(below))?;
    }
    let status = root.join("status");
    match &input.status {
        Some(given) => durable::copy(given, &status, 0o644, None)?,
        None => durable::write(&status, b"", 0o644)?,
    }
    let mut keys = Vec::new();
    for (nth, key) in input.keys.iter().enumerate() {
        let kind = key.extension().and_then(|kind| kind.to_str()).unwrap_or("gpg");
        let own = root.join(format!("etc/apt/trusted.gpg.d/{nth}.{kind}"));
        durable::copy(key, &own, 0o644, None)?;
        keys.push(own.display().to_string());
    }
    let text = sources(cache, input, &keys);
    durable::write(&root.join("etc/apt/sources.list"), text.as_bytes(), 0o644)?;
    let config = root.join("apt.conf");
    durable::write(
        &config,
        settings(root, architecture, input.recommends).as_bytes(),
        0o644,
    )?;
    for by_hash in ["no", "yes"] {
        // What the archive itself says of it stands: without names by digest, the second run is answered by the cache.
        let option = format!("Acquire::By-Hash={by_hash}");
        let words: &[&str] = if by_hash == "no" {
            &["-o", &option, "update"]
        } else {
            &["update"]
        };
        // Indexes that are there are not asked for again by another name.
        let lists = root.join("state/lists");
        std::fs::remove_dir_all(&lists).map_err(AptError::Folder)?;
        durable::create_folder(&lists.join("partial"))?;
        run(&config, words).await?;
    }
    let mut said = String::new();
    if input.status.is_some() {
        said += &run(&config, &["-y", "--print-uris", "dist-upgrade"]).await?;
    }
    if !input.packages.is_empty() {
        let mut install = vec!["-y", "--print-uris", "install", "--"];
        install.extend(input.packages.iter().map(String::as_str));
        said += &run(&config, &install).await?;
    }
    Ok(said
        .lines()
        .filter_map(|line| item(line, &cache.base()))
        .collect())
}

/// The sources by their mirror paths.
fn sources(cache: &Cache, input: &AptInput, keys: &[String]) -> String {
    let signed_by = if keys.is_empty() {
        String::new()
    } else {
        format!("[signed-by={}] ", keys.join(","))
    };
    let mut text = String::new();
    for source in &input.sources {
        // Writing to a `String` cannot fail.
        let _infallible = writeln!(
            text,
            "deb {signed_by}{}{} {} {}",
            cache.base(),
            mirror_path(&source.url),
            source.suite,
            source.components.join(" ")
        );
    }
    text
}

/// The settings of a run. Read by `APT_CONFIG`, before any of this machine.
///
/// What is old is accepted as long as clients of a mirror are told to accept it. Descriptions come in the language of a client that sets none.
fn settings(root: &Path, architecture: &str, recommends: bool) -> String {
    let root = root.display();
    format!(
        "Dir \"{root}/\";\nDir::Etc \"{root}/etc/apt\";\nDir::State \"{root}/state\";\nDir::State::status \"{root}/status\";\n\
         Dir::Cache \"{root}/cache\";\nDir::Log \"{root}/log\";\nDir::Bin::methods \"/usr/lib/apt/methods\";\nAPT::Architecture \"{architecture}\";\n\
         APT::Architectures \"{architecture}\";\nAPT::Install-Recommends \"{recommends}\";\nAPT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\nAcquire::http::Proxy \"DIRECT\";\nAcquire::Min-ValidTime \"{VALID_UNTIL_MIN}\";\nAcquire::Retries \"2\";\nDebug::NoLocking \"true\";\n"
    )
}

#[expect(clippy::disallowed_methods, reason = "the owner of this child process")]
async fn run(config: &Path, words: &[&str]) -> Result<String, AptError> {
    let verb = || words.join(" ");
    let mut command = Command::new("apt-get");
    command
        .args(["-q"])
        .args(words)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .env("APT_CONFIG", config)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(PATIENCE, command.output())
        .await
        .map_err(|_elapsed| AptError::Slow { verb: verb() })?
        .map_err(AptError::Start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let from = said.len().saturating_sub(MOST_SAID);
    Err(AptError::Failed {
        verb: verb(),
        status: output.status,
        said: said.get(from..).unwrap_or(&said).trim().to_owned(),
    })
}

/// A line such as `'http://…/a.deb' a.deb 1234 SHA256:…`.
fn item(line: &str, base: &str) -> Option<Item> {
    let (url, rest) = line.strip_prefix('\'')?.split_once("' ")?;
    let path = url.strip_prefix(base)?;
    let mut words = rest.split_ascii_whitespace().skip(1);
    let size = words.next().and_then(|size| size.parse().ok());
    let digest = words.find_map(|word| word.strip_prefix("SHA256:")?.parse().ok());
    Some(Item {
        size,
        integrity: digest.map(Integrity::Sha256),
        ..Item::at(path.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_stand_in_a_list() {
        let read: AptSource = "deb https://deb.example/debian bookworm main contrib"
            .parse()
            .unwrap();
        assert_eq!((read.suite.as_str(), read.components.len()), ("bookworm", 2));
        assert!("https://deb.example/debian ./".parse::<AptSource>().is_ok());
        for text in [
            "",
            "bookworm main",
            "https://deb.example/debian bookworm",
            "file:///srv bookworm main",
            "https://deb.example/debian book[worm] main",
            "https://deb.example/debian bookworm main;rm",
        ] {
            assert!(text.parse::<AptSource>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_apt_would_fetch_is_read_with_size_and_digest() {
        let digest = kato_shared::Digest::of(b"x");
        let line = format!(
            "'http://127.0.0.1:1/http/deb.example/pool/a%2b.deb' a+_1_amd64.deb 12 SHA256:{}",
            digest.hex()
        );
        let read = item(&line, "http://127.0.0.1:1").unwrap();
        assert_eq!(read.path, "/http/deb.example/pool/a%2b.deb");
        assert_eq!(
            (read.size, read.integrity),
            (Some(12), Some(Integrity::Sha256(digest)))
        );
        for line in [
            "Reading package lists...",
            "'http://other.example/a.deb' a 1 MD5Sum:0",
        ] {
            assert_eq!(item(line, "http://127.0.0.1:1"), None, "{line}");
        }
    }
}
