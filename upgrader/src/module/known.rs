//! What only the node knows of modules: read before the plan is made, which itself looks at nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use kato_shared::{
    Digest,
    release::{Install, Module},
};
use tokio::time::Instant;

use super::{ModuleError, image, package};
use crate::{paths::NodePaths, platform::Children, settings::Settings};

/// What only the node knows of modules, for its plan.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    /// Why a module cannot be undone here, by its name.
    pub irreversible: BTreeMap<String, String>,
    /// Images that are there.
    pub images: BTreeSet<Digest>,
    /// Where the container runtime keeps images, when it answers.
    pub images_folder: Option<PathBuf>,
}

/// How long looking at the node may take, for each module.
const LOOK: Duration = Duration::from_secs(60);

/// Looks at the node for `modules`. Changes nothing.
///
/// # Errors
/// [`ModuleError`] when dpkg does not answer, or a note cannot be read.
pub async fn known(
    modules: &[&Module],
    paths: &NodePaths,
    settings: &Settings,
    children: &Children,
) -> Result<Known, ModuleError> {
    let mut known = Known::default();
    let mut images = Vec::new();
    for module in modules {
        match &module.install {
            Install::Package { packages } => {
                let why =
                    package::irreversible(paths, &module.name, packages, children, Instant::now() + LOOK)
                        .await?;
                known
                    .irreversible
                    .extend(why.map(|why| (module.name.clone(), why)));
            }
            Install::Image { images: own } => images.extend(own),
            Install::Versioned { .. }
            | Install::Replace { .. }
            | Install::Overlay { .. }
            | Install::Exec { .. } => {}
        }
    }
    if !images.is_empty() {
        let (folder, there) = image::look(&settings.images, children, &images).await;
        known.images_folder = folder;
        known.images = there.into_iter().collect();
    }
    Ok(known)
}
