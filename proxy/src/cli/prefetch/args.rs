//! The arguments of `kato-proxy prefetch`, and the files that they name.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::Args;
use kato_shared::Digest;
use semver::Version;
use url::Url;

use crate::{
    cli::{SettingsArgs, explain},
    prefetch::{AptInput, AptSource, ImageRef, Inputs, Lock, Platform, ReleaseInput},
    snapshot::Wanted,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct PrefetchArgs {
    /// URLs, of hosts of configured upstreams
    urls: Vec<Url>,
    /// A file of URLs, one a line, each perhaps with sha256:… behind it
    #[arg(long, value_name = "FILE")]
    list: Vec<PathBuf>,
    /// Cargo.lock, package-lock.json, or a requirements.txt with hashes
    #[arg(long, value_name = "FILE")]
    lock: Vec<PathBuf>,
    /// An image, with its tag or digest: `REGISTRY/REPOSITORY[:TAG][@sha256:…]`
    #[arg(long, value_name = "IMAGE")]
    image: Vec<ImageRef>,
    /// A platform of the images, e.g. linux/arm64 [default: all]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Vec<Platform>,
    /// A repository of releases
    #[arg(long, value_name = "URL", requires = "release_root")]
    release: Option<Url>,
    /// The file of its pinned root metadata
    #[arg(long, value_name = "FILE")]
    release_root: Option<PathBuf>,
    /// The release [default: the newest of the channel]
    #[arg(long, value_name = "VERSION")]
    release_version: Option<Version>,
    /// What machines have now: releases in between come as well
    #[arg(long, value_name = "VERSION")]
    release_from: Option<Version>,
    /// The channel of releases
    #[arg(long, value_name = "NAME", default_value = "stable")]
    release_channel: String,
    /// A source of apt: 'URL SUITE COMPONENT…'
    #[arg(long, value_name = "SOURCE")]
    apt_source: Vec<AptSource>,
    /// A keyring for the sources of apt
    #[arg(long, value_name = "FILE")]
    apt_key: Vec<PathBuf>,
    /// An architecture of apt, e.g. amd64
    #[arg(long, value_name = "ARCH")]
    apt_arch: Vec<String>,
    /// A package of apt to install, with all that it depends on; - at its end removes
    #[arg(long, value_name = "NAME")]
    apt_package: Vec<String>,
    /// The file /var/lib/dpkg/status of a machine to upgrade
    #[arg(long, value_name = "FILE")]
    apt_status: Option<PathBuf>,
    /// Recommended packages, too
    #[arg(long)]
    apt_recommends: bool,
    /// What an offline mirror asks for, see `kato-proxy request`
    #[arg(long, value_name = "FILE")]
    request: Vec<PathBuf>,
    /// Fill the running proxy at this data address, in place of the store alone
    #[arg(long, value_name = "ADDR")]
    pub(super) through: Option<SocketAddr>,
    /// How many downloads at once
    #[arg(long, value_name = "N", default_value = "6")]
    pub(super) jobs: usize,
    /// Only say what is missing
    #[arg(long)]
    pub(super) plan: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

impl PrefetchArgs {
    /// What they say is to be fetched, with the files that they name.
    pub(super) fn inputs(&self) -> Result<Inputs, String> {
        let mut urls: Vec<(Url, Option<Digest>)> = self.urls.iter().map(|url| (url.clone(), None)).collect();
        for path in &self.list {
            urls.extend(read_list(path)?);
        }
        let locks = self.lock.iter().map(|path| Lock::read(path));
        let releases = self
            .release
            .iter()
            .zip(&self.release_root)
            .map(|(url, root)| ReleaseInput {
                url: with_slash(url),
                root: root.clone(),
                version: self.release_version.clone(),
                from: self.release_from.clone(),
                channel: self.release_channel.clone(),
            });
        let inputs = Inputs {
            urls,
            locks: locks.collect::<Result<_, _>>().map_err(|error| explain(&error))?,
            images: self.image.clone(),
            platforms: self.platform.clone(),
            releases: releases.collect(),
            apt: self.apt()?,
            requests: self
                .request
                .iter()
                .map(|path| read_request(path))
                .collect::<Result<_, _>>()?,
        };
        let is_empty = inputs.urls.is_empty()
            && inputs.locks.is_empty()
            && inputs.images.is_empty()
            && inputs.releases.is_empty()
            && inputs.apt.is_none()
            && inputs.requests.is_empty();
        if is_empty {
            return Err("nothing is asked for\nhint: `kato-proxy prefetch --help` lists what can be".into());
        }
        Ok(inputs)
    }

    fn apt(&self) -> Result<Option<AptInput>, String> {
        if self.apt_source.is_empty() {
            let is_other = !self.apt_package.is_empty() || self.apt_status.is_some();
            return if is_other {
                Err("--apt-package and --apt-status need an --apt-source".into())
            } else {
                Ok(None)
            };
        }
        if self.apt_arch.is_empty() {
            return Err("--apt-source needs an --apt-arch, such as amd64".into());
        }
        Ok(Some(AptInput {
            sources: self.apt_source.clone(),
            keys: self.apt_key.clone(),
            architectures: self.apt_arch.clone(),
            packages: self.apt_package.clone(),
            status: self.apt_status.clone(),
            recommends: self.apt_recommends,
        }))
    }
}

fn with_slash(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

fn read_list(path: &Path) -> Result<Vec<(Url, Option<Digest>)>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut urls = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next().filter(|word| !word.starts_with('#')) else {
            continue;
        };
        let bad = |what: &str| format!("{}:{}: {what} in `{line}`", path.display(), nth + 1);
        let url: Url = first.parse().map_err(|_no_url| bad("expected a URL"))?;
        let digest = words.next().filter(|word| !word.starts_with('#'));
        let digest = digest
            .map(str::parse)
            .transpose()
            .map_err(|_no_digest| bad("expected sha256:…"))?;
        urls.push((url, digest));
    }
    Ok(urls)
}

fn read_request(path: &Path) -> Result<Wanted, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Wanted::read(&bytes).map_err(|error| format!("{}: {}", path.display(), explain(&error)))
}
