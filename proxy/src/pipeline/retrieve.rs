//! GET and HEAD: what the store has, whether it may be sent, and who asks the origin if not.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, Method, Version, header, request};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Answer, Ask, Pipeline, Shared,
    door::{in_the_form_of_registries, is_error_at_the_door},
    present::{Source, present},
    private_keys::Audience,
};
use crate::{
    cache_status::{CacheStatus, Forward},
    ecosystem::{self, Known},
    fill::collapse::{Joined, State},
    metrics::{Event, Outcome},
    policy::{
        self, Absence, Aged, Decision, Lookup, Overrides, Request, StalePermission, Stored, headers as fields,
    },
    registry, repr_digest, respond,
    route::Target,
    store::{Content, ContentRef, Responses, StoredResponse},
};

/// How often a request joins again after a flight that it could not use. Each round means that somebody else's
/// download ended in between; then the request goes alone.
const ROUNDS: usize = 4;

/// How long a request waits for a download that has ended to be stored. Flushing takes milliseconds; on a disk that takes
/// longer, waiting would make the answer worse, and the request joins the download instead.
const SETTLING: Duration = Duration::from_secs(1);

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

    pub(super) fn response(&self) -> StoredResponse {
        self.entry.response(self.index)
    }
}

/// Takes away what a client shows of itself where the upstream is asked in the operator's name: it is not for the upstream, which would be asked
/// as somebody else, and every client gets what the operator's account may read.
///
/// Off-spec: RFC 9110 §11.6.2 has a proxy pass `Authorization` on. Here the operator has said whose account it is.
pub(super) fn keep_credentials_of_clients_back(target: &Target, headers: &mut HeaderMap) {
    if headers.contains_key(header::AUTHORIZATION) && target.is_asked_in_the_operators_name() {
        headers.remove(header::AUTHORIZATION);
    }
}

/// What a round came to.
pub(super) enum Round {
    Done(Box<Answer>),
    Again,
    Alone(Forward),
}

impl Pipeline {
    /// Answers a GET or HEAD about `target`.
    pub(super) async fn answer_retrieval(
        &self,
        mut parts: request::Parts,
        target: Arc<Target>,
        client: IpAddr,
    ) -> Answer {
        fields::strip_unkeyed(&mut parts.headers);
        let accepts = registry::prepare(&target, &mut parts.headers);
        self.note_manifest(&target);
        let ask = Ask {
            interim: self.interim(&parts.extensions),
            method: parts.method,
            headers: parts.headers,
            target: Arc::clone(&target),
            client,
            known: None,
        };
        let mut answer = self.retrieve(ask).await;
        registry::present(&target, accepts.as_ref(), &mut answer.response);
        if is_error_at_the_door(&target, &answer.response) {
            Box::pin(in_the_form_of_registries(&target, &mut answer.response)).await;
        }
        answer
    }

    pub(super) async fn retrieve(&self, mut ask: Ask) -> Answer {
        ask.known = self.known_in_advance(&ask).await;
        let ask = Arc::new(ask);
        let flight_key = ask.flight_key();
        let overrides = ask.target.upstream.overrides(&ask.target.path);
        let mut why = Forward::UriMiss;
        for _ in 0..ROUNDS {
            self.settled(&flight_key).await;
            let mut entry = self.open_to(&ask.target, self.lookup(&ask.target).await);
            if let Some(known) = ask.known {
                entry = Box::pin(self.of_known(&ask.target, entry, known)).await;
            }
            match self.round(&ask, &flight_key, entry, &overrides).await {
                Round::Done(answer) => return *answer,
                Round::Again => {}
                Round::Alone(reason) => {
                    why = reason;
                    break;
                }
            }
        }
        if self.0.settings.offline {
            return self.absent(&ask, Absence::Unknown);
        }
        Box::pin(self.alone(&ask, why, &overrides)).await
    }

    /// What is known about the content before it is looked for, after waiting for those who are about to say it.
    async fn known_in_advance(&self, ask: &Ask) -> Option<Known> {
        let target = &ask.target;
        if !target
            .owners()
            .any(|owner| ecosystem::is_taught(owner, &target.path))
        {
            return target.digest.map(|digest| Known::sha256(digest, None));
        }
        self.lessons_ended(target).await;
        let entry = self.lookup(target).await;
        self.known_for(ask.client, &ask.target, &entry).await
    }

    /// Waits for what is being stored: what was whole before this request came is a stored response to it, with all that
    /// follows from that.
    pub(super) async fn settled(&self, key: &str) {
        if let Some(joiner) = self.0.collapse.settling(key) {
            let _stored_or_slow = timeout(SETTLING, joiner.ended()).await;
        }
    }

    async fn round(&self, ask: &Arc<Ask>, key: &str, entry: Responses, overrides: &Overrides) -> Round {
        if self.0.settings.offline {
            return Box::pin(self.disconnected(ask, entry, overrides)).await;
        }
        let now = self.0.clock.now();
        let (decision, selected) = self.judge(&ask.request(), &ask.target, &entry, (overrides, now));
        let url = ask.target.key.uri();
        match (decision, &selected) {
            (Decision::Fresh(aged), Some(selected)) => self.hit(ask, selected, aged, None).await,
            (Decision::StaleServable { aged, permission }, Some(selected)) => {
                if permission == StalePermission::WhileRevalidate {
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
                self.ask_origin(ask, key, (&entry, selected.as_ref()), why, overrides)
                    .await
            }
        }
    }

    /// Answers from the store; content that turns out to be missing is a miss, and the index has forgotten it by then.
    pub(super) async fn hit(
        &self,
        ask: &Ask,
        selected: &Selected,
        aged: Aged,
        detail: Option<&str>,
    ) -> Round {
        let Some(content) = self.0.store.content(selected.content()).await else {
            self.0.metrics.note(Event::Healed);
            return Round::Again;
        };
        self.note_seen(ask.client, &ask.target, selected.content().digest);
        Round::Done(Box::new(found(&ask.request(), selected, content, (aged, detail))))
    }

    /// What is stored for `request`, and what to do with it; where the settings changed that, the log says so.
    pub(super) fn judge(
        &self,
        request: &Request<'_>,
        target: &Target,
        entry: &Responses,
        (overrides, now): (&Overrides, Timestamp),
    ) -> (Decision, Option<Selected>) {
        let found = policy::select(request, entry.heads());
        let selected = match found {
            Lookup::Found { index, .. } => Some(Selected {
                entry: Arc::clone(entry),
                index,
            }),
            Lookup::Absent | Lookup::NoVariant => None,
        };
        let verdict = policy::decide(request, found, overrides, now);
        for deviation in &verdict.deviations {
            self.deviates(target, deviation.rule(), deviation);
        }
        (verdict.decision, selected)
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
        // Except about a tag that is held: what all have to know is asked once for all.
        if ask.method == Method::HEAD && !(ask.target.is_tag() && selected.is_some()) {
            return Box::pin(self.head(ask, selected, why, overrides)).await;
        }
        // "no-store … for this request" (RFC 9111 §5.2.1.5): it neither leads others nor follows them.
        let is_apart = policy::cache_control::RequestDirectives::of(&ask.headers).no_store;
        let private = &self.0.private_keys;
        if is_apart || private.contains(ask.target.key.as_str(), &ask.headers, Instant::now()) {
            return Round::Alone(why);
        }
        if let Some(answer) = self.mismatched(ask) {
            return Round::Done(Box::new(answer));
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
            Joined::Follow(mut joiner) => match self.waited(joiner.outcome()).await {
                // Received, and only not stored yet: from here on it is a stored response, and one that may not be sent
                // without validation is not sent to those who came after its end.
                State::Shared(shared) if !self.is_joinable(ask, &shared, overrides) => {
                    joiner.ended().await;
                    Round::Again
                }
                State::Shared(shared) => self.follow(ask, selected, why, overrides, &shared).await,
                State::Private => Round::Alone(why),
                State::Personal if Audience::Credentialed.includes(&ask.headers) => Round::Alone(why),
                State::Personal | State::Abandoned | State::Waiting => Round::Again,
            },
        }
    }

    /// `wait`, measured.
    async fn waited<T>(&self, wait: impl Future<Output = T>) -> T {
        let since = Instant::now();
        let outcome = wait.await;
        self.0.metrics.joined(since.elapsed());
        outcome
    }

    /// Whether a request that comes now may still have what the flight brings.
    fn is_joinable(&self, ask: &Ask, shared: &Shared, overrides: &Overrides) -> bool {
        if matches!(shared, Shared::Filling(filling) if filling.fill.has_failed()) {
            return false;
        }
        let Some((head, is_received)) = shared.new_head() else {
            return true;
        };
        if !is_received || !head.selecting.matches(&ask.headers) {
            return true;
        }
        let request = Request {
            method: &ask.method,
            headers: &ask.headers,
        };
        let found = Lookup::Found {
            index: 0,
            stored: head,
        };
        let verdict = policy::decide(&request, found, overrides, self.0.clock.now());
        matches!(verdict.decision, Decision::Fresh(_))
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

/// The answer from the store; `detail` is for `Cache-Status`.
pub(super) fn found(
    request: &Request<'_>,
    selected: &Selected,
    content: Content,
    (aged, detail): (Aged, Option<&str>),
) -> Answer {
    let mut status = CacheStatus::hit().ttl(whole_seconds(aged.ttl()));
    if let Some(detail) = detail {
        status = status.detail(detail);
    }
    let mut response = present(request, selected.head(), Source::Stored(content), Some(aged.age));
    // What is stored is named by the digest of the representation: whoever wants to know it need not read it (RFC 9530 §4).
    if request.headers.contains_key(repr_digest::WANTED) {
        let fields = response.headers_mut();
        fields
            .entry(repr_digest::FIELD)
            .or_insert_with(|| repr_digest::value(&selected.content().digest));
    }
    Answer {
        response,
        status,
        outcome: Outcome::Hit,
        received: Version::HTTP_11,
    }
}

/// Rounded down, so that what has been stale for half a second shows a negative number.
pub(super) fn whole_seconds(ttl: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(ttl.as_secs() - i64::from(ttl.subsec_nanos() < 0))
}
