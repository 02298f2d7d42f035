//! The publisher of the demonstration: keys, a repository, and its two releases, made as any publisher makes them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kato_shared::{
    clock::Clock,
    durable,
    release::{Release, layout},
    settings::byte_size::human,
};
use tokio_util::task::TaskTracker;

use super::payload::{self, Edition, Programs};
use crate::{
    publish::{self, BuildOptions, InitOptions, Lifetimes, UpgraderFile},
    report::terminal,
};

/// The largest program that is shipped, in bytes: one with debug symbols would be most of what crosses the WAN.
const MAX_UPGRADER: u64 = 96 << 20;

/// A publisher with a repository below a folder.
#[derive(Debug)]
pub(super) struct Publisher {
    folder: PathBuf,
    repository: PathBuf,
    keys: PathBuf,
    root: PathBuf,
    programs: Programs,
    clock: Clock,
    /// File work that goes on when the future that waits for it is dropped.
    work: TaskTracker,
}

impl Publisher {
    /// Makes keys and an empty repository, with three root keys of which two must sign.
    pub(super) async fn create(
        folder: &Path,
        programs: &Programs,
        work: TaskTracker,
    ) -> anyhow::Result<Self> {
        let (repository, keys) = (folder.join("upgrade-host"), folder.join("keys"));
        let clock = Clock::system();
        let options = InitOptions {
            root_keys: 3,
            root_threshold: 2,
            ..InitOptions::default()
        };
        let made = publish::init(&repository, &keys, options, clock.now())
            .await
            .context("making keys failed")?;
        Ok(Self {
            folder: folder.to_owned(),
            repository,
            keys,
            root: made.root,
            programs: programs.clone(),
            clock,
            work,
        })
    }

    /// The folder that the upgrade host serves.
    pub(super) fn repository(&self) -> &Path {
        &self.repository
    }

    /// What nodes are given as their pinned root.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes, builds, signs and publishes a release, and removes everything but the repository's part of it.
    pub(super) async fn publish(&mut self, edition: Edition) -> anyhow::Result<Release> {
        let version = edition.version();
        let (source, build) = (
            self.folder.join(format!("source-{version}")),
            self.folder.join(format!("build-{version}")),
        );
        let made = {
            let (source, build, programs) = (source.clone(), build.clone(), self.programs.clone());
            let (options, now) = (self.options(edition)?, self.clock.now());
            let build = move || {
                payload::write(&source, edition, &programs)?;
                publish::build(&source, &build, &options, now).map_err(anyhow::Error::from)
            };
            self.work
                .spawn_blocking(build)
                .await?
                .with_context(|| format!("building release {version} failed"))?
        };
        let (lifetimes, now) = (Lifetimes::default(), self.clock.now());
        publish::sign(&build, &self.repository, &self.keys, lifetimes, now)
            .await
            .context("signing failed")?;
        publish::publish(&build, &self.repository, &self.keys, lifetimes, now)
            .await
            .context("publishing failed")?;
        let document = build.join("targets").join(layout::release(&version));
        let release = Release::from_json("release.json", &std::fs::read(document)?)?;
        let bytes = made.artifacts.values().map(|artifact| artifact.size).sum();
        terminal::say(&format!(
            "release {version}: {}, {}",
            kato_shared::counted(release.modules.len(), "module", "modules"),
            human(bytes)
        ));
        for folder in [source, build] {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("removing {} failed", folder.display()))?;
        }
        durable::sync_folder(&self.folder)?;
        Ok(release)
    }

    /// The new release ships the running program as its upgrader, unless debug symbols make it larger than the modules.
    fn options(&self, edition: Edition) -> anyhow::Result<BuildOptions> {
        let size = std::fs::metadata(&self.programs.kato)?.len();
        if edition == Edition::New && size > MAX_UPGRADER {
            terminal::say(&format!(
                "this build of kato has {} and is not published as the release's upgrader",
                human(size)
            ));
        }
        let upgrader = UpgraderFile {
            file: self.programs.kato.clone(),
            triple: layout::HOST_TRIPLE.to_owned(),
            version: env!("CARGO_PKG_VERSION").parse()?,
        };
        let ships = edition == Edition::New && size <= MAX_UPGRADER;
        Ok(BuildOptions {
            upgraders: ships.then_some(upgrader).into_iter().collect(),
            ..BuildOptions::default()
        })
    }
}
