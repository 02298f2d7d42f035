//! Requests that go to the origin for one client alone: unsafe methods, HEAD, and retrievals that cannot be shared.

use std::{error::Error, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, Uri, Version};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{Answer, Ask, Asked, Pipeline, fetch::bind, kept::is_shared};
use crate::{
    cache_status::{CacheStatus, Forward},
    deliver::Payload,
    key::CacheKey,
    metrics::Outcome,
    origin::{OriginError, OriginRequest, OriginResponse},
    policy::{
        self, Lookup, Times, headers as fields,
        invalidation::invalidated_targets,
        redirects,
        validation::{HeadEffect, head_effect},
    },
    respond,
    route::Target,
};

impl Pipeline {
    /// Forwards a request with a method that the store cannot answer, and draws the consequences.
    pub(super) async fn forward(&self, request: Asked, target: &Target) -> Answer {
        let (parts, content) = request.into_parts();
        let url = target.key.uri().to_owned();
        if self.0.settings.offline {
            return Answer::generated(
                respond::problem(&respond::offline(&url)),
                Outcome::Failed,
                "offline",
            );
        }
        let interim = self.interim(&parts.extensions);
        let mut headers = parts.headers;
        if fields::count_forward(&parts.method, &mut headers) == fields::Forwarding::AnswerHere {
            let mut here = Response::new(Payload::Empty);
            *here.status_mut() = http::StatusCode::NO_CONTENT;
            return Answer::generated(here, Outcome::Bypass, "max-forwards");
        }
        let limits = &self.0.settings.limits;
        let most = usize::try_from(limits.request_content.bytes()).unwrap_or(usize::MAX);
        let patience = limits.progress_timeout.get();
        let collecting = async {
            match content {
                Some(content) => collect(Limited::new(content, most), patience).await,
                None => Ok(Bytes::new()),
            }
        };
        let body = match collecting.await {
            Ok(body) => body,
            Err(error) if error.is::<LengthLimitError>() => {
                let problem = respond::content_too_large(limits.request_content);
                return Answer::generated(respond::problem(&problem), Outcome::Failed, "content-too-large");
            }
            Err(error) => {
                let problem = respond::bad_content(error.to_string());
                return Answer::generated(respond::problem(&problem), Outcome::Failed, "bad-content");
            }
        };
        fields::strip_hop_by_hop(&mut headers);
        self.complete_request(&mut headers, parts.version);
        let request = OriginRequest {
            upstream: target.upstream.name.to_string(),
            candidates: target.candidates.clone(),
            method: parts.method.clone(),
            headers,
            body,
            interim,
            has_stand_in: false,
            has_known_digest: false,
        };
        let status = CacheStatus::forwarded(Forward::Method);
        match self.0.origin.send(request).await {
            Ok(response) => {
                self.invalidate(&parts.method, target, &response).await;
                pass(response, status, Outcome::Bypass)
            }
            Err(error) => failed(&url, status, &error),
        }
    }

    /// Forwards a retrieval for one client: its own conditions and ranges go along, nothing is stored.
    /// The caller knows what to do when the origin does not answer.
    pub(super) async fn try_alone(&self, ask: &Ask, why: Forward) -> Result<Answer, OriginError> {
        let mut headers = ask.headers.clone();
        fields::strip_hop_by_hop(&mut headers);
        self.complete_request(&mut headers, Version::HTTP_11);
        self.count_origin_request(ask);
        let request = OriginRequest {
            upstream: ask.target.upstream.name.to_string(),
            candidates: ask.target.candidates.clone(),
            method: ask.method.clone(),
            headers,
            body: Bytes::new(),
            interim: ask.interim.clone(),
            has_stand_in: false,
            has_known_digest: false,
        };
        let response = self.0.origin.send(request).await?;
        let mut response = self.of_registry(&ask.target, response)?;
        if ask.method == Method::HEAD {
            self.learn_from_head(ask, &response).await;
            self.learn_tag(ask, &response).await;
        }
        // For the caches between here and the client.
        let overrides = ask.target.upstream.overrides(&ask.target.path);
        bind(ask, &mut response, &overrides);
        Ok(pass(response, CacheStatus::forwarded(why), Outcome::Bypass))
    }

    /// Downloads under way for `key` are not stored; those that are being stored right now are waited for, since they would come
    /// after whatever is done to the stored response next.
    pub(crate) async fn taint(&self, key: &str) {
        for settling in self.0.collapse.taint(key) {
            settling.ended().await;
        }
    }

    /// "A cache MUST invalidate the target URI … when it receives a non-error status code in response to an unsafe request
    /// method" (RFC 9111 §4.4).
    async fn invalidate(&self, method: &Method, target: &Target, response: &OriginResponse) {
        let Ok(uri) = target.key.uri().parse::<Uri>() else {
            return;
        };
        for uri in invalidated_targets(method, &uri, (response.status, &response.headers)) {
            let Ok(key) = CacheKey::new(&Method::GET, &uri) else {
                continue;
            };
            let key = key.to_string();
            self.taint(&key).await;
            if let Err(error) = self.0.store.invalidate(key.clone()).await {
                tracing::warn!(error = %kato_shared::chain::Chain(&error), "a response could not be invalidated");
            }
        }
    }

    /// What a HEAD says about the stored response to GET (RFC 9111 §4.3.5).
    async fn learn_from_head(&self, ask: &Ask, response: &OriginResponse) {
        // What one client's credentials show is not for others.
        if fields::has_credentials(&ask.headers) {
            return;
        }
        let key = ask.target.key.to_string();
        let entry = self.0.store.lookup(&key).await;
        let get = policy::Request {
            method: &Method::GET,
            headers: &ask.headers,
        };
        let Lookup::Found { index, stored } = policy::select(&get, entry.heads()) else {
            return;
        };
        let times = Times {
            request: response.request_time,
            response: response.response_time,
        };
        let overrides = ask.target.upstream.overrides(&ask.target.path);
        let mut changed = entry.response(index);
        match head_effect(stored, (response.status, &response.headers), times, &overrides) {
            HeadEffect::Updated(mut updated) => {
                let forbids = redirects::bind_stored(&get, &mut updated, &response.hops, &overrides);
                changed.head = *updated;
                changed.head.invalidated |= forbids.is_some();
            }
            // What answers in the origin's place by HEAD takes nothing away either.
            HeadEffect::Invalidated if is_shared(&ask.target) => return,
            HeadEffect::Invalidated => changed.head.invalidated = true,
            HeadEffect::None => return,
        }
        if let Err(error) = self.0.store.update(key, changed).await {
            tracing::warn!(error = %kato_shared::chain::Chain(&error), "a stored response could not be brought up to date");
        }
    }
}

/// The whole content of a request. A client that sends nothing of it for `patience` is given up: it holds one of the
/// connections that others wait for.
pub(super) async fn collect(
    mut content: Limited<Incoming>,
    patience: Duration,
) -> Result<Bytes, Box<dyn Error + Send + Sync>> {
    let mut collected = BytesMut::new();
    while let Some(frame) = timeout(patience, content.frame())
        .await
        .map_err(|_elapsed| format!("nothing came for {patience:?}"))?
    {
        if let Ok(data) = frame?.into_data() {
            collected.extend_from_slice(&data);
        }
    }
    Ok(collected.freeze())
}

/// An origin's response for one client.
pub(super) fn pass(response: OriginResponse, status: CacheStatus, outcome: Outcome) -> Answer {
    let mut headers: HeaderMap = response.headers;
    fields::strip_hop_by_hop(&mut headers);
    let announced = headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let mut sent = Response::new(Payload::Passing {
        body: Box::new(response.body),
        skip: 0,
        left: announced,
    });
    *sent.status_mut() = response.status;
    *sent.headers_mut() = headers;
    Answer {
        status: status.fwd_status(response.status),
        response: sent,
        outcome,
        received: response.version,
    }
}

fn failed(url: &str, status: CacheStatus, error: &OriginError) -> Answer {
    Answer {
        response: respond::no_upstream(url, error),
        status: status.detail(error),
        outcome: Outcome::Failed,
        received: Version::HTTP_11,
    }
}
