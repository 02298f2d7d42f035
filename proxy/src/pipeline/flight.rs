//! A flight under way: what is asked for everybody who wants the same thing, what is known of it, and what those who wait are told.

use std::sync::Arc;

use http::{Method, StatusCode, Version, header};
use kato_shared::Digest;
use tokio::sync::oneshot;
use url::Url;

use super::{
    Ask,
    landing::{Arrival, Heads},
    lessons::Noted,
    retrieve::Selected,
    shared::Shared,
};
use crate::{
    ecosystem::{self, Integrity},
    fill::{FillError, Reader, collapse::FillPermit},
    origin::{OriginBody, OriginResponse},
    policy::{NoStoreReason, Overrides, Request, Stored, Times, withholds},
    store::StoredResponse,
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

pub(super) type Tell = Option<oneshot::Sender<Led>>;

/// A flight under way.
pub(super) struct Flight {
    pub(super) permit: FillPermit<Shared>,
    pub(super) ask: Arc<Ask>,
    pub(super) overrides: Overrides,
    /// The stored responses whose validators are sent.
    pub(super) validated: Vec<StoredResponse>,
    pub(super) selected: Option<Selected>,
    /// The digest that the answer itself announces, where it is a tag of a registry.
    pub(super) announced: Option<Digest>,
    pub(super) tell: Tell,
    /// What was fetched first was wrong: the next mirror is asked first, past the caches in between.
    pub(super) is_repeated: bool,
    /// Held from when the whole of a document that teaches has come.
    pub(super) lesson: Option<Noted>,
}

impl Flight {
    /// The digest that is known in advance, so that the content never changes.
    pub(super) fn promise(&self) -> Option<Integrity> {
        self.ask.known.map(|known| known.integrity)
    }

    /// What is wrong with a 200 that announces another size than is known: nobody has to wait for its content.
    pub(super) fn other_size(&self, response: &OriginResponse) -> Option<FillError> {
        let expected = self.ask.known?.size?;
        let announced = announced_length(response)?;
        (response.status == StatusCode::OK && announced != expected)
            .then_some(FillError::Size { expected, announced })
    }

    /// A response that may be stored, before its content has come; `for_first` is its head for the client that began the flight, where
    /// that does not follow from `response`.
    pub(super) fn arrival(&self, response: OriginResponse, for_first: Option<Stored>) -> Arrival {
        let head = self.stored_head(&response);
        let for_first = for_first.or_else(|| {
            withholds(&response.headers, &self.overrides).then(|| self.head_for_first(&response))
        });
        Arrival {
            heads: Heads {
                head,
                for_first,
                version: response.version,
            },
            announced: announced_length(&response),
            body: response.body,
            partial: None,
        }
    }

    /// The head of `response` for the client that began the flight.
    pub(super) fn head_for_first(&self, response: &OriginResponse) -> Stored {
        let request = Request {
            method: &Method::GET,
            headers: &self.ask.headers,
        };
        let head = (response.status, &response.headers);
        Stored {
            found_at: self.found_at(response),
            ..Stored::for_first_client(&request, head, times(response))
        }
    }

    /// The stored response that the request selects.
    pub(super) const fn selected(&self) -> Option<&Selected> {
        self.selected.as_ref()
    }

    /// The head of `response` as it is stored.
    pub(super) fn stored_head(&self, response: &OriginResponse) -> Stored {
        let request = Request {
            method: &Method::GET,
            headers: &self.ask.headers,
        };
        let head = (response.status, &response.headers);
        let mut stored = Stored::new(&request, head, times(response), &self.overrides);
        // Only what is whole and verified enters the index, so this is true of everything that does. What is taught is known as long
        // as it is taught, which the store says when it is asked.
        stored.known_digest = response.status == StatusCode::OK && self.ask.target.digest.is_some();
        stored.found_at = self.found_at(response);
        stored
    }

    /// Where redirects led, if the content has addresses that are relative to that.
    pub(super) fn found_at(&self, response: &OriginResponse) -> Option<Url> {
        let mut url = response.found_at.clone()?;
        if !ecosystem::has_relative_addresses(&self.ask.target.upstream) {
            return None;
        }
        // A signature, or a password, would be for us alone.
        url.set_query(None);
        url.set_fragment(None);
        url.set_username("").and_then(|()| url.set_password(None)).ok()?;
        Some(url)
    }

    pub(super) fn share(self, shared: Shared) {
        let shared = Arc::new(shared);
        self.permit.share(Arc::clone(&shared));
        tell(self.tell, LedOutcome::Shared(shared, None, None));
    }
}

/// The client that began it may have left; the flight goes on without it.
pub(super) fn tell(to: Tell, outcome: LedOutcome) {
    if let Some(to) = to {
        let _left = to.send(Led { outcome });
    }
}

pub(super) fn times(response: &OriginResponse) -> Times {
    Times {
        request: response.request_time,
        response: response.response_time,
    }
}

/// `Content-Length`, where it counts the bytes that come: 204 and the like have no content whatever it says.
pub(super) fn announced_length(response: &OriginResponse) -> Option<u64> {
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
