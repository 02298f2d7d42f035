//! Answers that are not stored: for the client that asked, or, where nothing in them is about that client, for all who wait just now.
//!
//! A file that is missing or forbidden is asked for by a whole fleet at once, and an upstream that is in trouble would be asked once by
//! each. "A cache can use a response that is stored or storable to satisfy multiple requests" ([RFC 9111 §4]): what could be stored, and
//! is not since something better is held, is handed to everybody who waited for it.
//!
//! Off-spec: so is an error that states no freshness, which may not be stored. Who waited has asked before the upstream answered; nothing
//! old is given to anybody, and who comes a moment later asks anew. Never shared are answers to credentials, and answers that forbid it
//! (`no-store`, `private`, cookies, `Vary: *`).
//!
//! [RFC 9111 §4]: https://www.rfc-editor.org/rfc/rfc9111#section-4

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::{
    Ask, Pipeline,
    flight::{Flight, LedOutcome, Passing, announced_length, tell},
    landing::Heads,
    private_keys::Audience,
    shared::{Shared, Whole},
};
use crate::{
    origin::OriginResponse,
    policy::{NoStoreReason, Stored, is_for_all_who_wait},
};

/// The most bytes of an answer that is handed to several: it is held in memory. Pages of errors have a few KiB.
const LARGEST: usize = 64 << 10;

impl Pipeline {
    /// Requests like `ask`, whose answer is not to be shared, need not wait for one another for a while; but what is no content, such as
    /// an error of the moment, says nothing about the response that comes after it.
    pub(super) fn note_private(&self, ask: &Ask, status: StatusCode) {
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            let (key, audience) = (ask.target.key.as_str(), Audience::of(&ask.headers));
            self.0.private_keys.insert(key, audience, Instant::now());
        }
    }
}

/// A response that is not stored.
pub(super) async fn not_stored(
    flight: Flight,
    (for_first, mut response): (Stored, OriginResponse),
    reason: NoStoreReason,
) {
    let is_small = announced_length(&response).is_none_or(|length| length <= LARGEST as u64);
    if !is_small || !is_for_all_who_wait(&flight.ask.headers, response.status, reason) {
        return keep_to_one(flight, (for_first, response), reason);
    }
    match response.body.beginning(LARGEST).await {
        Ok((body, true)) => {
            let heads = Heads {
                head: flight.stored_head(&response),
                for_first: Some(for_first),
                version: response.version,
            };
            hand_on(flight, &heads, body, reason);
        }
        Ok((_, false)) => keep_to_one(flight, (for_first, response), reason),
        Err(error) => flight.share(Shared::Failed {
            error: Arc::new(error),
        }),
    }
}

/// Gives a response to the client that asked for it, and nobody else.
fn keep_to_one(flight: Flight, (for_first, response): (Stored, OriginResponse), reason: NoStoreReason) {
    match Audience::of(&flight.ask.headers) {
        Audience::All => flight.permit.keep_private(),
        Audience::Credentialed => flight.permit.keep_personal(),
    }
    let passing = Passing {
        head: for_first,
        body: response.body,
        version: response.version,
    };
    tell(flight.tell, LedOutcome::Private(Box::new(passing), reason));
}

/// Gives everybody who waits a response that is not stored.
pub(super) fn hand_on(mut flight: Flight, heads: &Heads, body: Bytes, reason: NoStoreReason) {
    let whole = Box::new(Whole {
        head: heads.head.clone(),
        body,
        version: heads.version,
    });
    let shared = Arc::new(Shared::HandedOn { whole, reason });
    flight.permit.share(Arc::clone(&shared));
    let for_first = heads.for_first.clone().map(Box::new);
    tell(flight.tell.take(), LedOutcome::Shared(shared, None, for_first));
}
