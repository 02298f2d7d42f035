//! Fresh hits for the front (see [`crate::front`]): the same layers as for every other request, as far as the store alone can
//! answer. Whatever needs an origin, a refusal or a wait for a download is none of its business and gets `None`.
//!
//! Nothing is decided here: `admit`, `judge`, `found` and `finish` are what the ordinary way goes through.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Method, request, response};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{
    Pipeline,
    retrieve::{found, judge},
    shown_if_wanted,
};
use crate::{
    deliver::{Payload, Record},
    front::{Prepared, Ready},
    metrics::Event,
    policy::{Aged, Decision, Request, StalePermission},
    recent::Held,
    route::{Route, Target},
    store::{Content, Responses},
};

/// An answer from the store, ready to be written.
#[derive(Debug)]
pub struct AtHand {
    /// Status and fields, complete.
    pub head: response::Parts,
    /// Nothing, bytes in memory, or part of a file.
    pub payload: Payload,
    /// Its entry in the access log.
    pub record: Record,
    /// How long another request with the same head gets the same answer.
    pub lasting: Option<Lasting>,
}

/// Why and until when an answer is good for another request with the same head.
#[derive(Debug)]
pub struct Lasting {
    /// It was made at this time, and is good from then on,
    pub(crate) from: Timestamp,
    /// before this time, when `Age`, the time left or the decision itself changes,
    pub(crate) until: Timestamp,
    /// while this is what the index says,
    pub(crate) entry: Responses,
    /// and while this body is held, if it has one.
    pub(crate) body: Option<Arc<Held<Bytes>>>,
    /// What was asked for.
    pub(crate) target: Arc<Target>,
}

impl Pipeline {
    /// The answer to a GET or HEAD without content, if the store has one that may be sent as it is.
    pub async fn at_hand(&self, asked: &request::Parts, client: IpAddr, started: Instant) -> Option<AtHand> {
        if !self.0.settings.access.allows(client) || !matches!(asked.method, Method::GET | Method::HEAD) {
            return None;
        }
        let line = (&asked.method, &asked.uri, asked.version);
        let Ok(Route::Target(target)) = self.admit(line, &asked.headers) else {
            return None;
        };
        let key = target.key.as_str();
        self.settled(key).await;
        let entry = self.0.store.lookup(key).await;
        let request = Request {
            method: &asked.method,
            headers: &asked.headers,
        };
        let overrides = target.upstream.overrides(&target.path);
        let now = self.0.clock.now();
        let (decision, selected) = judge(&request, &target, &entry, (&overrides, now));
        let (aged, detail) = match decision {
            Decision::Fresh(aged) => (aged, None),
            Decision::StaleServable {
                aged,
                permission: StalePermission::MaxStale,
            } => (aged, Some("stale")),
            _ => return None,
        };
        let selected = selected?;
        let Some(content) = self.0.store.content(selected.content()).await else {
            self.0.metrics.note(Event::Healed);
            return None;
        };
        let held = match &content {
            Content::Memory(held) => Some(Arc::clone(held)),
            Content::File { .. } => None,
        };
        let answer = found(&request, &selected, content, (aged, detail));
        let url = self.0.metrics.url(target.key.uri());
        let about = (url, shown_if_wanted(&asked.uri));
        let record = self.record(&answer, (asked.method.clone(), client), about, started);
        let (head, payload, record) = self.finish(answer, record);
        let body = match &payload {
            Payload::Empty => Some(None),
            Payload::Memory(bytes) => held.filter(|held| held.len() == bytes.len()).map(Some),
            Payload::Stored(_) | Payload::Filling { .. } | Payload::Passing { .. } | Payload::Parts(_) => {
                None
            }
        };
        let lasting = body.and_then(|body| {
            Some(Lasting {
                from: now,
                until: same_until(aged, now)?,
                entry,
                body,
                target,
            })
        });
        Some(AtHand {
            head,
            payload,
            record,
            lasting,
        })
    }

    /// The answer that a request with exactly these bytes got a moment ago and would get again.
    pub fn prepared(&self, head: &[u8], client: IpAddr, started: Instant) -> Option<Ready> {
        if !self.0.settings.access.allows(client) {
            return None;
        }
        let prepared = self.0.prepared.get(head, self.0.clock.now())?;
        if self.0.collapse.settling(prepared.key()).is_some() {
            return None;
        }
        let ready = prepared.ready(client, started, &self.0.metrics)?;
        self.0.metrics.answered(ready.record.outcome, started.elapsed());
        Some(ready)
    }

    /// Where answers are kept for [`Self::prepared`].
    pub fn to_prepare(&self) -> &Prepared {
        &self.0.prepared
    }
}

/// The time before which neither the whole seconds of age, of the time left and of the clock change. Every bound that a
/// decision compares them with is in whole seconds, or is the lifetime itself.
fn same_until(aged: Aged, now: Timestamp) -> Option<Timestamp> {
    let second = 1_000_000_000_i32;
    let to_next = |nanos: i32| second - nanos.rem_euclid(second);
    let ttl = aged.ttl().subsec_nanos().rem_euclid(second);
    let left = to_next(aged.age.subsec_nanos())
        .min(ttl)
        .min(to_next(now.subsec_nanosecond()));
    let until = now.checked_add(SignedDuration::from_nanos(left.into())).ok()?;
    (until > now).then_some(until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lasts_until_the_next_whole_second_of_anything_it_says() {
        let now = Timestamp::new(1_000, 250_000_000).unwrap();
        let aged = |age: i64, lifetime: i64| Aged {
            age: SignedDuration::from_millis(age),
            lifetime: SignedDuration::from_millis(lifetime),
        };
        for (age, lifetime, lasts) in [
            (10_600, 60_000, Some(400)), // the age is 11 s then
            (10_100, 60_000, Some(750)), // the clock moves on, and with it a Date of ours
            (10_100, 60_300, Some(200)), // 50 s are left until then
            (60_100, 60_000, Some(750)), // stale, and permitted to be
            (10_000, 60_000, None),      // at once
        ] {
            let until = lasts.map(|millis| now + SignedDuration::from_millis(millis));
            assert_eq!(same_until(aged(age, lifetime), now), until, "{age} of {lifetime}");
        }
    }
}
