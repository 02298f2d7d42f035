//! `image`: container images, pulled by digest through the cache into the node's container runtime, and then given their tag.
//!
//! Flow: before anything of the node is changed, pull what is not there ([`preload`]) → in the module's turn, look again, note
//! what the tag meant, and move it → look whether the tag means the digest. A pulled image that is not tagged harms nobody, so
//! pulls are not taken back; the tag is. What a tag meant before stays at hand as `<tag>-before`.
//!
//! Invariants: nothing is tagged whose digest the runtime has not confirmed; one upgrade asks one runtime, which it settles on before it
//! changes anything; a runtime that says nothing has not said that a tag is not there.

mod runtime;

use std::{path::PathBuf, time::Duration};

use kato_shared::release::{Image, Install, Module};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::runtime::Engine;
use super::{
    Job, ModuleError, Report,
    undo::{Act, Note},
};
use crate::{failpoint, platform::Children, settings::ImageSettings};

/// A tag that an upgrade moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The image with its tag.
    pub tagged: String,
    /// What it meant: the runtime's own name of the image, `None` when there was no such tag.
    pub was: Option<String>,
    /// The runtime.
    pub engine: Engine,
}

impl Moved {
    /// The tag under which the image that it meant stays at hand.
    fn before(&self) -> String {
        format!("{}-before", self.tagged)
    }
}

/// The runtime of the job's upgrade.
async fn engine(job: &Job<'_>) -> Result<Engine, ModuleError> {
    Engine::settled(job.attempt.engine.as_ref(), &job.settings.images, job.children).await
}

/// The runtime that an upgrade to a release with `modules` settles on; `None` when it needs none.
///
/// # Errors
/// Those of [`Engine::find`].
pub async fn settle(
    modules: &[&Module],
    settings: &ImageSettings,
    children: &Children,
) -> Result<Option<Engine>, ModuleError> {
    let needs_one = |module: &&&Module| matches!(module.install, Install::Image { .. });
    if modules.iter().find(needs_one).is_none() {
        return Ok(None);
    }
    Engine::find(settings, children, runtime::PATIENCE)
        .await
        .map(Some)
}

/// Pulls what is not there.
pub(super) async fn preload(job: &Job<'_>, images: &[Image]) -> Result<(), ModuleError> {
    let engine = engine(job).await?;
    for image in images {
        pull(job, &engine, image).await?;
    }
    Ok(())
}

pub(super) async fn install(job: &Job<'_>, images: &[Image]) -> Result<Report, ModuleError> {
    let engine = engine(job).await?;
    let mut note = Note::open(job, true)?;
    // Also where no tag moves: a module without a note is one whose note is lost.
    note.save(job.paths)?;
    let mut report = Report::default();
    for image in images {
        let tagged = image.tagged();
        if engine.holds(job.children, &tagged, image).await?.is_some() {
            continue;
        }
        let pulled = pull(job, &engine, image).await?;
        let moved = Moved {
            was: engine.meaning(job.children, &tagged).await?,
            tagged,
            engine: engine.clone(),
        };
        note.act(Act::Tag(moved.clone()), job.module.timeout.get());
        note.save(job.paths)?;
        if moved.was.is_some() {
            engine
                .tag(job.children, &moved.tagged, &moved.before(), job.deadline)
                .await?;
        }
        engine
            .tag(job.children, &pulled, &moved.tagged, job.deadline)
            .await?;
        failpoint::hit("image.tagged");
        report.lines.push(format!("{} is {}", moved.tagged, image.digest));
    }
    Ok(report)
}

/// Every image's tag means its digest.
pub(super) async fn check(job: &Job<'_>, images: &[Image]) -> Result<(), ModuleError> {
    let engine = engine(job).await?;
    for image in images {
        if engine
            .holds(job.children, &image.tagged(), image)
            .await?
            .is_none()
        {
            return Err(ModuleError::Undone {
                module: job.module.name.clone(),
                problem: format!("{} is not {}", image.tagged(), image.digest),
            });
        }
    }
    Ok(())
}

/// Lets the tag mean again what it meant. May be killed anywhere and called again.
pub(super) async fn take_back(
    moved: &Moved,
    children: &Children,
    deadline: Instant,
) -> Result<(), ModuleError> {
    let engine = &moved.engine;
    if engine.meaning(children, &moved.tagged).await? == moved.was {
        return Ok(());
    }
    match moved.was {
        Some(_) => {
            engine
                .tag(children, &moved.before(), &moved.tagged, deadline)
                .await?;
        }
        None => engine.untag(children, &moved.tagged, deadline).await?,
    }
    if engine.meaning(children, &moved.tagged).await? == moved.was {
        return Ok(());
    }
    Err(ModuleError::NotBack {
        what: format!("{} does not mean what it meant before", moved.tagged),
    })
}

/// What a plan needs to know of the node's runtime: where it keeps images, and which of `images` are there.
pub(super) async fn look(
    settings: &ImageSettings,
    children: &Children,
    images: &[&Image],
) -> (Option<PathBuf>, Vec<kato_shared::Digest>) {
    let Ok(engine) = Engine::find(settings, children, Duration::ZERO).await else {
        // The pull says it with all that is needed to help; a plan can be made without.
        return (None, Vec::new());
    };
    let mut there = Vec::new();
    for image in images {
        if let Ok(Some(_)) = engine.holds(children, &image.tagged(), image).await {
            there.push(image.digest);
        }
    }
    (engine.folder(children).await, there)
}

/// Pulls an image unless it is there, and gives the name under which it is; its digest is confirmed by the runtime.
async fn pull(job: &Job<'_>, engine: &Engine, image: &Image) -> Result<String, ModuleError> {
    let cache = job.settings.cache.url.as_ref();
    let source = engine.source(image, cache);
    if engine.holds(job.children, &source, image).await?.is_some() {
        return Ok(source);
    }
    engine
        .pull(job.children, image, cache, &job.paths.work(), job.deadline)
        .await?;
    failpoint::hit("image.pulled");
    if engine.holds(job.children, &source, image).await?.is_some() {
        return Ok(source);
    }
    Err(ModuleError::Undone {
        module: job.module.name.clone(),
        problem: format!(
            "{source} was pulled, and the runtime does not confirm {}",
            image.digest
        ),
    })
}
