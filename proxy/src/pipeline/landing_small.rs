//! A small response on its way into the store: it needs no file and no thread, is a hit for others at once, and becomes
//! durable a moment later.
//!
//! Most come whole with their head. Those need no frontier and no readers either: they are stored and shared as they are. So are those
//! whose digest is known before: nobody gets a byte of them that is not verified.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use kato_shared::{Digest, chain::Chain};

use super::{
    Pipeline,
    flight::{Flight, LedOutcome, tell},
    groups::receive,
    landing::Heads,
    shared::{Shared, Whole},
};
use crate::{
    fill::{Promise, Small, Source, verify},
    metrics::Event,
    policy::Stored,
    store::{ContentRef, Place, StoredResponse},
};

impl Pipeline {
    /// Shares and stores a response of `length` bytes.
    pub(super) async fn land_small(
        &self,
        flight: Flight,
        heads: Heads,
        (mut source, promise): (Source, Promise),
        (length, place): (u64, Place),
    ) {
        match source.whole_at_once(length).await {
            Some(body) => self.land_whole(flight, heads, body, place).await,
            None if promise.expected.is_some() => {
                Box::pin(self.hold_small(flight, heads, source, (length, place))).await;
            }
            None => Box::pin(self.stream_small(flight, heads, source, (length, place))).await,
        }
    }

    /// Holds a body back whose digest is known until it is verified: who would get the wrong one hears instead what is wrong.
    async fn hold_small(&self, flight: Flight, heads: Heads, source: Source, (length, place): (u64, Place)) {
        match receive(source, Some(length), length).await {
            Ok(body) => self.land_whole(flight, heads, body, place).await,
            Err(Some(error)) => self.broke_off(flight, error),
            // More than was announced: HTTP has no such body.
            Err(None) => flight.permit.keep_private(),
        }
    }

    /// A body that is at hand, whole.
    pub(super) async fn land_whole(&self, mut flight: Flight, heads: Heads, body: Bytes, place: Place) {
        // Of its own size: what comes from the connection may hold a larger buffer.
        let body = Bytes::copy_from_slice(&body);
        let content = ContentRef {
            digest: Digest::of(&body),
            length: body.len() as u64,
        };
        if let Err(error) = verify(heads.expected(&flight), content.digest, &body) {
            self.note_failure(&flight, &error);
            return Box::pin(self.second_attempt(flight, Arc::new(error))).await;
        }
        flight.lesson = self.note_lesson(&flight.ask.target, heads.head.status, None);
        self.store_small(&mut flight, heads.head.clone(), (content, body.clone()), place)
            .await;
        let shared = Arc::new(Shared::Whole(Box::new(Whole {
            head: heads.head,
            body,
            version: heads.version,
        })));
        flight.permit.share(Arc::clone(&shared));
        let told = LedOutcome::Shared(shared, None, heads.for_first.map(Box::new));
        tell(flight.tell.take(), told);
    }

    /// Lets everybody have the content while it comes.
    async fn stream_small(
        &self,
        mut flight: Flight,
        heads: Heads,
        mut source: Source,
        (length, place): (u64, Place),
    ) {
        let (small, fill) = Small::new(length);
        let head = self.announce(&mut flight, heads, fill, None);
        match small.run(&mut source).await {
            Ok(received) => {
                let body = (received.content, received.whole.clone());
                // Whoever has the last byte finds the lesson under way.
                if flight.lesson.is_some() {
                    flight.lesson = self.note_lesson(&flight.ask.target, head.status, None);
                }
                self.store_small(&mut flight, head, body, place).await;
                received.publish();
            }
            Err(error) => self.note_failure(&flight, &error),
        }
    }

    async fn store_small(
        &self,
        flight: &mut Flight,
        head: Stored,
        (content, body): (ContentRef, Bytes),
        place: Place,
    ) {
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
        self.0.store.put_small(&key, stored, body, place);
        self.0.metrics.note(Event::Stored);
        if is_ok {
            self.note_proof(flight, content).await;
        }
        self.learn_from(flight, content, found_at);
        if is_negative {
            self.bound_negatives(&key).await;
        }
        // An unsafe request that came in between found nothing to invalidate.
        if flight.permit.is_tainted()
            && let Err(error) = self.0.store.invalidate(key).await
        {
            tracing::warn!(error = %Chain(&error), "a response could not be invalidated");
        }
    }
}
