//! What is held stays: answers that are no use do not take the place of documents that many depend on, and do not keep anybody from them.
//!
//! The rule is [`policy::replacing`]; here are the facts for it, and for the documents of groups, whose content has to say what they are.

use std::io::Read as _;

use http::{HeaderMap, StatusCode, Version, header};
use tokio::task::spawn_blocking;

use super::{
    Answer, Ask, Pipeline,
    flight::Flight,
    groups::{LARGEST, whole_of},
    handed_on::hand_on,
    landing::Heads,
    lessons::reader,
    looked_at::no_answer,
    outcome::tried,
    retrieve::{Round, Selected},
};
use crate::{
    cache_status::{CacheStatus, Forward},
    ecosystem::{self, BEGINNING, Looked, ReleaseForm, release_form},
    metrics::Outcome,
    origin::{OriginError, OriginResponse},
    policy::{
        self, Content, Document, Failure, NoStoreReason, Overrides, Replacing,
        cache_control::RequestDirectives,
    },
    registry::{Class, Misfit},
    route::Target,
    store::StoredResponse,
};

impl Pipeline {
    /// What to do with `response`, given what is held under its key.
    ///
    /// # Errors
    /// As [`OriginBody::next`](crate::origin::OriginBody::next).
    pub(super) async fn replacing(
        &self,
        flight: &Flight,
        response: &mut OriginResponse,
    ) -> Result<Replacing, OriginError> {
        let target = &flight.ask.target;
        let mut content = kind_of(&response.headers);
        if flight.promise().is_none() && !fits(target, response).await? {
            content = Content::OfAnotherKind;
        }
        let answer = (response.status, content);
        let document = document(target);
        // Most answers are good ones: nothing has to be looked up for them.
        if policy::replacing(document, answer, false) == Replacing::ByRule
            && policy::replacing(document, answer, true) == Replacing::ByRule
        {
            return Ok(Replacing::ByRule);
        }
        let is_held = self.held_whole(target).await.is_some();
        Ok(policy::replacing(document, answer, is_held))
    }

    /// The 200 that is held and may be used.
    async fn held_whole(&self, target: &Target) -> Option<StoredResponse> {
        let entry = self.0.store.lookup(target.key.as_str()).await;
        whole_of(&entry).filter(|held| !held.head.invalidated)
    }

    /// The flight of a document that is one by its form. Otherwise everybody gets what is held, or, where nothing is, this page, which
    /// is not stored.
    pub(super) async fn release(&self, flight: Flight, heads: &Heads, body: &bytes::Bytes) -> Option<Flight> {
        let form = release_form(body);
        if form == ReleaseForm::Lists {
            return Some(flight);
        }
        let held = match self.held_whole(&flight.ask.target).await {
            Some(held) => self.form_of(held).await,
            None => None,
        };
        match held {
            Some(held) if form == ReleaseForm::Other || form < held => {
                self.misfit(flight, Misfit::Release);
                None
            }
            None if form == ReleaseForm::Other => {
                hand_on(flight, heads, body.clone(), NoStoreReason::Unusable);
                None
            }
            _ => Some(flight),
        }
    }

    /// The form of a held document; `None` when it cannot be read.
    async fn form_of(&self, held: StoredResponse) -> Option<ReleaseForm> {
        let content = self.0.store.content(held.content).await?;
        let read = spawn_blocking(move || {
            let mut document = Vec::new();
            let read = reader(content).take(LARGEST).read_to_end(&mut document);
            read.ok().map(|_length| release_form(&document))
        });
        read.await.ok()?
    }

    /// Forwards a retrieval for one client: its own conditions and ranges go along, nothing is stored. What is held stands in where the
    /// origin gives no usable answer.
    pub(super) async fn alone(&self, ask: &Ask, why: Forward, overrides: &Overrides) -> Answer {
        let selected = self.standing_by(ask, overrides).await;
        let answered = match self.try_alone(ask, why).await {
            Ok(answer) => {
                let (status, headers) = (answer.response.status(), answer.response.headers());
                let judged = policy::replacing(
                    document(&ask.target),
                    (status, kind_of(headers)),
                    selected.is_some(),
                );
                if judged == Replacing::NoAnswer && status != StatusCode::PARTIAL_CONTENT {
                    Err(no_answer(&ask.target, unusable(status)))
                } else {
                    Ok(answer)
                }
            }
            Err(error) => Err(error),
        };
        let failed = match &answered {
            Ok(answer) => {
                let status = answer.response.status();
                let asked = CacheStatus::forwarded(Forward::Stale).fwd_status(status);
                (Failure::Status(status), Some(asked))
            }
            Err(error) => (Failure::Unreachable, tried(error)),
        };
        if let Some(Round::Done(held)) = self.stand_in(ask, selected.as_ref(), failed, overrides).await {
            return *held;
        }
        answered.unwrap_or_else(|error| Answer {
            response: self.unanswered(ask, selected.as_ref(), &error, overrides),
            status: CacheStatus::forwarded(why).detail(&error),
            outcome: Outcome::Failed,
            received: Version::HTTP_11,
        })
    }

    /// What is stored for a request that goes alone; nothing where the client wants nothing stored.
    async fn standing_by(&self, ask: &Ask, overrides: &Overrides) -> Option<Selected> {
        if RequestDirectives::of(&ask.headers).no_store {
            return None;
        }
        let mut entry = self.open_to(&ask.target, self.lookup(&ask.target).await);
        if let Some(known) = ask.known {
            entry = self.of_known(&ask.target, entry, known).await;
        }
        let at = (overrides, self.0.clock.now());
        let (_decision, selected) = self.judge(&ask.request(), &ask.target, &entry, at);
        selected.filter(|held| held.head().status == StatusCode::OK)
    }
}

/// What is wrong with an answer that is not used, by its status code.
pub(super) fn unusable(status: StatusCode) -> Misfit {
    if status == StatusCode::OK {
        return Misfit::Page;
    }
    Misfit::Status {
        status: status.as_u16(),
    }
}

/// Whether only a usable answer takes the place of what is held for `target`.
pub(super) fn is_shared(target: &Target) -> bool {
    document(target) != Document::Other
}

/// What `target` is, for [`policy::replacing`].
fn document(target: &Target) -> Document {
    match target.registry.as_ref().map(|place| place.class) {
        Some(Class::Tag | Class::List | Class::Referrers) => Document::Name,
        Some(Class::Manifest | Class::Blob | Class::Other) => Document::Other,
        None => ecosystem::document(&target.upstream, &target.path),
    }
}

/// Whether a 200 can be what was asked for, by its beginning, which is read again later.
async fn fits(target: &Target, response: &mut OriginResponse) -> Result<bool, OriginError> {
    let looked = Looked::of(&target.upstream, &target.path);
    // In a coding that nobody asked for nothing can be seen.
    let is_coded = response.headers.contains_key(header::CONTENT_ENCODING);
    let Some(looked) = looked.filter(|_| response.status == StatusCode::OK && !is_coded) else {
        return Ok(true);
    };
    let (beginning, is_whole) = response.body.beginning(BEGINNING).await?;
    Ok(looked.fits(&beginning, is_whole))
}

fn kind_of(headers: &HeaderMap) -> Content {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default()
        .trim();
    if kind.eq_ignore_ascii_case("text/html") || kind.eq_ignore_ascii_case("application/xhtml+xml") {
        Content::Html
    } else {
        Content::Plausible
    }
}
