//! A client as it is told to come by one door: what it calls the repository there, what its files and its environment say.

use std::{
    collections::BTreeMap,
    env::consts::ARCH,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use integration_tests::{command, image::Image};
use kato_shared::{Digest, durable};

use super::{Client, Door, SOON, Which, pulls};
use crate::{
    programs::{Containerd, Docker, podman_in, skopeo_in},
    scripted::Cache,
};

/// A daemon, where a client has one.
enum Daemon {
    None,
    Containerd(Containerd),
    Docker(Docker),
}

/// A client that is told to come by one door.
pub(super) struct Puller {
    client: Client,
    door: Door,
    /// What a repository of the registry is called by this door.
    repository: String,
    environment: Vec<(&'static str, String)>,
    told: String,
    daemon: Daemon,
    folder: PathBuf,
}

impl Puller {
    /// `None` where its daemon does not start here, which is said.
    pub(super) async fn start(
        client: Client,
        door: Door,
        which: Which,
        cache: &Cache,
        folder: &Path,
    ) -> Result<Option<Self>> {
        std::fs::create_dir_all(folder)?;
        let (data, own) = (cache.proxy.data, format!("{}.example", which.name()));
        let repository = match (door, client) {
            (Door::Prefix, _) => format!("{data}/{own}/lab/app"),
            (Door::Default, Client::Docker) => "lab/app".to_owned(),
            (Door::Default, _) => format!("{data}/lab/app"),
            (Door::Namespace | Door::Mirrors | Door::Opened, _) => format!("{own}/lab/app"),
        };
        let mut environment = Vec::new();
        if door == Door::Opened {
            let said = cache.get("/-/ca.crt").await?;
            ensure!(said.status == 200, "no certificate: {said:?}");
            let ca = folder.join("ca.pem");
            durable::write(&ca, &said.body, 0o644)?;
            environment.push(("HTTPS_PROXY", format!("http://{data}")));
            environment.push(("SSL_CERT_FILE", ca.display().to_string()));
        }
        let told = match (door, client) {
            // Podman's table is skopeo's.
            (Door::Mirrors, _) => Some("podman"),
            (Door::Namespace, _) => Some("containerd"),
            (Door::Default, Client::Docker) => Some("docker"),
            _ => None,
        };
        let told = match told {
            Some(page) => String::from_utf8(cache.get(&format!("/-/setup/{page}")).await?.body)?,
            // Nothing: the same files, empty.
            None if client == Client::Docker => "# file: /daemon.json\n{\n}\n".to_owned(),
            None => "# file: /registries.conf\n".to_owned(),
        };
        let mut puller = Self {
            client,
            door,
            repository,
            environment,
            told,
            daemon: Daemon::None,
            folder: folder.to_owned(),
        };
        let daemon = pulls(|| match client {
            Client::Skopeo | Client::Podman => Ok(Some(Daemon::None)),
            Client::Containerd => Ok(Containerd::start(&puller.told, folder)?.map(Daemon::Containerd)),
            Client::Docker => {
                let environment = puller.environment();
                Ok(Docker::start_in(&environment, &puller.told, folder)?.map(Daemon::Docker))
            }
        })?;
        Ok(daemon.map(|daemon| {
            puller.daemon = daemon;
            puller
        }))
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let pairs = self.environment.iter();
        pairs.map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Pulls for both architectures as a client that has nothing, and wants what came to be `image`.
    pub(super) fn pull(&self, reference: &str, image: &Image) -> Result<()> {
        let got = self.pulled(&format!("{}{reference}", self.repository))?;
        let named: BTreeMap<_, _> = image.named()?.into_iter().collect();
        let expected = match self.client {
            Client::Skopeo | Client::Containerd => image.digest(),
            // The image of these is that of this machine's architecture; its ID is the digest of the configuration.
            Client::Podman | Client::Docker => named[&format!("config.{}", architectures()[1])],
        };
        ensure!(
            got.trim_start_matches("sha256:") == expected.hex(),
            "{got}, not {expected}"
        );
        Ok(())
    }

    fn pulled(&self, reference: &str) -> Result<String> {
        let environment = self.environment();
        let in_clear = !matches!(self.door, Door::Opened);
        let fresh = tempfile::tempdir_in(&self.folder)?;
        match &self.daemon {
            Daemon::None if self.client == Client::Skopeo => {
                let table = fresh.path().join("registries.conf");
                durable::write(&table, self.told.as_bytes(), 0o644)?;
                let table = table.display().to_string();
                let to = fresh.path().join("to");
                std::fs::create_dir_all(&to)?;
                let verify = format!("--src-tls-verify={}", !in_clear);
                let general = ["--registries-conf", table.as_str()];
                skopeo_in(&environment, &general, &[&verify], reference, &to)?;
                Ok(Digest::of(&std::fs::read(to.join("manifest.json"))?).to_string())
            }
            Daemon::None => {
                let mut id = String::new();
                for architecture in architectures() {
                    let verify = format!("--tls-verify={}", !in_clear);
                    let more = ["--arch", architecture, &verify];
                    id = podman_in(&environment, &self.told, fresh.path(), reference, &more)?;
                }
                Ok(id)
            }
            Daemon::Containerd(containerd) => {
                containerd.forget_all()?;
                let is_own = matches!(self.door, Door::Prefix | Door::Default);
                let more: &[&str] = if is_own { &["--plain-http"] } else { &[] };
                containerd.pull_in(&environment, more, reference)?;
                containerd.digest(reference)
            }
            Daemon::Docker(docker) => {
                for architecture in architectures() {
                    // It has one architecture at a time under a digest.
                    docker.forget_all()?;
                    docker.pull_with(&["--platform", &format!("linux/{architecture}")], reference)?;
                }
                docker.id(reference)
            }
        }
    }

    /// What this door answers when it is asked for `rest` of the repository: head and body.
    pub(super) fn ask(&self, cache: &Cache, which: Which, rest: &str, more: &[&str]) -> Result<String> {
        let (data, own) = (cache.proxy.data, format!("{}.example", which.name()));
        let url = match self.door {
            Door::Prefix | Door::Mirrors => format!("http://{data}/v2/{own}/lab/app/{rest}"),
            Door::Namespace => format!("http://{data}/v2/lab/app/{rest}?ns={own}"),
            Door::Default => format!("http://{data}/v2/lab/app/{rest}"),
            Door::Opened => format!("https://{own}/v2/lab/app/{rest}"),
        };
        let mut curl = command::new("curl");
        curl.envs(self.environment());
        curl.args([
            "--silent",
            "--http1.1",
            "--suppress-connect-headers",
            "--dump-header",
            "-",
        ]);
        curl.args(["--output", "/dev/null", "--header", "Accept: */*"]);
        if let Some((_, ca)) = self.environment.iter().find(|(name, _)| *name == "SSL_CERT_FILE") {
            curl.args(["--cacert", ca]);
        }
        curl.args(more).arg(url);
        let line = command::line(&curl);
        command::success(&line, command::run(curl, SOON, &[])?)
    }
}

/// Both architectures of the images, this machine's last.
pub(super) fn architectures() -> [&'static str; 2] {
    if ARCH == "aarch64" {
        ["amd64", "arm64"]
    } else {
        ["arm64", "amd64"]
    }
}
