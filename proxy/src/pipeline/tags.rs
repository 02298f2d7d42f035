//! Tags: names that may move, for content that is kept by its digest.
//!
//! A tag that is not believed any more is asked about by HEAD, once for all who want it: registries count downloads of manifests and
//! not questions about them. The digest in the answer says whether what is held is still meant, or something else that is held as
//! well; only then, if neither, the manifest is fetched.
//!
//! Container clients ask about a tag by HEAD themselves and then fetch by digest. What such a HEAD says is kept, too, as soon as
//! the content is here: so that the tag has a meaning when the registry is gone.
//!
//! Invariant: a tag leads to content whose digest was verified, or to what came under the tag and had the digest that was announced.

use std::{pin::Pin, sync::Arc};

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use kato_shared::{Digest, chain::Chain};

use super::{
    Ask, Pipeline,
    flight::{Flight, times},
    shared::Shared,
};
use crate::{
    deliver::ResponseBody,
    origin::OriginResponse,
    policy::{self, Failure, FailureAnswer, Request, Stored, Times, headers as fields, validation::combine},
    registry::{self, Class, DOCKER_CONTENT_DIGEST, LARGEST_MANIFEST},
    route::{Target, registry_manifest},
    seldom::warn_seldom,
    store::StoredResponse,
};

impl Target {
    /// Whether it is a tag of a registry.
    pub(super) fn is_tag(&self) -> bool {
        self.registry
            .as_ref()
            .is_some_and(|place| place.class == Class::Tag)
    }
}

/// The digest that a registry announces for the content of its answer.
pub(super) fn announced(target: &Target, response: &OriginResponse) -> Option<Digest> {
    let is_content = target.is_tag() && response.status == StatusCode::OK;
    is_content.then(|| content_digest(&response.headers)).flatten()
}

fn content_digest(headers: &HeaderMap) -> Option<Digest> {
    let text = headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?;
    text.starts_with("sha256:").then(|| text.parse().ok())?
}

impl Pipeline {
    /// Asks about a tag of which something is held. The flight, where a download has to decide after all.
    pub(super) async fn ask_about_tag(&self, mut flight: Flight) -> Option<Flight> {
        let is_held = flight
            .selected()
            .is_some_and(|held| held.head().status == StatusCode::OK);
        if !flight.ask.target.is_tag() || !is_held {
            return Some(flight);
        }
        let response = match self.send_with(&flight, Method::HEAD, []).await {
            Ok(response) => response,
            Err(error) => {
                flight.share(Shared::Failed {
                    error: Arc::new(error),
                });
                return None;
            }
        };
        if response.status != StatusCode::OK {
            if self.may_stand_in(&flight, response.status) {
                let status = response.status;
                flight.share(Shared::Overloaded { status });
                return None;
            }
            return Some(flight);
        }
        let Some(digest) = content_digest(&response.headers) else {
            return Some(flight);
        };
        let Some(content) = self.held(&flight, digest).await else {
            // It moved: what is held is no answer, however the conditions would turn out.
            flight.validated.clear();
            return Some(flight);
        };
        let head = named(&flight.ask, &content, (&response.headers, times(&response)));
        self.freshened(flight, content, head).await;
        None
    }

    /// The answer of a registry without what its front end says to browsers.
    pub(super) fn without_front_end(&self, target: &Target, mut response: OriginResponse) -> OriginResponse {
        let status = response.status;
        for hop in &mut response.hops {
            registry::strip_front_end(target, status, &mut hop.headers);
        }
        if registry::strip_front_end(target, status, &mut response.headers) {
            let rule = "cookies, and freshness of names, are not taken from registries";
            self.deviates(target, "registry", &rule);
        }
        response
    }

    /// What is held of `digest`: under the tag itself, or under any name that this client may use.
    async fn held(&self, flight: &Flight, digest: Digest) -> Option<StoredResponse> {
        let under_the_tag = flight.selected().filter(|held| held.content().digest == digest);
        if let Some(selected) = under_the_tag {
            return Some(selected.response());
        }
        let sharable = self.sharable(&flight.ask.target);
        self.0.store.find_content(digest, sharable).await
    }

    /// Whether what is held may stand in for an answer with `status`.
    pub(super) fn may_stand_in(&self, flight: &Flight, status: StatusCode) -> bool {
        let Some(selected) = flight.selected() else {
            return false;
        };
        let request = Request {
            method: &Method::GET,
            headers: &flight.ask.headers,
        };
        let at = (&flight.overrides, self.0.clock.now());
        let verdict = policy::on_failure(&request, selected.head(), Failure::Status(status), at);
        matches!(verdict, FailureAnswer::ServeStale(_))
    }

    /// Gives what came under a tag the name of its digest, too: when the tag moves, whoever asks by digest still gets it.
    pub(super) async fn keep_by_digest(&self, tag: &Target, digest: Digest) {
        if let Some(manifest) = registry_manifest(tag, &digest) {
            let (key, sharable) = (manifest.key.as_str(), self.sharable(&manifest));
            self.0.store.lookup_content(key, digest, true, sharable).await;
        }
    }

    /// Keeps what the upstream's answer to a client's HEAD says about a tag of which nothing is held.
    pub(super) async fn learn_tag(&self, ask: &Ask, response: &OriginResponse) {
        // What one client's credentials show is not for others.
        if fields::has_credentials(&ask.headers) {
            return;
        }
        let Some(digest) = announced(&ask.target, response) else {
            return;
        };
        if !self
            .0
            .store
            .lookup(ask.target.key.as_str())
            .await
            .heads()
            .is_empty()
        {
            return;
        }
        let said = (response.headers.clone(), times(response));
        if self.name_tag(ask, digest, &said).await {
            return;
        }
        let Some(target) = registry_manifest(&ask.target, &digest) else {
            return;
        };
        let manifest = Ask {
            method: Method::GET,
            headers: ask.headers.clone(),
            target: Arc::new(target),
            client: ask.client,
            known: None,
            interim: None,
        };
        let tag = Ask {
            method: Method::GET,
            headers: ask.headers.clone(),
            target: Arc::clone(&ask.target),
            client: ask.client,
            known: None,
            interim: None,
        };
        let priming = self.clone().prime(tag, manifest, (digest, said));
        self.0.tasks.spawn(priming);
    }

    /// Fetches the manifest that a client will ask for next, and gives it the name of the tag.
    fn prime(
        self,
        tag: Ask,
        manifest: Ask,
        (digest, said): (Digest, (HeaderMap, Times)),
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let key = manifest.target.key.to_string();
            let response = self.retrieve(manifest).await.response;
            if !response.status().is_success() {
                return;
            }
            let body = ResponseBody::new(response.into_body(), None);
            // At its end it is received, and a moment later stored.
            if Limited::new(body, usize::try_from(LARGEST_MANIFEST).unwrap_or(usize::MAX))
                .collect()
                .await
                .is_ok()
            {
                self.settled(&key).await;
                self.name_tag(&tag, digest, &said).await;
            }
        })
    }

    /// Gives held content the name of a tag. Whether there was any.
    async fn name_tag(&self, tag: &Ask, digest: Digest, (headers, times): &(HeaderMap, Times)) -> bool {
        let sharable = self.sharable(&tag.target);
        let Some(content) = self.0.store.find_content(digest, sharable).await else {
            return false;
        };
        let head = named(tag, &content, (headers, *times));
        let named = StoredResponse { head, ..content };
        if let Err(error) = self.0.store.update(tag.target.key.to_string(), named).await {
            warn_seldom!(error = %Chain(&error), "a tag could not be kept");
        }
        true
    }
}

/// The head of `content` under the name of a tag, after the upstream has said so.
fn named(ask: &Ask, content: &StoredResponse, (headers, times): (&HeaderMap, Times)) -> Stored {
    let overrides = ask.target.upstream.overrides(&ask.target.path);
    let mut beginning = content.head.clone();
    // Content that came from elsewhere, or by digest, has words there that say nothing about this name.
    for name in [
        http::header::VARY,
        http::header::CACHE_CONTROL,
        http::header::EXPIRES,
    ] {
        beginning.headers.remove(name);
    }
    let mut head = combine(&ask.headers, &beginning, headers, times, &overrides);
    head.known_digest = false;
    head.invalidated = false;
    head
}
