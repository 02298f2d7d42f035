//! A response on its way into the store: everybody has the content while it comes, and the store has it when it is whole.
//!
//! A small body that came with its head needs no file, no writer and no frontier: it is shared as it is. Content that
//! turns out to be other than its URL promises is fetched once more, from the next mirror and past every cache, and not
//! shown to anybody before it is verified.

use std::{
    os::unix::fs::FileExt,
    sync::{Arc, atomic::AtomicU32},
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use kato_shared::{Digest, chain::Chain, durable::DurableError};
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    Pipeline,
    fetch::{Flight, LedOutcome, announced_length, tell},
    shared::{Filling, Shared, Whole},
};
use crate::{
    fill::{FillError, OnAbort, Partial, Promise, Pump, Received, Source, partial::Kept},
    metrics::Event,
    origin::OriginBody,
    policy::{Stored, validation::strong_validator},
    store::{ContentRef, NoRoom, StoredResponse, Temporary},
};

/// Bodies up to this many bytes that came with their head go no way round by a file.
const SMALL: u64 = 256 << 10;

/// A response that may be stored, before its content has come.
pub(super) struct Arrival {
    /// As it will be stored.
    pub(super) head: Stored,
    /// As the client that caused it gets it.
    pub(super) for_first: Stored,
    pub(super) body: OriginBody,
    pub(super) version: http::Version,
    /// The size of the whole.
    pub(super) announced: Option<u64>,
    /// What an earlier download left of it.
    pub(super) partial: Option<Partial>,
}

impl Pipeline {
    /// Shares and stores a response.
    pub(super) async fn land(&self, flight: Flight, arrival: Arrival) {
        let mut source = Source::new(arrival.body);
        if arrival.partial.is_none()
            && let Some(length) = arrival.announced.filter(|length| *length <= SMALL)
            && let Some(body) = source.whole_at_once(length).await
        {
            let (head, for_first) = (arrival.head, arrival.for_first);
            return self
                .land_whole(flight, (head, for_first, arrival.version), body)
                .await;
        }
        let promise = Promise {
            announced: arrival.announced,
            expected: flight.digest().filter(|_| arrival.head.known_digest),
        };
        let room = match arrival.partial {
            Some(partial) => Ok(partial),
            None => self.room(promise).await,
        };
        let rest = (arrival.head, arrival.for_first, arrival.version);
        Box::pin(self.stream(flight, rest, (room, promise), source)).await;
    }

    /// Lets everybody have the content while it comes.
    async fn stream(
        &self,
        mut flight: Flight,
        (head, for_first, version): (Stored, Stored, http::Version),
        (room, promise): (Result<Partial, NoRoom>, Promise),
        mut source: Source,
    ) {
        let is_stored = room.is_ok();
        let (pump, fill) = Pump::new(room, promise, flight.ask.target.upstream.on_abort());
        let reader = flight.tell.is_some().then(|| fill.reader(0)).flatten();
        let shared = Arc::new(Shared::Filling(Box::new(Filling {
            head: head.clone(),
            fill,
            version,
            is_stored,
            side_trips: AtomicU32::new(0),
        })));
        flight.permit.share(Arc::clone(&shared));
        tell(
            flight.tell.take(),
            LedOutcome::Shared(shared, reader, Some(Box::new(for_first))),
        );
        match pump.run(&mut source).await {
            Received::InFile(body, content) => self.commit(&flight, *body, (head, content)).await,
            Received::PassedThrough(_) => self.0.metrics.note(Event::PassedThrough),
            Received::Failed(error, partial) => {
                let is_other_content = matches!(*error, FillError::Digest { .. });
                self.keep_partial(&flight, head, promise.announced.zip(partial));
                self.note_failure(&flight, &error);
                if is_other_content {
                    Box::pin(self.second_attempt(flight)).await;
                }
            }
        }
    }

    /// A body that is at hand, whole.
    async fn land_whole(
        &self,
        mut flight: Flight,
        (head, for_first, version): (Stored, Stored, http::Version),
        body: Bytes,
    ) {
        let content = ContentRef {
            digest: Digest::of(&body),
            length: body.len() as u64,
        };
        if head.known_digest
            && let Some(expected) = flight.digest().filter(|known| *known != content.digest)
        {
            let received = content.digest;
            self.note_failure(&flight, &FillError::Digest { expected, received });
            return Box::pin(self.second_attempt(flight)).await;
        }
        let whole = Whole {
            head: head.clone(),
            body: body.clone(),
            version,
        };
        let shared = Arc::new(Shared::Whole(Box::new(whole)));
        flight.permit.share(Arc::clone(&shared));
        tell(
            flight.tell.take(),
            LedOutcome::Shared(shared, None, Some(Box::new(for_first))),
        );
        match self.to_file(body).await {
            Ok(file) => self.commit(&flight, file, (head, content)).await,
            Err(error) => {
                self.0.metrics.note(Event::PassedThrough);
                tracing::warn!(error = %Chain(&error), "a response was delivered but could not be stored");
            }
        }
    }

    async fn to_file(&self, body: Bytes) -> Result<Temporary, NoRoom> {
        let mut file = self.0.store.begin(body.len() as u64).await?;
        let path = self.0.store.dir().to_owned();
        let written = spawn_blocking(move || {
            let write = file.file().write_all_at(&body, 0);
            write.map_err(|source| {
                let action = "writing a small body below";
                NoRoom::Disk(DurableError { action, path, source }.into())
            })?;
            file.grow(body.len() as u64)?;
            Ok(file)
        });
        written.await.unwrap_or(Err(NoRoom::Closing))
    }

    /// Content that was not what its URL promises is asked for again, from the next mirror and past the caches in between.
    /// Whoever comes meanwhile waits, and gets what is right or learns what is wrong.
    async fn second_attempt(&self, mut flight: Flight) {
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
            tracing::warn!(url = flight.ask.target.key.uri(), %status, "content could not be fetched again");
            // Each asks for itself, and hears what the upstream says.
            return flight.permit.keep_private();
        }
        let mut head = flight.stored_head(&response);
        head.known_digest = true;
        let promise = Promise {
            announced: announced_length(&response),
            expected: flight.digest(),
        };
        let room = self.room(promise).await;
        let (pump, fill) = Pump::new(room, promise, OnAbort::Continue);
        let reader = fill.reader(0);
        let mut source = Source::new(response.body);
        match pump.run(&mut source).await {
            Received::InFile(body, content) => self.commit(&flight, *body, (head, content)).await,
            // Right, and gone: each asks for itself.
            Received::PassedThrough(_) => flight.permit.keep_private(),
            Received::Failed(error, _) => {
                self.note_failure(&flight, &error);
                if matches!(*error, FillError::Digest { .. }) {
                    flight.share(Shared::Mismatch { error });
                }
            }
        }
        drop(reader);
    }

    fn note_failure(&self, flight: &Flight, error: &FillError) {
        let event = match error {
            FillError::Unwanted => {
                tracing::info!(
                    url = flight.ask.target.key.uri(),
                    "a download was given up, as no client was left"
                );
                return self.0.metrics.note(Event::Deserted);
            }
            FillError::Digest { .. } => Event::VerificationFailed,
            FillError::Interrupted { .. }
            | FillError::Length { .. }
            | FillError::ReadBack(_)
            | FillError::Abandoned => Event::FillFailed,
        };
        self.0.metrics.note(event);
        tracing::warn!(url = flight.ask.target.key.uri(), error = %Chain(error), "a download failed");
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
            self.0.partials.keep(key, kept, Instant::now());
        }
    }

    async fn commit(&self, flight: &Flight, body: Temporary, (head, content): (Stored, ContentRef)) {
        if flight.permit.is_tainted() {
            return;
        }
        let key = flight.ask.target.key.to_string();
        let is_negative = head.status.is_client_error() || head.status.is_server_error();
        let stored = StoredResponse {
            head,
            content,
            upstream: flight.ask.target.upstream.name.to_string(),
        };
        match self.0.store.commit(body, key.clone(), stored).await {
            Ok(()) => self.0.metrics.note(Event::Stored),
            Err(error) => {
                self.0.metrics.note(Event::PassedThrough);
                tracing::warn!(error = %Chain(&error), "a response was delivered but could not be stored");
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

    /// Room for a body; what broke off earlier makes way for it.
    async fn room(&self, promise: Promise) -> Result<Partial, NoRoom> {
        let expected = promise.announced.unwrap_or(0);
        let begun = match self.0.store.begin(expected).await {
            Err(NoRoom::Quota { .. } | NoRoom::Disk(_)) if self.0.partials.clear() => {
                self.0.store.begin(expected).await
            }
            begun => begun,
        };
        let lane = match promise.expected {
            // A client waits for the last byte until the digest is known.
            Some(_) => &self.0.urgent_digests,
            None => &self.0.digests,
        };
        begun.map(|temporary| Partial::new(temporary, lane))
    }
}

/// Asks past the caches in between.
pub(super) fn past_caches(headers: &mut http::HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
