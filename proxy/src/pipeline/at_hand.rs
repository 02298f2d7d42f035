//! Fresh hits for the front (see [`crate::front`]): the same layers as for every other request, as far as the store alone can
//! answer. Whatever needs an origin, a refusal or a wait for a download is none of its business and gets `None`.
//!
//! Nothing is decided here: `admit`, `judge`, `found` and `finish` are what the ordinary way goes through.

use std::{
    net::IpAddr,
    ops::Range,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use http::{Method, header, request, response};
use jiff::{SignedDuration, Timestamp};
use kato_shared::api::Problem;
use tokio::time::Instant;

use super::{
    Pipeline,
    answer::shown_if_wanted,
    door::is_error_at_the_door,
    groups::{is_document, is_member},
    retrieve::{found, keep_credentials_of_clients_back},
};
use crate::{
    admission::Slot,
    deliver::{Payload, Record},
    front::{Prepared, Ready},
    metrics::Event,
    policy::{
        Aged, Decision, Request, StalePermission, Stored,
        headers::{self as fields, single_date},
    },
    recent::Held,
    registry,
    route::{Route, Target},
    store::{Content, ContentRef, Responses},
};

/// The longest time for which an answer is prepared. It is the time by which the store may think that content was last used
/// sooner than it was.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(10);

/// An answer from the store, ready to be written.
#[derive(Debug)]
pub struct AtHand {
    /// Status and fields, complete.
    pub head: response::Parts,
    /// Nothing, bytes in memory, or part of a file.
    pub payload: Payload,
    /// Its entry in the access log.
    pub record: Record,
    /// Its place among the requests that are being answered.
    pub slot: Slot,
    /// How long another request with the same head gets the same answer.
    pub lasting: Option<Lasting>,
}

/// Why and until when an answer is good for another request with the same head, but for its `Age` and the time left.
#[derive(Debug)]
pub struct Lasting {
    /// It was made at this time, and is good from then on,
    pub(crate) from: Timestamp,
    /// before this time,
    pub(crate) until: Timestamp,
    /// with this age at `from`,
    pub(crate) aged: Aged,
    /// while this is what the index says,
    pub(crate) entry: Responses,
    /// and while its body is at hand.
    pub(crate) body: LastingBody,
    /// What was asked for.
    pub(crate) target: Arc<Target>,
}

/// Where the body of an answer that lasts is.
#[derive(Debug, Clone)]
pub(crate) enum LastingBody {
    /// There is none.
    Empty,
    /// In the memory tier, which alone keeps it alive.
    Memory(Weak<Held<Bytes>>),
    /// These bytes of a file, if it is open and still what the index says.
    File { content: ContentRef, bytes: Range<u64> },
}

impl Pipeline {
    /// The answer to a GET or HEAD without content, if the store has one that may be sent as it is.
    ///
    /// # Errors
    /// What was asked, where the store has nothing; nothing, where looking at what it has has changed that.
    pub async fn at_hand(
        &self,
        mut asked: request::Parts,
        client: IpAddr,
        started: Instant,
    ) -> Result<AtHand, Option<request::Parts>> {
        let is_stored = |target: &Arc<Target>| self.may_be_stored(target) && !self.makes_lists_like(target);
        let Some(target) = self.shown_as_stored(&asked, client).filter(is_stored) else {
            return Err(Some(asked));
        };
        let answer = self.stored_answer(&mut asked, target, (client, started)).await;
        answer.ok_or(None)
    }

    /// Whether anything may be stored for `target`; false is certain, and has asked no disk.
    fn may_be_stored(&self, target: &Target) -> bool {
        self.served().is_some() || self.0.store.may_have(target.key.as_str())
    }

    async fn stored_answer(
        &self,
        asked: &mut request::Parts,
        target: Arc<Target>,
        (client, started): (IpAddr, Instant),
    ) -> Option<AtHand> {
        let slot = self.place(client)?;
        fields::strip_unkeyed(&mut asked.headers);
        keep_credentials_of_clients_back(&target, &mut asked.headers);
        let accepts = registry::prepare(&target, &mut asked.headers);
        let key = target.key.as_str();
        self.settled(key).await;
        let entry = self.stored_as_taught(client, &target).await?;
        let request = Request {
            method: &asked.method,
            headers: &asked.headers,
        };
        let overrides = target.upstream.overrides(&target.path);
        let now = self.0.clock.now();
        let (decision, selected) = self.judge(&request, &target, &entry, (&overrides, now));
        let (aged, detail) = without_origin(decision)?;
        let selected = selected?;
        let content_ref = selected.content();
        let Some(content) = self.0.store.content(content_ref).await else {
            self.0.metrics.note(Event::Healed);
            return None;
        };
        let in_memory = in_memory(&content);
        self.note_seen(client, &target, selected.content().digest);
        self.note_manifest(&target);
        let lasts =
            lasts_until(&request, selected.head(), decision, now).filter(|_| self.is_common(&target, &entry));
        let mut answer = found(&request, &selected, content, (aged, detail));
        registry::present(&target, accepts.as_ref(), &mut answer.response);
        if answer.response.extensions().get::<Problem>().is_some()
            || is_error_at_the_door(&target, &answer.response)
        {
            return None;
        }
        let counted = self.counted(&target);
        let about = (counted, shown_if_wanted(&asked.uri));
        let record = self.record(&answer, (asked.method.clone(), client), about, started);
        let (head, payload, record) = self.finish(answer, record);
        let body = lasting_body(&payload, in_memory, content_ref);
        let lasting = lasts.zip(body).map(|(until, body)| Lasting {
            from: now,
            until,
            aged,
            entry,
            body,
            target,
        });
        Some(AtHand {
            head,
            payload,
            record,
            slot,
            lasting,
        })
    }

    /// The target of a request that may be answered from the store. What is shown otherwise than it is stored is made for each answer.
    fn shown_as_stored(&self, asked: &request::Parts, client: IpAddr) -> Option<Arc<Target>> {
        if !self.0.settings.access.allows(client) || !matches!(asked.method, Method::GET | Method::HEAD) {
            return None;
        }
        let line = (&asked.method, &asked.uri, asked.version);
        let seen = self.guest_at_hand(&asked.uri, &asked.headers);
        match self.admit(line, (&asked.headers, client), seen) {
            Ok(Route::Target(target)) if self.view_of(&target, &asked.uri).is_none() => Some(target),
            Ok(_) | Err(_) => None,
        }
    }

    /// The answer that a request with exactly these bytes got a moment ago and would get again; its head is left in `head`.
    pub fn prepared(
        &self,
        asked: &[u8],
        client: IpAddr,
        started: Instant,
        head: &mut Vec<u8>,
    ) -> Option<Ready> {
        if !self.0.settings.access.allows(client) {
            return None;
        }
        let slot = self.place(client)?;
        let now = self.0.clock.now();
        let prepared = self.0.prepared.get(asked, now)?;
        if self.0.collapse.settling(prepared.key()).is_some() {
            return None;
        }
        let body = prepared.body(&self.0.store)?;
        let ready = prepared.ready(body, (client, &self.0.metrics, slot), (started, now), head);
        self.0.metrics.answered(ready.record.outcome, started.elapsed());
        Some(ready)
    }

    /// A place among the requests that are being answered. Who has to wait for one, or is refused, is none of ours.
    fn place(&self, client: IpAddr) -> Option<Slot> {
        self.0.admission.try_admit(client, &self.0.settings.limits)
    }

    /// Whether whoever asks with the same bytes gets the same: what an upstream gives may depend on the client, what fits of a group
    /// of documents on what the client has seen, and what users may have on what their file says now.
    fn is_common(&self, target: &Target, entry: &Responses) -> bool {
        let is_for_users = target.registry.is_some() && !self.0.guests.is_everybody();
        // Another snapshot may be served in the next second.
        !is_for_users
            && self.served().is_none()
            && target.keepers().all(|keeper| keeper.clients.is_none())
            && !is_document(target)
            && !is_member(entry)
    }

    /// Where answers are kept for [`Self::prepared`].
    pub fn to_prepare(&self) -> &Prepared {
        &self.0.prepared
    }
}

/// What a decision that leaves the origin out of it says: the age, and what `Cache-Status` says beside it.
fn without_origin(decision: Decision) -> Option<(Aged, Option<&'static str>)> {
    match decision {
        Decision::Fresh(aged) => Some((aged, None)),
        Decision::StaleServable {
            aged,
            permission: StalePermission::MaxStale,
        } => Some((aged, Some("stale"))),
        Decision::StaleServable {
            permission: StalePermission::WhileRevalidate,
            ..
        }
        | Decision::MustValidate { .. }
        | Decision::Miss(_)
        | Decision::GatewayTimeout
        | Decision::Bypass(_) => None,
    }
}

/// The body, if it is not in a file.
fn in_memory(content: &Content) -> Option<Arc<Held<Bytes>>> {
    match content {
        Content::Memory(body) => Some(Arc::clone(body)),
        Content::File { .. } => None,
    }
}

/// Where another request with the same head finds the same body: all that is `in_memory`, or part of the file of `content`.
/// `None` for a body that is not there to be sent again.
fn lasting_body(
    payload: &Payload,
    in_memory: Option<Arc<Held<Bytes>>>,
    content: ContentRef,
) -> Option<LastingBody> {
    match payload {
        Payload::Empty => Some(LastingBody::Empty),
        Payload::Memory(bytes) => in_memory
            .filter(|body| body.is_held() && body.len() == bytes.len())
            .map(|body| LastingBody::Memory(Arc::downgrade(&body))),
        Payload::Stored(span) => Some(LastingBody::File {
            content,
            bytes: span.next..span.end,
        }),
        Payload::Filling { .. } | Payload::Passing { .. } | Payload::Parts(_) => None,
    }
}

/// Until when a request with the same head gets the same decision about `stored`: a fresh response stays one until its
/// lifetime is over, if the client has no wishes of its own about that. Sooner, so that last-use times come to be known in time.
fn lasts_until(
    request: &Request<'_>,
    stored: &Stored,
    decision: Decision,
    now: Timestamp,
) -> Option<Timestamp> {
    let Decision::Fresh(aged) = decision else {
        return None;
    };
    let has_wishes = [header::CACHE_CONTROL, header::PRAGMA]
        .iter()
        .any(|name| request.headers.contains_key(name));
    // A Date of our own would be another one in the next second.
    let has_date = single_date(&stored.headers, &header::DATE).is_some();
    // A response from the future does not get older until then.
    let is_of_the_past = stored.times.response <= now;
    let until = now.checked_add(aged.ttl().min(REMEMBERED)).ok()?;
    (!has_wishes && has_date && is_of_the_past && until > now).then_some(until)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{
        Overrides, decide, select,
        test_support::{at, date, headers, stored},
    };

    proptest! {
        #[test]
        fn while_an_answer_lasts_a_request_with_the_same_head_gets_the_same_decision(
            directives in "(max-age=[0-9]{1,2}|s-maxage=[0-9]|no-cache|must-revalidate|immutable|stale-while-revalidate=9)(, max-age=[0-9]{1,2})?",
            wish in prop::option::of("(max-age|min-fresh|max-stale)=[0-9]{1,2}|no-cache"),
            (received, asked, later) in (0_i64..20, 0_i64..30_000, 0_i64..30_000),
        ) {
            let wishes = wish.map_or_else(HeaderMap::new, |wish| headers(&[("cache-control", wish)]));
            let mut entry = stored(&[("date", date(0)), ("cache-control", directives)]);
            entry.times.response = at(received);
            let request = Request { method: &Method::GET, headers: &wishes };
            let overrides = Overrides::default();
            let decision_at = |now| {
                let entries = std::slice::from_ref(&entry);
                decide(&request, select(&request, entries), &overrides, now).decision
            };
            let now = at(0) + SignedDuration::from_millis(asked);
            let then = now + SignedDuration::from_millis(later);
            let first = decision_at(now);
            let lasts = lasts_until(&request, &entry, first, now);
            if let (Decision::Fresh(aged), Some(until)) = (first, lasts)
                && then < until
            {
                let age = aged.age + then.duration_since(now);
                prop_assert_eq!(decision_at(then), Decision::Fresh(Aged { age, ..aged }));
            }
        }
    }

    #[test]
    fn an_answer_lasts_while_it_is_fresh_but_not_for_long_and_not_for_a_client_with_wishes() {
        let (none, wish) = (HeaderMap::new(), headers(&[("pragma", "x")]));
        let fresh = |ttl: i64| {
            Decision::Fresh(Aged {
                age: SignedDuration::from_secs(5),
                lifetime: SignedDuration::from_millis(5_000 + ttl),
            })
        };
        let lasts = |headers, decision| {
            let request = Request {
                method: &Method::GET,
                headers,
            };
            let entry = stored(&[("date", date(0))]);
            lasts_until(&request, &entry, decision, at(0))
                .map(|until| until.duration_since(at(0)).as_millis())
        };
        assert_eq!(lasts(&none, fresh(1_500)), Some(1_500));
        assert_eq!(lasts(&none, fresh(3_600_000)), Some(REMEMBERED.as_millis()));
        assert_eq!(lasts(&none, fresh(0)), None);
        assert_eq!(lasts(&wish, fresh(1_500)), None);
    }
}
