//! Downloads: releases' metadata and artifacts, directly or through the cache on Core.
//!
//! Flow: a [`Route`] says where a request really goes → [`client`] makes the one HTTP client → [`exchange`] sends one
//! request and sorts its failures into *again* and *never* → [`download`] resumes, verifies and keeps a file,
//! [`transport`] gives `tough` its metadata. Only this folder names `reqwest`.
//!
//! The way is untrusted: nothing is whole before size and digest from signed metadata were checked, and a cache that
//! serves other bytes is named in the error.
//!
//! Deliberately absent: a limit on the whole time of a download (a slow line is not an error; silence is, and so is a drip, see
//! [`pace`]), parallel ranges (the cache's part), and any switch that skips the digest.

mod answers;
mod client;
mod download;
mod error;
mod exchange;
pub mod health;
mod image;
mod pace;
mod page;
mod part;
pub mod post;
pub mod probe;
mod reach;
mod redirect;
mod retry;
mod route;
mod space;
mod transport;
mod trusted;
mod warm;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use kato_shared::{
    Digest,
    trust::{RepositorySource, TargetFile, TrustError, TrustedRepository},
};
use url::Url;

pub use answers::{Answers, Seen, Source};
pub use client::Timeouts;
pub use error::FetchError;
pub use pace::Floor;
pub use part::is_download;
pub use route::Route;
pub use trusted::{trust_exit, trust_failure, trusted};

/// Downloads by one route. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: reqwest::Client,
    route: Route,
    timeouts: Timeouts,
    answers: Option<Answers>,
    /// How old an answer of a cache may be where it decides what is the newest, in seconds.
    max_age: u32,
}

/// Holds the room for a file that will be downloaded to `staging`, so that nobody else takes it meanwhile; whether the file
/// system can. A file that is there already needs none.
///
/// # Errors
/// [`FetchError::DiskFull`] when there is no room.
pub fn hold(digest: &Digest, size: u64, staging: &Path) -> Result<bool, FetchError> {
    if staging.join(digest.hex()).exists() {
        return Ok(true);
    }
    part::hold(digest, size, staging)
}

/// Gives back what is held in `staging` for downloads that did not come to their end.
pub fn give_back(staging: &Path) {
    part::give_back(staging);
}

/// All nodes ask for the same `timestamp.json` and for the same next root within minutes, so one answer may serve them. Without this bound a cache
/// may think an old file fresh for hours (RFC 9111 §4.2.2), and hide what was published since.
const MAX_AGE: u32 = 60;

impl Fetcher {
    /// A fetcher for `route` with the default [`Timeouts`].
    ///
    /// # Errors
    /// [`FetchError::Client`] when TLS cannot be set up.
    pub fn new(route: Route) -> Result<Self, FetchError> {
        Self::with_timeouts(route, Timeouts::default())
    }

    /// A fetcher for `route`.
    ///
    /// # Errors
    /// [`FetchError::Client`] when TLS cannot be set up.
    pub fn with_timeouts(route: Route, timeouts: Timeouts) -> Result<Self, FetchError> {
        let client = client::build(&route, timeouts)?;
        Ok(Self {
            client,
            route,
            timeouts,
            answers: None,
            max_age: MAX_AGE,
        })
    }

    /// The same fetcher, which notes all its good answers in `answers`.
    #[must_use]
    pub fn noting(mut self, answers: Answers) -> Self {
        self.answers = Some(answers);
        self
    }

    /// The same fetcher, for whom no answer is new enough: caches ask their upstream for a newer timestamp or root, and give
    /// what they have when it does not answer.
    #[must_use]
    pub const fn revalidating(mut self) -> Self {
        self.max_age = 0;
        self
    }

    /// The route of all requests.
    pub const fn route(&self) -> &Route {
        &self.route
    }

    /// Loads and verifies the repository's metadata.
    ///
    /// # Errors
    /// [`TrustError`]; [`trust_failure`] says how a command ends with it.
    pub async fn repository(
        &self,
        trusted_root: &[u8],
        base: &Url,
        datastore: &Path,
    ) -> Result<TrustedRepository, TrustError> {
        let source = RepositorySource {
            trusted_root,
            base,
            datastore,
        };
        TrustedRepository::load(source, self.clone()).await
    }

    /// Downloads `file` to `<staging>/<hex of its digest>` and gives that path. A file that is there already and
    /// verifies costs no request; a partial one is continued.
    ///
    /// `progress` is told the bytes that are there and the size, after each piece.
    ///
    /// # Errors
    /// [`FetchError`]; what was received stays for the next attempt unless it is known to be wrong.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a partial file that the next call continues.
    pub async fn download(
        &self,
        file: &TargetFile,
        staging: &Path,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<PathBuf, FetchError> {
        download::run(self, file, staging, progress).await
    }

    /// Whether the host of `url` answers, by the fetcher's route.
    ///
    /// # Errors
    /// [`FetchError`] with the host that does not, or the cache that does not get through to it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request.
    pub async fn reach(&self, url: &Url) -> Result<(), FetchError> {
        reach::run(self, url).await
    }

    /// Fetches `file` so that the cache on the way keeps it, verifies its bytes and throws them away; says where they
    /// came from. `progress` is told the bytes that were received; it starts again when the connection breaks off.
    ///
    /// # Errors
    /// [`FetchError`]; what the cache received stays there.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request; the cache may go on by itself.
    pub async fn warm(
        &self,
        file: &TargetFile,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Source, FetchError> {
        warm::run(self, file, progress).await
    }

    /// The files of `image` as the registry door of `cache` serves them: manifests, and for the image's platform (for every
    /// one when it names none) configurations and layers.
    ///
    /// # Errors
    /// [`FetchError`] when a manifest cannot be had, or is another one than its digest says.
    pub async fn image(
        &self,
        cache: &Url,
        image: &kato_shared::release::Image,
    ) -> Result<Vec<TargetFile>, FetchError> {
        image::files(self, cache, image).await
    }

    /// Whether the cache on the way has `url` in its store. A body is sent to its clients before it is on the disk, so a
    /// cache that has just received it is given until `end`; one that could only pass it on (its disk is full) has not.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] when the cache does not answer.
    pub async fn is_kept(&self, url: &Url, end: tokio::time::Instant) -> Result<bool, FetchError> {
        warm::is_kept(self, url, end).await
    }
}
