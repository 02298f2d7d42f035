//! What a client has to be told to use this server: the exact text of its own configuration, for the upstreams that are configured
//! and the name by which the client knows us.
//!
//! `kato-proxy client-config CLIENT` prints it, `GET /-/setup/CLIENT` serves it; `/-/setup/` lists what there is. A text has one part for
//! each file, below a line that names it ([`FILE`]). Everything is pure: settings and a name in, text out.
//!
//! | Module | Clients |
//! |---|---|
//! | `apt` | apt |
//! | `images` | docker, containerd, podman, skopeo, buildah |
//! | `languages` | pip, npm, cargo |
//! | `plain` | curl, env |
//!
//! Deliberately absent: installing anything. A text is read by a person before it goes into a file.

mod apt;
mod images;
mod languages;
mod page;
mod plain;

use std::{fmt, net::IpAddr, str::FromStr};

use crate::{
    settings::{Kind, Settings, Upstream},
    view::ServerBase,
};

pub(crate) use apt::VALID_UNTIL_MIN;
pub(crate) use languages::simple_index;
pub use page::{OfflineView, SetupPage, UpstreamView};

/// How the line begins that names the file in which the following belongs.
pub const FILE: &str = "# file: ";

/// A client that can be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// apt and its relatives.
    Apt,
    /// The Docker daemon.
    Docker,
    /// containerd.
    Containerd,
    /// podman and CRI-O.
    Podman,
    /// skopeo, which reads podman's files.
    Skopeo,
    /// buildah, which reads them as well.
    Buildah,
    /// pip and uv.
    Pip,
    /// npm.
    Npm,
    /// cargo.
    Cargo,
    /// curl.
    Curl,
    /// Everything that reads the environment.
    Env,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Apt,
        Self::Docker,
        Self::Containerd,
        Self::Podman,
        Self::Skopeo,
        Self::Buildah,
        Self::Pip,
        Self::Npm,
        Self::Cargo,
        Self::Curl,
        Self::Env,
    ];

    /// Its name on the command line and in paths.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::Podman => "podman",
            Self::Skopeo => "skopeo",
            Self::Buildah => "buildah",
            Self::Pip => "pip",
            Self::Npm => "npm",
            Self::Cargo => "cargo",
            Self::Curl => "curl",
            Self::Env => "env",
        }
    }

    /// The kind of upstream without which it has nothing to ask for; `None` where any will do.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Apt => Some(Kind::Packages),
            Self::Docker | Self::Containerd | Self::Podman | Self::Skopeo | Self::Buildah => {
                Some(Kind::Registry)
            }
            Self::Pip => Some(Kind::Pypi),
            Self::Npm => Some(Kind::Npm),
            Self::Cargo => Some(Kind::Cargo),
            Self::Curl | Self::Env => None,
        }
    }

    /// What it is told; `None` where no upstream of its kind is configured.
    pub fn text(self, site: Site<'_>) -> Option<String> {
        site.upstreams(self.kind()).next()?;
        Some(match self {
            Self::Apt => apt::text(site),
            Self::Docker => images::docker(site),
            Self::Containerd => images::containerd(site),
            // They read the same files.
            Self::Podman | Self::Skopeo | Self::Buildah => images::podman(site),
            Self::Pip => languages::pip(site),
            Self::Npm => languages::npm(site),
            Self::Cargo => languages::cargo(site),
            Self::Curl => plain::curl(site),
            Self::Env => plain::env(site),
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Client {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|client| client.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is no client that can be set up: expected one of {names}")
        })
    }
}

/// What a text depends on.
#[derive(Debug, Clone, Copy)]
pub struct Site<'s> {
    /// The settings of the server.
    pub settings: &'s Settings,
    /// How the client knows it.
    pub base: &'s ServerBase,
    /// Who asks, where that is known: upstreams that are not for them are not named to them.
    pub client: Option<IpAddr>,
}

impl<'s> Site<'s> {
    /// The upstreams of `kind`, or all.
    fn upstreams(self, kind: Option<Kind>) -> impl Iterator<Item = &'s Upstream> {
        let all = self.settings.upstreams.iter();
        all.filter(move |upstream| {
            let is_for_client = self.client.is_none_or(|client| upstream.allows(client));
            is_for_client && kind.is_none_or(|kind| upstream.kind == kind)
        })
    }

    /// The mirror path of `upstream` as a URL, with its slash.
    fn mirror(self, upstream: &Upstream) -> String {
        self.base.at(&format!("/{}/", upstream.name))
    }

    /// Whether clients need our certificate where they use us as a proxy.
    fn is_opened(self) -> bool {
        self.upstreams(None).any(|upstream| upstream.intercept)
    }

    /// How the certificate comes to a Debian machine, as comments with this mark; empty where there is none.
    fn certificate_note(self, mark: &str) -> String {
        if !self.is_opened() {
            return String::new();
        }
        format!(
            "{mark} https through this proxy is opened for some hosts. Once, as root, with the fingerprint compared (kato-proxy ca show):\n\
             {mark}   curl -fo /usr/local/share/ca-certificates/kato-proxy.crt {} && update-ca-certificates\n",
            self.base.at("/-/ca.crt")
        )
    }
}

/// The hosts of an upstream, each once, as clients write them.
fn hosts(upstream: &Upstream) -> Vec<String> {
    let mut hosts: Vec<String> = Vec::new();
    for url in upstream.all_urls() {
        let authority = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        if !hosts.contains(&authority) {
            hosts.push(authority);
        }
    }
    hosts
}

#[cfg(test)]
mod tests;
