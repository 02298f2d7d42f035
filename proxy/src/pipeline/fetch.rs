//! The task that asks the origin on behalf of everybody who wants the same thing, and that no client owns.
//!
//! It holds the permit of its flight until what it fetched is in the store: whoever asks meanwhile joins, whoever asks
//! afterwards finds it stored, and nobody falls in between.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use kato_shared::chain::Chain;
use tokio::time::Instant;

use super::{
    Ask, Pipeline,
    flight::{Flight, Tell, times},
    groups::is_document,
    handed_on::not_stored,
    kept::unusable,
    landing::past_caches,
    resumption::Resumption,
    retrieve::Selected,
    shared::Shared,
    tags::announced,
};
use crate::{
    ecosystem,
    fill::{FillError, collapse::FillPermit},
    origin::{OriginError, OriginRequest, OriginResponse},
    policy::{
        self, Failure, FailureAnswer, NoStoreReason, Overrides, Replacing, Request, Storability, Stored,
        headers as fields, redirects,
        validation::{Freshened, freshen, has_validator, origin_request_headers},
    },
    seldom::warn_seldom,
    store::{Responses, StoredResponse},
};

/// What makes private content common to all who may use an upstream.
const OWN_ACCOUNT: &str = "give the cache an account: credentials_file of that [[upstream]], and clients for who may have what it reads";

impl Pipeline {
    /// Starts the task for a flight. Without `tell` nobody waits for the first reader.
    pub(super) fn start_fetch(
        &self,
        permit: FillPermit<Shared>,
        ask: Arc<Ask>,
        entry: &Responses,
        selected: Option<&Selected>,
        tell: Tell,
    ) {
        let validated = match selected {
            Some(selected) => vec![entry.response(selected.index)],
            None => entry.responses().collect(),
        };
        let flight = Flight {
            permit,
            overrides: ask.target.upstream.overrides(&ask.target.path),
            ask,
            validated: validated
                .into_iter()
                .filter(|one| has_validator(&one.head))
                .collect(),
            selected: selected.cloned(),
            announced: None,
            tell,
            is_repeated: false,
            lesson: None,
        };
        let pipeline = self.clone();
        // A task is moved more than once, and its way is long: what is moved is a pointer.
        self.0
            .tasks
            .spawn(Box::pin(async move { pipeline.fly(flight).await }));
    }

    async fn fly(&self, mut flight: Flight) {
        let key = flight.ask.target.key.to_string();
        let kept = self
            .0
            .fills
            .partials
            .take(&key, &flight.ask.headers, Instant::now());
        let mut answered = match kept {
            None => match Box::pin(self.ask_about_tag(flight)).await {
                Some(undecided) => {
                    flight = undecided;
                    match self.send_while_wanted(&mut flight).await {
                        Some(answered) => answered,
                        None => return self.note_failure(&flight, &FillError::Unwanted),
                    }
                }
                None => return,
            },
            Some(kept) => {
                // One condition at a time: what is newer than what is stored is not compared with it.
                flight.validated.clear();
                match Box::pin(self.resume(&flight, kept)).await {
                    Resumption::Goes(arrival) => return Box::pin(self.land(flight, *arrival)).await,
                    Resumption::Answered(answered) => *answered,
                }
            }
        };
        if let Ok(response) = &answered
            && response.status == StatusCode::NOT_MODIFIED
            && !flight.validated.is_empty()
        {
            let times = times(response);
            let heads: Vec<&Stored> = flight.validated.iter().map(|one| &one.head).collect();
            let ask = Arc::clone(&flight.ask);
            let not_modified = (&heads[..], &response.headers);
            let freshened = freshen(&ask.headers, not_modified, times, &flight.overrides);
            let found_at = flight.found_at(response);
            if let Freshened::Updated { index, mut stored } = freshened
                && redirects::bind_stored(&ask.request(), &mut stored, &response.hops, &flight.overrides)
                    .is_none()
            {
                let validated = flight.validated.swap_remove(index);
                stored.found_at = found_at;
                return Box::pin(self.freshened(flight, validated, *stored)).await;
            }
            // About none of them, or a redirect on the way forbids to store by now.
            flight.validated.clear();
            answered = Box::pin(self.send(&flight)).await;
        }
        match answered {
            Ok(response) => self.received(flight, response).await,
            Err(error) => flight.share(Shared::Failed {
                error: Arc::new(error),
            }),
        }
    }

    /// The origin's answer; `None` when nobody waits for it any more, where the rule is to give up then.
    async fn send_while_wanted(&self, flight: &mut Flight) -> Option<Result<OriginResponse, OriginError>> {
        let may_give_up = flight.ask.target.upstream.on_abort().gives_up(0, None);
        // Without a client that began it, it was not begun for one.
        let Some(mut tell) = flight.tell.take_if(|_| may_give_up) else {
            return Some(self.send_primed(flight).await);
        };
        let deserted = async {
            tell.closed().await;
            flight.permit.deserted().await;
        };
        let answered = tokio::select! {
            biased;
            answered = self.send_primed(flight) => Some(answered),
            () = deserted => None,
        };
        flight.tell = Some(tell);
        answered
    }

    pub(super) async fn send(&self, flight: &Flight) -> Result<OriginResponse, OriginError> {
        self.send_with(flight, Method::GET, []).await
    }

    /// Asks the origin, with these fields besides; by HEAD without any condition.
    pub(super) async fn send_with(
        &self,
        flight: &Flight,
        method: Method,
        fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<OriginResponse, OriginError> {
        let validated = flight.validated.iter().filter(|_| method == Method::GET);
        let heads: Vec<&Stored> = validated.map(|one| &one.head).collect();
        let mut headers = origin_request_headers(&flight.ask.headers, &heads);
        headers.extend(fields);
        if flight.promise().is_some() {
            // The digest is of the content without any coding (RFC 9110 §8.4).
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let mut candidates = flight.ask.target.candidates.clone();
        if flight.is_repeated {
            past_caches(&mut headers);
            candidates.rotate_left(1);
            let ask = &flight.ask;
            if let Some(digest) = ask.known.and_then(|known| known.digest())
                && ask.target.digest.is_none()
                && ecosystem::has_by_hash(&ask.target.upstream, &ask.target.path)
            {
                // Under its name the origin has another generation.
                for url in &mut candidates {
                    *url = ecosystem::by_hash(url, &digest);
                }
            }
        }
        self.complete_request(&mut headers, Version::HTTP_11);
        self.count_origin_request(&flight.ask);
        let request = OriginRequest {
            upstream: flight.ask.target.upstream.name.to_string(),
            candidates,
            method,
            headers,
            body: bytes::Bytes::new(),
            interim: flight.ask.interim.clone(),
            has_stand_in: self.has_stand_in(flight),
            has_known_digest: flight.promise().is_some(),
        };
        let response = self.0.origin.send(request).await?;
        let mut response = self.of_registry(&flight.ask.target, response)?;
        // What completes a stored response is bound when it has become a part of it.
        if !matches!(
            response.status,
            StatusCode::NOT_MODIFIED | StatusCode::PARTIAL_CONTENT
        ) {
            bind(&flight.ask, &mut response, &flight.overrides);
        }
        Ok(response)
    }

    /// Whether a stored response may stand in if the origin does not answer.
    fn has_stand_in(&self, flight: &Flight) -> bool {
        let request = Request {
            method: &flight.ask.method,
            headers: &flight.ask.headers,
        };
        let at = (&flight.overrides, self.0.clock.now());
        flight.selected.as_ref().is_some_and(|selected| {
            let verdict = policy::on_failure(&request, selected.head(), Failure::Unreachable, at);
            matches!(verdict, FailureAnswer::ServeStale(_))
        })
    }

    /// `Host` follows from the URL that is asked; `Via` says who asks.
    pub(super) fn complete_request(&self, headers: &mut HeaderMap, received: Version) {
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        // Credentials for this proxy are not the origin's to see (RFC 9110 §11.7.2).
        for name in fields::PROXY_FIELDS {
            headers.remove(name);
        }
        fields::append_via(headers, received, &self.0.pseudonym);
    }

    pub(super) fn count_origin_request(&self, ask: &Ask) {
        if let Some(url) = self.0.metrics.url(ask.target.key.uri()) {
            url.asked_origin();
        }
    }

    /// A 304: the stored response lives on under its new head.
    pub(super) async fn freshened(&self, flight: Flight, validated: StoredResponse, head: Stored) {
        let content = validated.content;
        let updated = StoredResponse {
            head: head.clone(),
            ..validated
        };
        if !flight.permit.is_tainted()
            && let Err(error) = self
                .0
                .store
                .update(flight.ask.target.key.to_string(), updated)
                .await
        {
            warn_seldom!(error = %Chain(&error), "a validated response could not be brought up to date");
        }
        let head = Box::new(head);
        flight.share(Shared::Validated { head, content });
    }

    /// Notes what is not stored for `reason`.
    fn note_not_stored(
        &self,
        flight: &Flight,
        reason: NoStoreReason,
        (kept, status): (Replacing, StatusCode),
    ) {
        if reason == NoStoreReason::Authorization {
            warn_of_own_credentials(flight);
        }
        if kept == Replacing::ByRule {
            self.note_private(&flight.ask, status);
        }
    }

    /// A response with content.
    async fn received(&self, mut flight: Flight, mut response: OriginResponse) {
        let request = Request {
            method: &Method::GET,
            headers: &flight.ask.headers,
        };
        if self.may_stand_in(&flight, response.status) {
            let status = response.status;
            return flight.share(Shared::Overloaded { status });
        }
        let kept = match self.replacing(&flight, &mut response).await {
            Ok(kept) => kept,
            Err(error) => {
                return flight.share(Shared::Failed {
                    error: Arc::new(error),
                });
            }
        };
        if kept == Replacing::NoAnswer {
            let misfit = unusable(response.status);
            drop(response);
            return self.misfit(flight, misfit);
        }
        flight.announced = announced(&flight.ask.target, &response);
        if let Some(error) = flight.other_size(&response) {
            drop(response);
            self.note_failure(&flight, &error);
            return Box::pin(self.second_attempt(flight, Arc::new(error))).await;
        }
        let head = (response.status, &response.headers);
        let storability = policy::storability(&request, head, flight.promise().is_some(), &flight.overrides);
        if let Some(reason) = not_stored_for(storability, kept) {
            self.note_not_stored(&flight, reason, (kept, response.status));
            let for_first = flight.head_for_first(&response);
            return Box::pin(not_stored(flight, (for_first, response), reason)).await;
        }
        let mut for_first = None;
        if let Storability::StoreDespite(reason) = storability {
            for_first = Some(flight.head_for_first(&response));
            let rule = format!("stored although the response forbids it: {reason}");
            self.deviates(&flight.ask.target, "store-despite", &rule);
            // Content that never changes is for all; a cookie is for one.
            response.headers.remove(header::SET_COOKIE);
        }
        let arrival = flight.arrival(response, for_first);
        let (tag, digest) = (Arc::clone(&flight.ask.target), flight.announced);
        let since = Instant::now();
        let is_document = arrival.heads.head.status == StatusCode::OK && is_document(&flight.ask.target);
        if is_document && flight.promise().is_none() {
            Box::pin(self.land_group(flight, arrival)).await;
        } else {
            Box::pin(self.land(flight, arrival)).await;
        }
        self.0.metrics.filled(since.elapsed());
        if let Some(digest) = digest {
            Box::pin(self.keep_by_digest(&tag, digest)).await;
        }
    }
}

/// Says why a cache that is asked stores nothing.
fn warn_of_own_credentials(flight: &Flight) {
    let upstream = flight.ask.target.upstream.name.as_str();
    warn_seldom!(
        upstream,
        hint = OWN_ACCOUNT,
        "what clients ask for with credentials of their own is asked of the upstream each time and not stored"
    );
}

/// Why a response is not stored, if it is not.
const fn not_stored_for(storability: Storability, kept: Replacing) -> Option<NoStoreReason> {
    match (storability, kept) {
        (Storability::NoStore(reason), _) => Some(reason),
        (Storability::Store | Storability::StoreDespite(_), Replacing::HandOn) => {
            Some(NoStoreReason::Unusable)
        }
        (Storability::Store | Storability::StoreDespite(_), Replacing::ByRule | Replacing::NoAnswer) => None,
    }
}

/// Puts `response` under the rules of the redirects that led to it.
pub(super) fn bind(ask: &Ask, response: &mut OriginResponse, overrides: &Overrides) {
    let times = times(response);
    let parts = (response.status, &mut response.headers, times);
    let _said_in_the_headers = redirects::bind(&ask.request(), parts, &response.hops, overrides);
}
