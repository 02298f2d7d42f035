//! The flight of a small body: it needs no file and no thread, is a hit for others at once, and becomes durable a moment later.

use kato_shared::chain::Chain;

use super::{
    Pipeline,
    fetch::{Arrival, Flight},
};
use crate::{
    fill::{FillError, Small},
    metrics::Event,
    store::{Place, StoredResponse},
};

impl Pipeline {
    /// Lets everybody have the content while it comes, and stores it when it is whole.
    pub(super) async fn fill_small(
        &self,
        mut flight: Flight,
        arrival: Arrival,
        announced: u64,
        place: Place,
    ) {
        let expected = flight.digest().filter(|_| arrival.head.known_digest);
        let (small, fill) = Small::new(announced, expected);
        let (head, body) = self.announce(&mut flight, arrival, fill, None);
        match small.run(body).await {
            Ok(received) => {
                if flight.permit.is_tainted() {
                    return received.publish();
                }
                let stored = StoredResponse {
                    head,
                    content: received.content,
                    upstream: flight.ask.target.upstream.name.to_string(),
                };
                let key = flight.ask.target.key.to_string();
                self.0
                    .store
                    .put_small(&key, stored, received.whole.clone(), place);
                self.0.metrics.note(Event::Stored);
                received.publish();
                // An unsafe request that came in between found nothing to invalidate.
                if flight.permit.is_tainted()
                    && let Err(error) = self.0.store.invalidate(key).await
                {
                    tracing::warn!(error = %Chain(&error), "a response could not be invalidated");
                }
            }
            Err(error) => self.fill_failed(&flight, &error),
        }
    }

    /// A download came to nothing.
    pub(super) fn fill_failed(&self, flight: &Flight, error: &FillError) {
        let is_lie = matches!(error, FillError::Digest { .. });
        self.0.metrics.note(if is_lie {
            Event::VerificationFailed
        } else {
            Event::FillFailed
        });
        tracing::warn!(url = %flight.ask.target.key.shown(), error = %Chain(error), "a download failed");
    }
}
