//! GET and HEAD: what the store has, whether it may be sent, and who asks the origin if not.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Version};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Answer, Ask, Pipeline, Shared,
    fetch::{Led, LedOutcome},
    present::{Source, present},
};
use crate::{
    cache_status::{CacheStatus, Forward},
    fill::collapse::{Joined, State},
    metrics::{Event, Outcome},
    policy::{
        self, Aged, Decision, Failure, FailureAnswer, Lookup, Overrides, Request, StalePermission, Stored,
    },
    respond,
    store::{ContentRef, Responses},
};

/// How often a request joins again after a flight that it could not use. Each round means that somebody else's
/// download ended in between; then the request goes alone.
const ROUNDS: usize = 4;

/// The stored response that a request selects.
#[derive(Debug, Clone)]
pub(super) struct Selected {
    pub(super) entry: Responses,
    pub(super) index: usize,
}

impl Selected {
    pub(super) fn head(&self) -> &Stored {
        &self.entry.heads()[self.index]
    }

    pub(super) fn content(&self) -> ContentRef {
        self.entry.content(self.index)
    }
}

/// What a round came to.
enum Round {
    Done(Box<Answer>),
    Again,
    Alone(Forward),
}

impl Pipeline {
    pub(super) async fn retrieve(&self, ask: Arc<Ask>) -> Answer {
        let key = ask.target.key.to_string();
        let overrides = ask.target.upstream.overrides(&ask.target.path);
        let mut why = Forward::UriMiss;
        for _ in 0..ROUNDS {
            let entry = self.0.store.lookup(&key).await;
            match self.round(&ask, &key, entry, &overrides).await {
                Round::Done(answer) => return *answer,
                Round::Again => {}
                Round::Alone(reason) => {
                    why = reason;
                    break;
                }
            }
        }
        self.alone(&ask, why).await
    }

    async fn round(&self, ask: &Arc<Ask>, key: &str, entry: Responses, overrides: &Overrides) -> Round {
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        let found = policy::select(&request, entry.heads());
        let selected = match found {
            Lookup::Found { index, .. } => Some(Selected {
                entry: Arc::clone(&entry),
                index,
            }),
            Lookup::Absent | Lookup::NoVariant => None,
        };
        let verdict = policy::decide(&request, found, overrides, self.0.clock.now());
        for deviation in &verdict.deviations {
            tracing::debug!(url = ask.target.key.uri(), %deviation, "the settings changed a caching decision");
        }
        let url = ask.target.key.uri();
        match (verdict.decision, &selected) {
            (Decision::Fresh(aged), Some(selected)) => self.hit(ask, selected, aged, None).await,
            (Decision::StaleServable { aged, permission }, Some(selected)) => {
                if permission == StalePermission::WhileRevalidate && !self.0.settings.offline {
                    self.validate_in_background(ask, key, &entry, Some(selected));
                }
                self.hit(ask, selected, aged, Some("stale")).await
            }
            (Decision::GatewayTimeout, _) => Round::Done(Box::new(Answer::generated(
                respond::problem(&respond::only_if_cached(url)),
                Outcome::Failed,
                "only-if-cached",
            ))),
            (decision, selected) => {
                let why = Forward::of(&decision).unwrap_or(Forward::UriMiss);
                if self.0.settings.offline {
                    return self.unreachable(ask, selected.as_ref(), overrides).await;
                }
                self.ask_origin(ask, key, (&entry, selected.as_ref()), why, overrides)
                    .await
            }
        }
    }

    /// Answers from the store; content that turns out to be missing is a miss, and the index has forgotten it by then.
    async fn hit(&self, ask: &Ask, selected: &Selected, aged: Aged, detail: Option<&str>) -> Round {
        let Some(content) = self.0.store.content(selected.content()).await else {
            self.0.metrics.note(Event::Healed);
            return Round::Again;
        };
        let mut status = CacheStatus::hit().ttl(aged.ttl());
        if let Some(detail) = detail {
            status = status.detail(detail);
        }
        let response = present(ask, selected.head(), Source::Stored(content), Some(aged.age));
        Round::Done(Box::new(Answer {
            response,
            status,
            outcome: Outcome::Hit,
            received: Version::HTTP_11,
        }))
    }

    async fn ask_origin(
        &self,
        ask: &Arc<Ask>,
        key: &str,
        (entry, selected): (&Responses, Option<&Selected>),
        why: Forward,
        overrides: &Overrides,
    ) -> Round {
        // A HEAD has no content that could fill the store: it is asked as it is, for this client.
        if ask.method == Method::HEAD {
            return self.head(ask, selected, why, overrides).await;
        }
        if self.0.private_keys.contains(key, Instant::now()) {
            return Round::Alone(why);
        }
        match self.0.collapse.join(key, &ask.headers) {
            Joined::Lead(permit) => {
                let (led, outcome) = oneshot::channel();
                self.start_fetch(permit, Arc::clone(ask), entry, selected, Some(led));
                match outcome.await {
                    Ok(led) => self.led(ask, selected, why, overrides, led).await,
                    // The task ended without a word: it panicked or the process is stopping.
                    Err(_gone) => Round::Again,
                }
            }
            Joined::Follow(mut joiner) => match joiner.outcome().await {
                // Received, and only not stored yet: from here on it is a stored response, and one that may not be sent
                // without validation is not sent to those who came after its end.
                State::Shared(shared) if !self.is_joinable(ask, &shared, overrides) => {
                    joiner.ended().await;
                    Round::Again
                }
                State::Shared(shared) => self.follow(ask, selected, why, overrides, &shared).await,
                State::Private => Round::Alone(why),
                State::Abandoned | State::Waiting => Round::Again,
            },
        }
    }

    /// A HEAD that the store cannot answer; what is stored stands in where the origin cannot.
    async fn head(
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
    async fn led(
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
                        status.stored(filling.is_stored).fwd_status_if(origin_status),
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

    /// Whether a request that comes now may still have what the flight brings.
    fn is_joinable(&self, ask: &Ask, shared: &Shared, overrides: &Overrides) -> bool {
        let Shared::Filling(filling) = shared else {
            return true;
        };
        if filling.fill.progress().end.is_none() || !filling.head.selecting.matches(&ask.headers) {
            return true;
        }
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        let found = Lookup::Found {
            index: 0,
            stored: &filling.head,
        };
        let verdict = policy::decide(&request, found, overrides, self.0.clock.now());
        matches!(verdict.decision, Decision::Fresh(_))
    }

    /// What a request gets that joined somebody else's download.
    async fn follow(
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
    async fn unreachable(&self, ask: &Ask, selected: Option<&Selected>, overrides: &Overrides) -> Round {
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
                    url = ask.target.key.uri(),
                    ?refusal,
                    "the stored response may not stand in"
                );
                None
            }
        }
    }

    fn validate_in_background(
        &self,
        ask: &Arc<Ask>,
        key: &str,
        entry: &Responses,
        selected: Option<&Selected>,
    ) {
        if let Joined::Lead(permit) = self.0.collapse.join(key, &ask.headers) {
            self.start_fetch(permit, Arc::clone(ask), entry, selected, None);
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

/// Keys whose last response was not to be shared: their requests do not wait for one another.
#[derive(Debug, Default)]
pub(super) struct PrivateKeys(Mutex<HashMap<String, Instant>>);

impl PrivateKeys {
    /// How long a key is remembered. Short: while it is, a response that may be stored is not.
    const LIFETIME: Duration = Duration::from_secs(10);
    /// The most keys remembered.
    const LIMIT: usize = 10_000;

    fn contains(&self, key: &str, now: Instant) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(key).is_some_and(|since| now < *since + Self::LIFETIME)
    }

    fn insert(&self, key: &str, now: Instant) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= Self::LIMIT {
            keys.retain(|_, since| now < *since + Self::LIFETIME);
        }
        if keys.len() < Self::LIMIT {
            keys.insert(key.to_owned(), now);
        }
    }
}
