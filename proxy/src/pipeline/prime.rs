//! Registries that are caches themselves know a blob only after its manifest was pulled through them, and answer 404 before that. Here
//! the manifest may have been a hit, so that they never heard of it.
//!
//! So where a blob is not found, the manifests that were asked for in its repository of late are fetched once more from the upstream,
//! for its sake alone, and then the blob is asked for again, once. A manifest is used like that once a minute at most: a blob that
//! does not exist costs the upstream little, however often it is asked for.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::time::Instant;

use super::{Ask, Pipeline, flight::Flight};
use crate::{
    origin::{OriginError, OriginRequest, OriginResponse},
    registry::{self, Class, LARGEST_MANIFEST},
    route::{Target, registry_sibling},
};

/// How soon a manifest may be used again.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// The manifests that are remembered of each repository: an index, those of its architectures, another tag.
const OF_REPOSITORY: usize = 4;
/// The most repositories; one more and all are learnt anew.
const MOST: usize = 1024;

/// The manifests that were asked for of late, by upstream and repository.
#[derive(Debug, Default)]
pub(super) struct Manifests(Mutex<HashMap<String, VecDeque<Recent>>>);

#[derive(Debug)]
struct Recent {
    /// Below the base URL.
    path: String,
    used: Option<Instant>,
}

impl Manifests {
    fn note(&self, repository: String, path: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&repository) {
            all.clear();
        }
        let recent = all.entry(repository).or_default();
        let known = recent.iter().position(|one| one.path == path);
        let one = known.and_then(|at| recent.remove(at)).unwrap_or(Recent {
            path: path.to_owned(),
            used: None,
        });
        recent.push_front(one);
        recent.truncate(OF_REPOSITORY);
    }

    /// Those that may be used at `now`, the latest first; they are used then.
    fn due(&self, repository: &str, now: Instant) -> Vec<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = all.get_mut(repository).into_iter().flatten();
        let due = recent.filter(|one| one.used.is_none_or(|used| used + AGAIN_AFTER <= now));
        due.map(|one| {
            one.used = Some(now);
            one.path.clone()
        })
        .collect()
    }
}

impl Pipeline {
    /// Remembers that a manifest was asked for.
    pub(super) fn note_manifest(&self, target: &Target) {
        if let Some(place) = &target.registry
            && place.class.is_manifest()
        {
            self.0.fills.manifests.note(repository(target), &target.path);
        }
    }

    /// Asks the origin for what a flight wants; for a blob that is not found, once more after its manifests.
    pub(super) async fn send_primed(&self, flight: &Flight) -> Result<OriginResponse, OriginError> {
        let response = self.send(flight).await?;
        let is_blob = |target: &Target| {
            target
                .registry
                .as_ref()
                .is_some_and(|place| place.class == Class::Blob)
        };
        if response.status != StatusCode::NOT_FOUND || !is_blob(&flight.ask.target) {
            return Ok(response);
        }
        let due = self
            .0
            .fills
            .manifests
            .due(&repository(&flight.ask.target), Instant::now());
        let mut is_primed = false;
        for path in due {
            is_primed |= Box::pin(self.prime_by(&flight.ask, &path)).await;
        }
        if is_primed {
            tracing::debug!(url = %flight.ask.target.key.shown(), "asking again for a blob, after its manifests");
            return Box::pin(self.send(flight)).await;
        }
        Ok(response)
    }

    /// Has the upstream give the manifest at `path`. Whether it did.
    async fn prime_by(&self, ask: &Ask, path: &str) -> bool {
        let Some(manifest) = registry_sibling(&ask.target, path) else {
            return false;
        };
        let mut headers = HeaderMap::new();
        registry::prepare(&manifest, &mut headers);
        self.complete_request(&mut headers, Version::HTTP_11);
        let request = OriginRequest {
            upstream: manifest.upstream.name.to_string(),
            candidates: manifest.candidates,
            method: Method::GET,
            headers,
            body: Bytes::new(),
            interim: None,
            has_stand_in: false,
            has_known_digest: false,
        };
        let Ok(mut response) = self.0.origin.send(request).await else {
            return false;
        };
        let mut length = 0;
        while let Ok(Some(part)) = response.body.next().await {
            length += part.len() as u64;
            if length > LARGEST_MANIFEST {
                return false;
            }
        }
        response.status == StatusCode::OK
    }
}

/// What the manifests of a repository are remembered by.
fn repository(target: &Target) -> String {
    let repository = target.registry.as_ref().map(|place| place.repository.as_str());
    format!("{}/{}", target.upstream.name, repository.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p20_the_last_manifests_of_a_repository_are_used_once_a_minute() {
        let (manifests, now) = (Manifests::default(), Instant::now());
        for path in ["a", "b", "c", "d", "e", "b"] {
            manifests.note("hub/app".into(), path);
        }
        assert!(manifests.due("hub/other", now).is_empty());
        assert_eq!(manifests.due("hub/app", now), ["b", "e", "d", "c"]);
        assert!(manifests.due("hub/app", now).is_empty());
        manifests.note("hub/app".into(), "f");
        assert_eq!(manifests.due("hub/app", now), ["f"]);
        assert_eq!(manifests.due("hub/app", now + AGAIN_AFTER), ["f", "b", "e", "d"]);
    }
}
