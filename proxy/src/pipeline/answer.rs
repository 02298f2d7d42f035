//! An answer on its way out: what is said about it, its entry in the access log, and the fields that every answer gets.

use std::{net::IpAddr, sync::Arc};

use http::{Method, Request, Response, Version, header, response};
use hyper::body::Incoming;
use kato_shared::redact;
use tokio::time::Instant;
use url::Url;

use super::Pipeline;
use crate::{
    admission::Slot,
    cache_status::CacheStatus,
    deliver::{Payload, Record},
    metrics::{Counted, Outcome},
    policy::headers as fields,
};

/// A request with the content that is still to be read, if it has any.
pub type Asked = Request<Option<Incoming>>;

/// An answer as it is sent.
#[derive(Debug)]
pub struct Answered {
    /// Status and fields, complete.
    pub head: response::Parts,
    /// The body.
    pub payload: Payload,
    /// Its entry in the access log.
    pub record: Record,
    /// Its place among the requests that are being answered; a refused one has none.
    pub slot: Option<Slot>,
}

/// An answer and what is to be said about it.
pub(super) struct Answer {
    pub(super) response: Response<Payload>,
    pub(super) status: CacheStatus,
    pub(super) outcome: Outcome,
    /// The HTTP version in which the upstream sent it; ours for what we made.
    pub(super) received: Version,
}

impl Answer {
    /// An answer of our own making.
    pub(super) fn generated(response: Response<Payload>, outcome: Outcome, detail: &str) -> Self {
        Self {
            response,
            status: CacheStatus::generated().detail(detail),
            outcome,
            received: Version::HTTP_11,
        }
    }
}

impl Pipeline {
    /// Counts an answer whose head is ready, and begins its entry in the access log.
    pub(super) fn record(
        &self,
        answer: &Answer,
        (method, client): (Method, IpAddr),
        (counted, target): (Counted, Arc<str>),
        started: Instant,
    ) -> Record {
        self.0.metrics.answered(answer.outcome, started.elapsed());
        Record {
            method,
            target,
            client,
            counted,
            in_flight: self.0.metrics.in_flight(),
            started,
            outcome: answer.outcome,
            status: answer.response.status(),
            sent: 0,
            is_complete: false,
            metrics: self.0.metrics.clone(),
        }
    }

    /// The head and the payload as they are sent.
    pub(super) fn finish(&self, answer: Answer, record: Record) -> (response::Parts, Payload, Record) {
        let (mut parts, payload) = answer.response.into_parts();
        fields::append_via(&mut parts.headers, answer.received, &self.0.pseudonym);
        answer.status.append_to(&mut parts.headers);
        fields::ensure_date(&mut parts.headers, self.0.clock.now());
        let is_head = record.method == Method::HEAD;
        let may_have_length =
            parts.status != http::StatusCode::NO_CONTENT && !parts.status.is_informational();
        if let Some(length) = payload.length()
            && may_have_length
            && !is_head
            && parts.status != http::StatusCode::NOT_MODIFIED
            && !(record.method == Method::CONNECT && parts.status.is_success())
        {
            parts.headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let payload = if is_head { Payload::Empty } else { payload };
        (parts, payload, record)
    }
}

/// The target for the access log, where somebody reads that.
pub(super) fn shown_if_wanted(uri: &http::Uri) -> Arc<str> {
    if Record::is_wanted() {
        shown_target(uri).into()
    } else {
        Arc::default()
    }
}

/// The target of a request line for logs.
pub(super) fn shown_target(uri: &http::Uri) -> String {
    let text = uri.to_string();
    match Url::parse(&text) {
        Ok(url) => redact::url(&url),
        // Origin-form: a query may carry a signature here, too.
        Err(_relative) => text.split('?').next().unwrap_or_default().to_owned(),
    }
}
