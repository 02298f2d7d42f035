//! A response on its way into the store: everybody has the content while it comes, and the store has it when it is whole.
//!
//! Small bodies go another way (`landing_small`). Content that turns out to be other than its URL promises is fetched once more, from the next mirror and past every cache, and not
//! shown to anybody before it is verified.

use std::sync::{Arc, atomic::AtomicU32};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use kato_shared::chain::Chain;
use tokio::time::Instant;
use url::Url;

use super::{
    Pipeline,
    flight::{Flight, LedOutcome, announced_length, tell},
    shared::{Filling, Shared},
    tags::announced,
};
use crate::{
    ecosystem::Integrity,
    fill::{Fill, FillError, OnAbort, Partial, Promise, Pump, Received, Source, partial::Kept},
    metrics::Event,
    origin::OriginBody,
    policy::{Stored, validation::strong_validator},
    seldom::warn_seldom,
    store::{ContentRef, NoRoom, StoredResponse, Temporary, Trouble},
};

/// A response that may be stored, before its content has come.
pub(super) struct Arrival {
    pub(super) heads: Heads,
    pub(super) body: OriginBody,
    /// The size of the whole.
    pub(super) announced: Option<u64>,
    /// What an earlier download left of it.
    pub(super) partial: Option<Partial>,
}

/// The head of a response, in its two forms.
pub(super) struct Heads {
    /// As it will be stored.
    pub(super) head: Stored,
    /// As the client that caused it gets it, where that is another.
    pub(super) for_first: Option<Stored>,
    pub(super) version: http::Version,
}

impl Heads {
    /// The digest that the content must have.
    pub(super) fn expected(&self, flight: &Flight) -> Option<Integrity> {
        flight
            .promise()
            .filter(|_| self.head.status == StatusCode::OK)
            .or(flight.announced.map(Integrity::from))
    }
}

impl Pipeline {
    /// Shares and stores a response.
    pub(super) async fn land(&self, flight: Flight, arrival: Arrival) {
        let is_content = arrival.heads.head.status == StatusCode::OK && arrival.partial.is_none();
        if let Some(most) = flight.ask.target.most_looked_at().filter(|_| is_content) {
            return Box::pin(self.land_looked_at(flight, arrival, most)).await;
        }
        let source = Source::new(arrival.body);
        let promise = Promise {
            announced: arrival.announced,
            expected: arrival.heads.expected(&flight),
        };
        if arrival.partial.is_none()
            && let Some(length) = arrival.announced
            && let Some(place) = self.0.store.place(length)
        {
            let small = (length, place);
            return self
                .land_small(flight, arrival.heads, (source, promise), small)
                .await;
        }
        // Apart, so that the task of a small body stays small.
        Box::pin(self.stream(flight, arrival.heads, (source, promise), arrival.partial)).await;
    }

    /// Lets everybody have the content while it comes.
    pub(super) async fn stream(
        &self,
        mut flight: Flight,
        heads: Heads,
        (mut source, promise): (Source, Promise),
        partial: Option<Partial>,
    ) {
        let room = if let Some(partial) = partial {
            Ok(partial)
        } else {
            if let Some(segments) = self.segments(&flight, &heads.head, promise) {
                source = source.split(segments);
            }
            self.room(promise).await
        };
        let not_stored = room.as_ref().err().map(NoRoom::trouble);
        let (pump, fill) = Pump::new(room, promise, flight.ask.target.upstream.on_abort());
        let head = self.announce(&mut flight, heads, fill, not_stored);
        match pump.run(&mut source).await {
            Received::InFile(body, content) => self.commit(&mut flight, *body, (head, content)).await,
            Received::PassedThrough(_) => self.0.metrics.note(Event::PassedThrough),
            Received::Failed(error, partial) => {
                let is_other_content = matches!(*error, FillError::Digest { .. });
                self.keep_partial(&flight, head, promise.announced.zip(partial));
                self.note_failure(&flight, &error);
                if is_other_content {
                    Box::pin(self.second_attempt(flight, error)).await;
                }
            }
        }
    }

    /// Tells everybody who waits, and the first client, that the content is on its way.
    pub(super) fn announce(
        &self,
        flight: &mut Flight,
        heads: Heads,
        fill: Fill,
        not_stored: Option<Trouble>,
    ) -> Stored {
        if let Some(trouble) = not_stored {
            self.0.metrics.not_stored(trouble);
        }
        let reader = flight.tell.is_some().then(|| fill.reader(0)).flatten();
        let filling = Filling {
            head: heads.head.clone(),
            fill,
            version: heads.version,
            not_stored,
            side_trips: AtomicU32::new(0),
        };
        let status = filling.head.status;
        let shared = Arc::new(Shared::Filling(Box::new(filling)));
        flight.lesson = self.note_lesson(&flight.ask.target, status, Some(Arc::clone(&shared)));
        flight.permit.share(Arc::clone(&shared));
        let told = LedOutcome::Shared(shared, reader, heads.for_first.map(Box::new));
        tell(flight.tell.take(), told);
        heads.head
    }

    /// Content that was not what its URL promises is asked for again, from the next mirror and past the caches in between.
    /// Whoever comes meanwhile waits, and gets what is right or learns what is wrong.
    pub(super) async fn second_attempt(&self, mut flight: Flight, first: Arc<FillError>) {
        if flight.is_repeated || self.is_noted(&flight.ask, &first) {
            return self.mismatch(flight, first, None);
        }
        flight.permit.reopen();
        flight.validated.clear();
        flight.is_repeated = true;
        let response = match self.send(&flight).await {
            Ok(response) => response,
            Err(error) => {
                return flight.share(Shared::Failed {
                    error: Arc::new(error),
                });
            }
        };
        if response.status != StatusCode::OK {
            let status = response.status;
            tracing::warn!(url = %flight.ask.target.key.shown(), %status, "content could not be fetched again");
            if flight.ask.target.digest.is_none() {
                // A client that asked for itself would get what is wrong, and not see that it is.
                return self.mismatch(flight, first, None);
            }
            // Each asks for itself, and hears what the upstream says.
            return flight.permit.keep_private();
        }
        flight.announced = announced(&flight.ask.target, &response);
        if let Some(error) = flight.other_size(&response) {
            self.note_failure(&flight, &error);
            return self.mismatch(flight, Arc::new(error), Some(0));
        }
        if flight.ask.target.most_looked_at().is_some() {
            let arrival = flight.arrival(response, None);
            return Box::pin(self.land(flight, arrival)).await;
        }
        let head = flight.stored_head(&response);
        let announced = announced_length(&response);
        let promise = Promise {
            announced,
            expected: flight.promise().or(flight.announced.map(Integrity::from)),
        };
        let room = self.room(promise).await;
        let (pump, fill) = Pump::new(room, promise, OnAbort::Continue);
        let reader = fill.reader(0);
        let mut source = Source::new(response.body);
        match pump.run(&mut source).await {
            Received::InFile(body, content) => {
                flight.lesson = self.note_lesson(&flight.ask.target, head.status, None);
                self.commit(&mut flight, *body, (head, content)).await;
            }
            // Right, and gone: each asks for itself.
            Received::PassedThrough(_) => flight.permit.keep_private(),
            Received::Failed(error, _) => {
                self.note_failure(&flight, &error);
                if matches!(*error, FillError::Digest { .. }) {
                    self.mismatch(flight, error, announced);
                }
            }
        }
        drop(reader);
    }

    /// It was wrong each time: everybody who waits hears that, and whoever comes in the next moment.
    fn mismatch(&self, flight: Flight, error: Arc<FillError>, announced: Option<u64>) {
        self.note_mismatch(&flight.ask, &error, announced);
        flight.share(Shared::Mismatch { error });
    }

    pub(super) fn note_failure(&self, flight: &Flight, error: &FillError) {
        let event = match error {
            FillError::Unwanted => {
                tracing::info!(
                    url = %flight.ask.target.key.shown(),
                    "a download was given up, as no client was left"
                );
                return self.0.metrics.note(Event::Deserted);
            }
            FillError::Digest { .. } | FillError::Size { .. } => Event::VerificationFailed,
            FillError::Interrupted { .. }
            | FillError::Length { .. }
            | FillError::ReadBack(_)
            | FillError::Abandoned => Event::FillFailed,
        };
        self.0.metrics.note(event);
        tracing::warn!(url = %flight.ask.target.key.shown(), error = %Chain(error), "a download failed");
    }

    /// Keeps the beginning of a 200 whose rest can be asked for.
    fn keep_partial(&self, flight: &Flight, head: Stored, partial: Option<(u64, Box<Partial>)>) {
        if let Some((total, partial)) = partial
            && head.status == StatusCode::OK
            && !flight.permit.is_tainted()
            && let Some(validator) = strong_validator(&head.headers)
        {
            let kept = Kept {
                partial: *partial,
                head,
                validator,
                total,
            };
            let key = flight.ask.target.key.to_string();
            self.0.fills.partials.keep(key, kept, Instant::now());
        }
    }

    async fn commit(&self, flight: &mut Flight, body: Temporary, (head, content): (Stored, ContentRef)) {
        if flight.permit.is_tainted() {
            return;
        }
        let key = flight.ask.target.key.to_string();
        let is_negative = head.status.is_client_error() || head.status.is_server_error();
        let (is_ok, found_at) = (head.status == StatusCode::OK, head.found_at.clone());
        let stored = StoredResponse {
            head,
            content,
            upstream: flight.ask.target.upstream.name.to_string(),
        };
        match self.0.store.commit(body, key.clone(), stored).await {
            Ok(()) => {
                self.0.metrics.note(Event::Stored);
                if is_ok {
                    self.note_proof(flight, content).await;
                }
                self.learn_from(flight, content, found_at);
            }
            Err(error) => {
                self.0.metrics.note(Event::PassedThrough);
                warn_seldom!(error = %Chain(&error), "a response was delivered but could not be stored");
            }
        }
        if is_negative {
            self.bound_negatives(&key).await;
        }
        // An unsafe request that came while the index was being written found nothing to invalidate there.
        if flight.permit.is_tainted()
            && let Err(error) = self.0.store.invalidate(key).await
        {
            tracing::warn!(error = %Chain(&error), "a response could not be invalidated");
        }
    }

    /// Lets what is stored by now teach, if it does.
    pub(super) fn learn_from(&self, flight: &mut Flight, content: ContentRef, found_at: Option<Url>) {
        if let Some(noted) = flight.lesson.take() {
            self.learn(&flight.ask.target, (content, found_at), noted);
        }
    }

    /// Notes which content it is that was promised by another function than SHA-256, now that it is stored.
    pub(super) async fn note_proof(&self, flight: &Flight, content: ContentRef) {
        if let Some(promise) = flight.promise()
            && promise.sha256().is_none()
        {
            let key = flight.ask.target.key.as_str();
            self.0.store.note_proof(key, promise, content.digest).await;
        }
    }

    /// Room for a body; what broke off earlier makes way for it.
    async fn room(&self, promise: Promise) -> Result<Partial, NoRoom> {
        let expected = promise.announced.unwrap_or(0);
        let begun = match self.0.store.begin(expected).await {
            Err(NoRoom::Quota { .. } | NoRoom::Disk(_)) if self.0.fills.partials.clear() => {
                self.0.store.begin(expected).await
            }
            begun => begun,
        };
        let lane = match promise.expected {
            // A client waits for the last byte until the digest is known.
            Some(_) => &self.0.fills.urgent_digests,
            None => &self.0.fills.digests,
        };
        begun.map(|temporary| Partial::new(temporary, lane))
    }
}

/// Asks past the caches in between.
pub(super) fn past_caches(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
