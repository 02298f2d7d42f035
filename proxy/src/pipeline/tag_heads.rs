//! HEAD about a tag of which nothing is held: one question for all who ask at the same time.
//!
//! A cluster that is told to run something asks about its tag from all nodes at once, and container clients ask by HEAD. Such a HEAD
//! brings no content that a download could share, so it is shared by itself: whoever comes while it is under way gets its answer.
//!
//! A question that its client gives up is asked by the next who waits. An error is for the client that has met it; the others ask
//! for themselves, and find what is known by then about an upstream that does not answer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use http::{HeaderMap, Method, Response, StatusCode, Version, header};
use tokio::sync::OnceCell;

use super::{Answer, Ask, Pipeline};
use crate::{
    cache_status::{CacheStatus, Forward},
    deliver::Payload,
    metrics::Outcome,
    origin::OriginError,
    policy::{cache_control::RequestDirectives, headers as fields},
};

/// The most keys before those are forgotten about which nobody asks any more.
const MANY: usize = 1024;

/// Questions under way, by key.
#[derive(Debug, Default)]
pub(super) struct TagHeads(Mutex<HashMap<String, Weak<Question>>>);

/// What came of one: nothing where the upstream did not answer.
type Question = OnceCell<Option<Told>>;

/// The head of an answer.
#[derive(Debug)]
struct Told {
    status: StatusCode,
    headers: HeaderMap,
    version: Version,
}

impl TagHeads {
    fn question(&self, key: &str) -> Arc<Question> {
        let mut all = self.lock();
        if let Some(question) = all.get(key).and_then(Weak::upgrade) {
            return question;
        }
        if all.len() >= MANY {
            all.retain(|_, question| question.strong_count() > 0);
        }
        let question = Arc::default();
        all.insert(key.to_owned(), Arc::downgrade(&question));
        question
    }

    /// Whoever asks from now on asks anew.
    fn answered(&self, key: &str) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Question>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pipeline {
    /// A HEAD that the store cannot answer, asked of the upstream; about tags once for all.
    pub(super) async fn ask_head(&self, ask: &Ask, why: Forward) -> Result<Answer, OriginError> {
        if !is_common(ask) {
            return self.try_alone(ask, why).await;
        }
        let (questions, key) = (&self.0.fills.tag_heads, ask.target.key.as_str());
        let question = questions.question(key);
        let mut own = None;
        let told = question
            .get_or_init(async || {
                let answered = self.try_alone(ask, why).await;
                questions.answered(key);
                let told = answered.as_ref().ok().map(Told::of);
                own = Some(answered);
                told
            })
            .await;
        match (own, told) {
            (Some(answered), _) => answered,
            (None, Some(told)) => Ok(told.answer(why)),
            (None, None) => self.try_alone(ask, why).await,
        }
    }
}

/// Whether the answer to `ask` is that to everybody else who asks about its tag.
fn is_common(ask: &Ask) -> bool {
    let conditions = [
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::RANGE,
    ];
    ask.method == Method::HEAD
        && ask.target.is_tag()
        && !fields::has_credentials(&ask.headers)
        && !conditions.iter().any(|name| ask.headers.contains_key(name))
        && !RequestDirectives::of(&ask.headers).no_store
}

impl Told {
    fn of(answer: &Answer) -> Self {
        Self {
            status: answer.response.status(),
            headers: answer.response.headers().clone(),
            version: answer.received,
        }
    }

    fn answer(&self, why: Forward) -> Answer {
        let mut response = Response::new(Payload::Empty);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        Answer {
            response,
            status: CacheStatus::forwarded(why)
                .fwd_status(self.status)
                .collapsed(true),
            outcome: Outcome::Bypass,
            received: self.version,
        }
    }
}
