//! Filling a cache before anybody asks: from URLs, lock files, image references, releases, apt sources, and what an offline mirror missed.
//!
//! ```text
//! input → gather (documents, through the cache) → items → held? → plan: exact bytes → fetch, several at once → summary
//! ```
//! Everything is asked of a cache as a client would ask it, by mirror path: so it is verified, taught and stored as it would be for that
//! client, and a client finds it under the same key. [`Cache`] is that client; the cache is a running one or our own in this process.
//!
//! | Module | What it turns into items |
//! |---|---|
//! | `lock` | pure: the text of lock files into packages |
//! | `language` | packages, by way of their index |
//! | `image` | a reference: index, manifests, configurations, layers, and what refers to them |
//! | `release` | a TUF repository and a version |
//! | `apt` | sources and names of packages; apt itself finds the dependencies |
//!
//! Resumable: what is held is not asked for again, and what broke off goes on where it was, since the cache does so.
//!
//! Deliberately absent: parsing of what a client would not have parsed. No index is mirrored whole.

mod apt;
mod cache;
mod image;
mod item;
mod language;
mod lock;
mod release;
mod run;

pub use apt::{AptInput, AptSource};
pub use cache::{AskError, Cache};
pub(crate) use image::{Descriptor, Manifest, not_among};
pub use image::{ImageRef, Platform};
pub(crate) use item::ANYTHING;
pub use item::{Failure, Gathered, Item, mirror_path};
pub use language::Indexes;
pub(crate) use language::{NPM_ACCEPTS, PIP_ACCEPT};
pub use lock::{Lock, LockError, LockKind, Package};
pub use release::ReleaseInput;
pub use run::{Plan, Progress, Summary, fetch, measure};

use url::Url;

use crate::snapshot::Wanted;

/// What to fetch.
#[derive(Debug, Default)]
pub struct Inputs {
    /// URLs, each with the digest of its content where that is known.
    pub urls: Vec<(Url, Option<kato_shared::Digest>)>,
    /// Lock files.
    pub locks: Vec<Lock>,
    /// Images.
    pub images: Vec<ImageRef>,
    /// Their platforms; all of them when there are none.
    pub platforms: Vec<Platform>,
    /// Releases.
    pub releases: Vec<ReleaseInput>,
    /// Packages of apt.
    pub apt: Option<AptInput>,
    /// What offline mirrors have missed.
    pub requests: Vec<Wanted>,
}

/// Finds everything that `inputs` come to, by asking `cache` for the documents that say so. What fails is noted, and the rest goes on.
pub async fn gather(cache: &Cache, inputs: &Inputs, indexes: &Indexes) -> Gathered {
    let mut gathered = Gathered::default();
    for (url, digest) in &inputs.urls {
        gathered.add(Item {
            integrity: digest.map(crate::ecosystem::Integrity::Sha256),
            ..Item::of_url(url)
        });
    }
    for request in &inputs.requests {
        for wanted in &request.urls {
            match Url::parse(&wanted.url) {
                Ok(url) => gathered.add(Item {
                    accept: wanted.accept.clone(),
                    integrity: wanted.digest.map(crate::ecosystem::Integrity::Sha256),
                    may_be_absent: true,
                    ..Item::of_url(&url)
                }),
                Err(error) => gathered.fail(&wanted.url, &error, false),
            }
        }
    }
    for lock in &inputs.locks {
        language::gather(cache, lock, indexes, &mut gathered).await;
    }
    let mut images = inputs.images.clone();
    for release in &inputs.releases {
        match release::gather(cache, release, &mut gathered).await {
            Ok(found) => images.extend(found),
            Err(error) => gathered.fail(release.url.as_str(), &error, false),
        }
    }
    for image in &images {
        image::gather(cache, image, &inputs.platforms, &mut gathered).await;
    }
    if let Some(apt) = &inputs.apt {
        apt::gather(cache, apt, &mut gathered).await;
    }
    gathered
}
