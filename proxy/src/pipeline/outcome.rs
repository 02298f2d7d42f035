//! From what a flight brought to the answer of one request: what it downloads, what was validated, or what stands in
//! when the origin fails.

use std::sync::Arc;

use http::Version;
use jiff::SignedDuration;
use kato_shared::Digest;

use super::{
    Answer, Ask, Filling, Pipeline, Shared,
    flight::{Led, LedOutcome},
    groups::is_document,
    present::{Source, present},
    retrieve::{Round, Selected, whole_seconds},
    shared::Whole,
};
use crate::{
    cache_status::{CacheStatus, Forward},
    metrics::{Event, Outcome},
    origin::OriginError,
    policy::{self, Aged, Failure, FailureAnswer, Overrides, Request, StaleRefusal, headers as fields},
    registry, respond,
};

impl Pipeline {
    /// A HEAD that the store cannot answer; what is stored stands in where the origin cannot.
    pub(super) async fn head(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        why: Forward,
        overrides: &Overrides,
    ) -> Round {
        let error = match self.ask_head(ask, why).await {
            Ok(answer) => return Round::Done(Box::new(answer)),
            Err(error) => error,
        };
        let failed = (Failure::Unreachable, tried(&error));
        if let Some(round) = self.stand_in(ask, selected, failed, overrides).await {
            return round;
        }
        let status = CacheStatus::forwarded(why).detail(&error);
        done(
            self.unanswered(ask, selected, &error, overrides),
            status,
            Outcome::Failed,
            Version::HTTP_11,
        )
    }

    /// What the request that began a download gets.
    pub(super) async fn led(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        why: Forward,
        overrides: &Overrides,
        led: Led,
    ) -> Round {
        let (request, status) = (&ask.request(), CacheStatus::forwarded(why));
        match led.outcome {
            LedOutcome::Shared(shared, reader, for_first) => match &*shared {
                Shared::Filling(filling) => {
                    if let Some(answer) = Box::pin(self.side_trip(ask, filling)).await {
                        return Round::Done(Box::new(answer));
                    }
                    let origin_status = filling.head.status;
                    let head = for_first.as_deref().unwrap_or(&filling.head);
                    let source = Source::Filling(&filling.fill, reader);
                    let response = present(request, head, source, None);
                    let outcome = if selected.is_some() {
                        Outcome::Stale
                    } else {
                        Outcome::Miss
                    };
                    done(
                        response,
                        status.of_filling(filling).fwd_status_if(origin_status),
                        outcome,
                        filling.version,
                    )
                }
                Shared::Whole(whole) => {
                    self.note_whole(ask, whole);
                    let head = for_first.as_deref().unwrap_or(&whole.head);
                    let source = Source::Stored(whole.body.clone().into());
                    let response = present(request, head, source, None);
                    let outcome = if selected.is_some() {
                        Outcome::Stale
                    } else {
                        Outcome::Miss
                    };
                    let status = status.stored(true).fwd_status_if(whole.head.status);
                    done(response, status, outcome, whole.version)
                }
                Shared::HandedOn { whole, reason } => {
                    let head = for_first.as_deref().unwrap_or(&whole.head);
                    let source = Source::Stored(whole.body.clone().into());
                    let response = present(request, head, source, None);
                    let status = status.fwd_status_if(head.status).detail(reason);
                    done(response, status, Outcome::Miss, whole.version)
                }
                other @ (Shared::Validated { .. }
                | Shared::Failed { .. }
                | Shared::Mismatch { .. }
                | Shared::Withheld
                | Shared::Overloaded { .. }) => {
                    Box::pin(self.follow_other(ask, selected, status, overrides, other)).await
                }
            },
            LedOutcome::Private(passing, reason) => {
                let (head, version) = (passing.head, passing.version);
                let source = Source::Passing(Box::new(passing.body));
                let response = present(request, &head, source, None);
                done(response, status.detail(reason), Outcome::Miss, version)
            }
        }
    }

    /// What a request gets that joined somebody else's download.
    pub(super) async fn follow(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        why: Forward,
        overrides: &Overrides,
        shared: &Arc<Shared>,
    ) -> Round {
        let status = CacheStatus::forwarded(why).collapsed(true);
        if shared
            .new_head()
            .is_some_and(|(head, _)| !head.selecting.matches(&ask.headers))
        {
            return Round::Again;
        }
        match &**shared {
            Shared::Filling(filling) => {
                if let Some(answer) = Box::pin(self.side_trip(ask, filling)).await {
                    return Round::Done(Box::new(answer));
                }
                let Some(reader) = filling.fill.reader(0) else {
                    return Round::Alone(why);
                };
                let age = policy::age::current_age(&filling.head, self.0.clock.now());
                let response = present(
                    &ask.request(),
                    &filling.head,
                    Source::Filling(&filling.fill, Some(reader)),
                    Some(age),
                );
                let status = match filling.not_stored {
                    Some(trouble) => status.detail(trouble.label()),
                    None => status,
                };
                done(response, status, Outcome::Collapsed, filling.version)
            }
            Shared::Whole(whole) => {
                self.note_whole(ask, whole);
                let age = policy::age::current_age(&whole.head, self.0.clock.now());
                let source = Source::Stored(whole.body.clone().into());
                let response = present(&ask.request(), &whole.head, source, Some(age));
                done(response, status, Outcome::Collapsed, whole.version)
            }
            // What an anonymous request was told is no answer to one that says who asks.
            Shared::HandedOn { .. } if fields::has_credentials(&ask.headers) => Round::Alone(why),
            Shared::HandedOn { whole, reason } => {
                let source = Source::Stored(whole.body.clone().into());
                let response = present(&ask.request(), &whole.head, source, None);
                let status = status.fwd_status_if(whole.head.status).detail(reason);
                done(response, status, Outcome::Collapsed, whole.version)
            }
            other @ (Shared::Validated { .. }
            | Shared::Failed { .. }
            | Shared::Mismatch { .. }
            | Shared::Withheld
            | Shared::Overloaded { .. }) => {
                Box::pin(self.follow_other(ask, selected, status, overrides, other)).await
            }
        }
    }

    async fn follow_other(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        status: CacheStatus,
        overrides: &Overrides,
        shared: &Shared,
    ) -> Round {
        match shared {
            Shared::Filling(_) | Shared::Whole(_) | Shared::HandedOn { .. } => Round::Again,
            Shared::Mismatch { error } => {
                // A name whose new content is not what was announced: what is held is still meant, as far as anybody knows.
                let failed = (Failure::Unreachable, Some(CacheStatus::forwarded(Forward::Stale)));
                if ask.known.is_none()
                    && let Some(round) = self.stand_in(ask, selected, failed, overrides).await
                {
                    return round;
                }
                let response = respond::problem(&respond::mismatch(ask.target.key.uri(), error));
                done(
                    response,
                    status.detail("digest-mismatch"),
                    Outcome::Failed,
                    Version::HTTP_11,
                )
            }
            Shared::Validated { head, content } => {
                if !head.selecting.matches(&ask.headers) {
                    return Round::Again;
                }
                let digest = content.digest;
                let Some(content) = self.0.store.content(*content).await else {
                    self.0.metrics.note(Event::Healed);
                    return Round::Again;
                };
                self.note_seen(ask.client, &ask.target, digest);
                let age = policy::age::current_age(head, self.0.clock.now());
                let response = present(&ask.request(), head, Source::Stored(content), Some(age));
                let status = status.fwd_status(http::StatusCode::NOT_MODIFIED);
                done(response, status, Outcome::Hit, Version::HTTP_11)
            }
            Shared::Failed { error } => {
                let failed = (Failure::Unreachable, tried(error));
                if let Some(round) = self.stand_in(ask, selected, failed, overrides).await {
                    return round;
                }
                let response = self.unanswered(ask, selected, error, overrides);
                done(response, status.detail(error), Outcome::Failed, Version::HTTP_11)
            }
            Shared::Withheld => self.withheld(ask, selected).await,
            Shared::Overloaded { status: code } => {
                let asked = Some(CacheStatus::forwarded(Forward::Stale).fwd_status(*code));
                let failed = (Failure::Status(*code), asked);
                match self.stand_in(ask, selected, failed, overrides).await {
                    Some(round) => round,
                    None => Round::Alone(Forward::Stale),
                }
            }
        }
    }

    /// The error where the upstream gave no answer and nothing may stand in.
    pub(super) fn unanswered(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        error: &OriginError,
        overrides: &Overrides,
    ) -> http::Response<crate::deliver::Payload> {
        let at = (overrides, self.0.clock.now());
        let refused =
            selected.map(|one| policy::on_failure(&ask.request(), one.head(), Failure::Unreachable, at));
        if refused == Some(FailureAnswer::PassFailure(StaleRefusal::Forbidden)) {
            return respond::not_validated(ask.target.key.uri(), error);
        }
        respond::no_upstream(ask.target.key.uri(), error)
    }

    /// The stored document, as a new one has to wait for its group.
    async fn withheld(&self, ask: &Ask, selected: Option<&Selected>) -> Round {
        let Some(selected) = selected else {
            return Round::Again;
        };
        let aged = Aged {
            age: policy::age::current_age(selected.head(), self.0.clock.now()),
            lifetime: SignedDuration::ZERO,
        };
        self.0.metrics.note(Event::StaleServed);
        self.hit(ask, selected, aged, Some("generation-withheld")).await
    }

    /// Notes which document of a group the client is given, if it is one.
    fn note_whole(&self, ask: &Ask, whole: &Whole) {
        if is_document(&ask.target) {
            self.note_seen(ask.client, &ask.target, Digest::of(&whole.body));
        }
    }

    /// The stored response, if it may stand in for an origin that fails. With `asked`, what to say where the origin was asked:
    /// only an answer for which nothing was forwarded is a `hit` (RFC 9211 §2.1).
    pub(super) async fn stand_in(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        (failure, asked): (Failure, Option<CacheStatus>),
        overrides: &Overrides,
    ) -> Option<Round> {
        let selected = selected?;
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        let now = self.0.clock.now();
        match policy::on_failure(&request, selected.head(), failure, (overrides, now)) {
            FailureAnswer::ServeStale(aged) => {
                self.0.metrics.note(Event::StaleServed);
                let mut round = self.hit(ask, selected, aged, Some("stale-if-error")).await;
                if let Round::Done(answer) = &mut round {
                    registry::warn(&ask.target, failure, &mut answer.response);
                }
                if let (Round::Done(answer), Some(asked)) = (&mut round, asked) {
                    answer.status = asked.ttl(whole_seconds(aged.ttl())).detail("stale-if-error");
                }
                Some(round)
            }
            FailureAnswer::PassFailure(refusal) => {
                tracing::debug!(
                    url = %ask.target.key.shown(),
                    ?refusal,
                    "the stored response may not stand in"
                );
                None
            }
        }
    }
}

/// What is said where the origin was asked and gave no answer; `None` where it was not asked, since it did not answer a moment
/// ago either.
pub(super) fn tried(error: &OriginError) -> Option<CacheStatus> {
    (!matches!(error, OriginError::Down { .. })).then(|| CacheStatus::forwarded(Forward::Stale))
}

fn done(
    response: http::Response<crate::deliver::Payload>,
    status: CacheStatus,
    outcome: Outcome,
    received: Version,
) -> Round {
    Round::Done(Box::new(Answer {
        response,
        status,
        outcome,
        received,
    }))
}

/// Whether what is on its way is stored, and why not. Before its end nobody knows: it may break off, or be other content than its URL
/// promises. "If the parameter is absent, … no information" (RFC 9211 §2.5 leaves it out where it was not stored or is not known).
trait OfFilling {
    fn of_filling(self, filling: &Filling) -> Self;
}

impl OfFilling for CacheStatus {
    fn of_filling(self, filling: &Filling) -> Self {
        match filling.not_stored {
            Some(trouble) => self.bypassed().detail(trouble.label()),
            None => self.stored(filling.fill.is_kept()),
        }
    }
}

/// `fwd-status` is for a status that differs from the one sent; 200 is what one expects.
trait FwdStatusIf {
    fn fwd_status_if(self, status: http::StatusCode) -> Self;
}

impl FwdStatusIf for CacheStatus {
    fn fwd_status_if(self, status: http::StatusCode) -> Self {
        if status == http::StatusCode::OK {
            self
        } else {
            self.fwd_status(status)
        }
    }
}
