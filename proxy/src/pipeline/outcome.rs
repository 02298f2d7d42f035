//! From what a flight brought to the answer of one request: what it downloads, what was validated, or what stands in
//! when the origin fails.

use std::sync::Arc;

use http::Version;
use tokio::time::Instant;

use super::{
    Answer, Ask, Filling, Pipeline, Shared,
    fetch::{Led, LedOutcome},
    present::{Source, present},
    retrieve::{Round, Selected},
};
use crate::{
    cache_status::{CacheStatus, Forward},
    metrics::{Event, Outcome},
    policy::{self, Failure, FailureAnswer, Overrides, Request},
    respond,
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
        let error = match self.try_alone(ask, why).await {
            Ok(answer) => return Round::Done(Box::new(answer)),
            Err(error) => error,
        };
        if let Some(round) = self
            .stand_in(ask, selected, Failure::Unreachable, overrides)
            .await
        {
            return round;
        }
        let problem = respond::upstream_failed(ask.target.key.uri(), &error);
        let status = CacheStatus::forwarded(why).detail(&error);
        done(
            respond::problem(&problem),
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
        let status = CacheStatus::forwarded(why);
        match led.outcome {
            LedOutcome::Shared(shared, reader, for_first) => match &*shared {
                Shared::Filling(filling) => {
                    if let Some(answer) = self.side_trip(ask, filling).await {
                        return Round::Done(Box::new(answer));
                    }
                    let origin_status = filling.head.status;
                    let response = present(
                        ask,
                        for_first.as_deref().unwrap_or(&filling.head),
                        Source::Filling(&filling.fill, reader),
                        None,
                    );
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
                other @ (Shared::Validated { .. } | Shared::Failed { .. } | Shared::Overloaded { .. }) => {
                    self.follow_other(ask, selected, status, overrides, other).await
                }
            },
            LedOutcome::Private(passing, reason) => {
                self.0
                    .private_keys
                    .insert(&ask.target.key.to_string(), Instant::now());
                let (head, version) = (passing.head, passing.version);
                let response = present(ask, &head, Source::Passing(Box::new(passing.body)), None);
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
        match &**shared {
            Shared::Filling(filling) if !filling.head.selecting.matches(&ask.headers) => Round::Again,
            Shared::Filling(filling) => {
                if let Some(answer) = self.side_trip(ask, filling).await {
                    return Round::Done(Box::new(answer));
                }
                let Some(reader) = filling.fill.reader(0) else {
                    return Round::Alone(why);
                };
                let age = policy::age::current_age(&filling.head, self.0.clock.now());
                let response = present(
                    ask,
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
            other @ (Shared::Validated { .. } | Shared::Failed { .. } | Shared::Overloaded { .. }) => {
                self.follow_other(ask, selected, status, overrides, other).await
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
            Shared::Filling(_) => Round::Again,
            Shared::Validated { head, content } => {
                if !head.selecting.matches(&ask.headers) {
                    return Round::Again;
                }
                let Some(content) = self.0.store.content(*content).await else {
                    self.0.metrics.note(Event::Healed);
                    return Round::Again;
                };
                let age = policy::age::current_age(head, self.0.clock.now());
                let response = present(ask, head, Source::Stored(content), Some(age));
                let status = status.fwd_status(http::StatusCode::NOT_MODIFIED);
                done(response, status, Outcome::Hit, Version::HTTP_11)
            }
            Shared::Failed { error } => {
                if let Some(round) = self
                    .stand_in(ask, selected, Failure::Unreachable, overrides)
                    .await
                {
                    return round;
                }
                let problem = respond::upstream_failed(ask.target.key.uri(), error);
                let response = respond::problem(&problem);
                done(response, status.detail(error), Outcome::Failed, Version::HTTP_11)
            }
            Shared::Overloaded { status: code } => {
                match self
                    .stand_in(ask, selected, Failure::Status(*code), overrides)
                    .await
                {
                    Some(round) => round,
                    None => Round::Alone(Forward::Stale),
                }
            }
        }
    }

    /// Offline: what is stored, if it may stand in, else 504.
    pub(super) async fn unreachable(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        overrides: &Overrides,
    ) -> Round {
        if let Some(round) = self
            .stand_in(ask, selected, Failure::Unreachable, overrides)
            .await
        {
            return round;
        }
        let response = respond::problem(&respond::offline(ask.target.key.uri()));
        Round::Done(Box::new(Answer::generated(response, Outcome::Failed, "offline")))
    }

    /// The stored response, if it may stand in for an origin that fails.
    async fn stand_in(
        &self,
        ask: &Ask,
        selected: Option<&Selected>,
        failure: Failure,
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
                Some(self.hit(ask, selected, aged, Some("stale-if-error")).await)
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

/// Whether what is on its way is stored, and why not.
trait OfFilling {
    fn of_filling(self, filling: &Filling) -> Self;
}

impl OfFilling for CacheStatus {
    fn of_filling(self, filling: &Filling) -> Self {
        match filling.not_stored {
            Some(trouble) => self.bypassed().detail(trouble.label()),
            None => self.stored(true),
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
