//! What comes under a name of a registry, and is looked at before anybody gets it: tags and lists, which nothing verifies.
//!
//! What cannot be what was asked for is a failure of the upstream like any other: what is held stands in for it, and nothing of it
//! is stored.

use std::sync::Arc;

use http::StatusCode;
use kato_shared::chain::Chain;

use super::{
    Pipeline,
    flight::Flight,
    groups::receive,
    landing::{Arrival, Heads},
    shared::Shared,
};
use crate::{
    fill::{Promise, Source},
    metrics::Event,
    origin::{OriginError, OriginResponse},
    registry::{self, Class, DOCKER_CONTENT_DIGEST, Misfit},
    route::Target,
};

impl Pipeline {
    /// The answer of a registry without what its front end says to browsers.
    ///
    /// # Errors
    /// [`OriginError::Misfit`] where its head alone shows that it is none of the registry's.
    pub(super) fn of_registry(
        &self,
        target: &Target,
        response: OriginResponse,
    ) -> Result<OriginResponse, OriginError> {
        let response = self.without_front_end(target, response);
        let place = target.registry.as_ref();
        match place.filter(|_| response.status == StatusCode::OK) {
            Some(place) => registry::fits_by_head(place.class, &response.headers)
                .map_err(|misfit| no_answer(target, misfit))
                .map(|()| response),
            None => Ok(response),
        }
    }

    /// Shares and stores what has come, if it is what was asked for.
    pub(super) async fn land_looked_at(&self, flight: Flight, arrival: Arrival, most: u64) {
        let (mut heads, announced) = (arrival.heads, arrival.announced);
        let body = match receive(Source::new(arrival.body), announced, most).await {
            Ok(body) => body,
            Err(None) => return self.misfit(flight, Misfit::Large { most }),
            Err(Some(error)) => return self.broke_off(flight, error),
        };
        // Where a digest was announced that the content has not, that says more than its form does.
        let is_right = heads.has_digest(&flight, &body);
        let class = flight.ask.target.registry.as_ref().map(|place| place.class);
        if is_right
            && let Some(class) = class
            && let Err(misfit) = registry::fits(class, &heads.head.headers, &body)
        {
            return self.misfit(flight, misfit);
        }
        if class == Some(Class::Tag) {
            heads.state_digest(&body);
        }
        let length = body.len() as u64;
        if let Some(place) = self.0.store.place(length) {
            return self.land_whole(flight, heads, body, place).await;
        }
        let promise = Promise {
            announced: Some(length),
            expected: heads.expected(&flight),
        };
        Box::pin(self.stream(flight, heads, (Source::of(body), promise), None)).await;
    }

    pub(super) fn misfit(&self, flight: Flight, misfit: Misfit) {
        let error = no_answer(&flight.ask.target, misfit);
        self.0.metrics.note(Event::VerificationFailed);
        tracing::warn!(error = %Chain(&error), "an answer is not what was asked for");
        flight.share(Shared::Failed {
            error: Arc::new(error),
        });
    }
}

pub(super) fn no_answer(target: &Target, misfit: Misfit) -> OriginError {
    OriginError::Misfit {
        url: target.key.shown().clone(),
        misfit,
    }
}

impl Target {
    /// The most bytes of a 200 that has to be looked at; `None` for all others.
    pub(super) fn most_looked_at(&self) -> Option<u64> {
        registry::looked_at(self.registry.as_ref()?.class)
    }
}

impl Heads {
    /// Says which digest `body` has, where the registry does not.
    fn state_digest(&mut self, body: &[u8]) {
        let digest = kato_shared::Digest::of(body).to_string();
        if let Ok(value) = http::HeaderValue::try_from(digest) {
            for head in [Some(&mut self.head), self.for_first.as_mut()]
                .into_iter()
                .flatten()
            {
                let fields = &mut head.headers;
                fields
                    .entry(DOCKER_CONTENT_DIGEST)
                    .or_insert_with(|| value.clone());
            }
        }
    }

    /// Whether `body` has the digest that was announced, or none was.
    fn has_digest(&self, flight: &Flight, body: &[u8]) -> bool {
        let digest = kato_shared::Digest::of(body);
        crate::fill::verify(self.expected(flight), digest, body).is_ok()
    }
}
