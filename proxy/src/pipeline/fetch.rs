//! The task that asks the origin on behalf of everybody who wants the same thing, and that no client owns.
//!
//! It holds the permit of its flight until what it fetched is in the store: whoever asks meanwhile joins, whoever asks
//! afterwards finds it stored, and nobody falls in between.

use std::sync::{Arc, atomic::AtomicU32};

use http::{HeaderMap, StatusCode, Version, header};
use kato_shared::{Digest, chain::Chain};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Ask, Pipeline,
    retrieve::Selected,
    shared::{Filling, Shared},
};
use crate::{
    fill::{Fill, Pump, Reader, Received, collapse::FillPermit},
    metrics::Event,
    origin::{OriginBody, OriginError, OriginRequest, OriginResponse},
    policy::{
        self, Failure, FailureAnswer, NoStoreReason, Overrides, Request, Storability, Stored, Times,
        headers as fields,
        validation::{Freshened, freshen, has_validator, origin_request_headers},
    },
    store::{NoRoom, Responses, StoredResponse, Temporary, Trouble},
};

/// What the request that began the flight gets.
pub(super) struct Led {
    pub(super) outcome: LedOutcome,
}

/// See [`Led`].
pub(super) enum LedOutcome {
    /// What all get; a reader of the content from its beginning, where there is one.
    /// The head has the fields that are meant for this client alone, too.
    Shared(Arc<Shared>, Option<Reader>, Option<Box<Stored>>),
    /// For this request alone.
    Private(Box<Passing>, NoStoreReason),
}

/// A response that is not stored.
pub(super) struct Passing {
    pub(super) head: Stored,
    pub(super) body: OriginBody,
    pub(super) version: Version,
}

type Tell = Option<oneshot::Sender<Led>>;

/// A flight under way.
pub(super) struct Flight {
    pub(super) permit: FillPermit<Shared>,
    pub(super) ask: Arc<Ask>,
    overrides: Overrides,
    /// The stored responses whose validators are sent.
    validated: Vec<StoredResponse>,
    selected: Option<Selected>,
    tell: Tell,
}

/// A response that may be stored, as it arrived.
pub(super) struct Arrival {
    /// As it will be stored.
    pub(super) head: Stored,
    /// With the fields that are meant for the first client alone.
    for_first: Stored,
    version: Version,
    body: OriginBody,
}

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
            tell,
        };
        let pipeline = self.clone();
        self.0.tasks.spawn(async move { pipeline.fly(flight).await });
    }

    async fn fly(&self, mut flight: Flight) {
        let mut answered = self.send(&flight).await;
        if let Ok(response) = &answered
            && response.status == StatusCode::NOT_MODIFIED
            && !flight.validated.is_empty()
        {
            let times = times(response);
            let heads: Vec<&Stored> = flight.validated.iter().map(|one| &one.head).collect();
            let ask = Arc::clone(&flight.ask);
            match freshen(
                &ask.headers,
                (&heads, &response.headers),
                times,
                &flight.overrides,
            ) {
                Freshened::Updated { index, stored } => {
                    let validated = flight.validated.swap_remove(index);
                    return self.freshened(flight, validated, *stored).await;
                }
                Freshened::NoMatch => {
                    flight.validated.clear();
                    answered = self.send(&flight).await;
                }
            }
        }
        match answered {
            Ok(response) => self.received(flight, response).await,
            Err(error) => flight.share(Shared::Failed {
                error: Arc::new(error),
            }),
        }
    }

    async fn send(&self, flight: &Flight) -> Result<OriginResponse, OriginError> {
        let heads: Vec<&Stored> = flight.validated.iter().map(|one| &one.head).collect();
        let mut headers = origin_request_headers(&flight.ask.headers, &heads);
        self.complete_request(&mut headers, Version::HTTP_11);
        self.count_origin_request(&flight.ask);
        let request = OriginRequest {
            upstream: flight.ask.target.upstream.name.to_string(),
            candidates: flight.ask.target.candidates.clone(),
            method: http::Method::GET,
            headers,
            body: bytes::Bytes::new(),
            interim: flight.ask.interim.clone(),
            has_stand_in: self.has_stand_in(flight),
        };
        self.0.origin.send(&request).await
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
        self.0
            .metrics
            .url(ask.target.key.uri(), |counts| counts.origin_requests += 1);
    }

    /// A 304: the stored response lives on under its new head.
    async fn freshened(&self, flight: Flight, validated: StoredResponse, head: Stored) {
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
            tracing::warn!(error = %Chain(&error), "a validated response could not be brought up to date");
        }
        let head = Box::new(head);
        flight.share(Shared::Validated { head, content });
    }

    /// A response with content.
    async fn received(&self, flight: Flight, response: OriginResponse) {
        let request = Request {
            method: &http::Method::GET,
            headers: &flight.ask.headers,
        };
        if let Some(selected) = &flight.selected {
            let failure = Failure::Status(response.status);
            let now = self.0.clock.now();
            let verdict = policy::on_failure(&request, selected.head(), failure, (&flight.overrides, now));
            if matches!(verdict, FailureAnswer::ServeStale(_)) {
                let status = response.status;
                return flight.share(Shared::Overloaded { status });
            }
        }
        let head = (response.status, &response.headers);
        let storability = policy::storability(&request, head, flight.digest().is_some(), &flight.overrides);
        let mut stored = Stored::new(&request, head, times(&response), &flight.overrides);
        // Only what is whole and verified enters the index, so this is true of everything that does.
        stored.known_digest = response.status == StatusCode::OK && flight.digest().is_some();
        let for_first = Stored::for_first_client(&request, head, times(&response));
        match storability {
            Storability::NoStore(reason) => {
                let passing = Passing {
                    head: for_first,
                    body: response.body,
                    version: response.version,
                };
                flight.permit.keep_private();
                tell(flight.tell, LedOutcome::Private(Box::new(passing), reason));
            }
            Storability::StoreDespite(reason) => {
                tracing::debug!(url = %flight.ask.target.key.shown(), %reason, "stored although the response forbids it");
                self.fill(flight, response, stored, for_first).await;
            }
            Storability::Store => self.fill(flight, response, stored, for_first).await,
        }
    }

    /// Lets everybody have the content while it comes, and stores it when it is whole.
    async fn fill(&self, flight: Flight, response: OriginResponse, head: Stored, for_first: Stored) {
        let announced = announced_length(&response);
        let arrival = Arrival {
            head,
            for_first,
            version: response.version,
            body: response.body,
        };
        let since = Instant::now();
        if let Some(announced) = announced
            && let Some(place) = self.0.store.place(announced)
        {
            self.fill_small(flight, arrival, announced, place).await;
        } else {
            // Apart, so that the task of a small body stays small.
            Box::pin(self.fill_large(flight, arrival, announced)).await;
        }
        self.0.metrics.filled(since.elapsed());
    }

    async fn fill_large(&self, mut flight: Flight, arrival: Arrival, announced: Option<u64>) {
        let room = self.room(announced).await;
        let not_stored = room.as_ref().err().map(NoRoom::trouble);
        let expected = flight.digest().filter(|_| arrival.head.known_digest);
        let (pump, fill) = Pump::new(room, announced, expected);
        let (head, body) = self.announce(&mut flight, arrival, fill, not_stored);
        match pump.run(body).await {
            Received::InFile(body, content) => {
                if flight.permit.is_tainted() {
                    return;
                }
                let stored = StoredResponse {
                    head,
                    content,
                    upstream: flight.ask.target.upstream.name.to_string(),
                };
                self.commit(&flight, *body, stored).await;
            }
            Received::PassedThrough(_) => self.0.metrics.note(Event::PassedThrough),
            Received::Failed(error) => self.fill_failed(&flight, &error),
        }
    }

    /// Tells everybody who waits, and the first client, that the content is on its way.
    pub(super) fn announce(
        &self,
        flight: &mut Flight,
        arrival: Arrival,
        fill: Fill,
        not_stored: Option<Trouble>,
    ) -> (Stored, OriginBody) {
        if let Some(trouble) = not_stored {
            self.0.metrics.not_stored(trouble);
        }
        let reader = flight.tell.is_some().then(|| fill.reader(0)).flatten();
        let filling = Filling {
            head: arrival.head.clone(),
            fill,
            version: arrival.version,
            not_stored,
            side_trips: AtomicU32::new(0),
        };
        let shared = Arc::new(Shared::Filling(Box::new(filling)));
        flight.permit.share(Arc::clone(&shared));
        tell(
            flight.tell.take(),
            LedOutcome::Shared(shared, reader, Some(Box::new(arrival.for_first))),
        );
        (arrival.head, arrival.body)
    }

    async fn commit(&self, flight: &Flight, body: Temporary, stored: StoredResponse) {
        let key = flight.ask.target.key.to_string();
        match self.0.store.commit(body, key.clone(), stored).await {
            Ok(()) => self.0.metrics.note(Event::Stored),
            Err(error) => {
                self.0.metrics.note(Event::PassedThrough);
                tracing::warn!(error = %Chain(&error), "a response was delivered but could not be stored");
            }
        }
        // An unsafe request that came while the index was being written found nothing to invalidate there.
        if flight.permit.is_tainted()
            && let Err(error) = self.0.store.invalidate(key).await
        {
            tracing::warn!(error = %Chain(&error), "a response could not be invalidated");
        }
    }

    async fn room(&self, announced: Option<u64>) -> Result<Temporary, NoRoom> {
        self.0.store.begin(announced.unwrap_or(0)).await
    }
}

impl Flight {
    /// The digest that the content must have.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.ask.target.digest
    }

    fn share(self, shared: Shared) {
        let shared = Arc::new(shared);
        self.permit.share(Arc::clone(&shared));
        tell(self.tell, LedOutcome::Shared(shared, None, None));
    }
}

/// The client that began it may have left; the flight goes on without it.
fn tell(to: Tell, outcome: LedOutcome) {
    if let Some(to) = to {
        let _left = to.send(Led { outcome });
    }
}

fn times(response: &OriginResponse) -> Times {
    Times {
        request: response.request_time,
        response: response.response_time,
    }
}

/// `Content-Length`, where it counts the bytes that come: 204 and the like have no content whatever it says.
fn announced_length(response: &OriginResponse) -> Option<u64> {
    if matches!(
        response.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT
    ) {
        return Some(0);
    }
    response
        .headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
