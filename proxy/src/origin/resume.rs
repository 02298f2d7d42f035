//! The body of an origin response, which goes on where it broke off as long as that is safe.
//!
//! Safe means: the origin showed a strong validator, the rest is asked for with `Range` and `If-Range`, and what comes back
//! is a 206 that begins exactly where the body stopped, of the same total length, under the same validator
//! (RFC 9110 §13.1.5, §14.2, §15.3.7).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kato_shared::{backoff::Backoff, chain::Chain, redact};
use tokio::time::timeout;
use url::Url;

use super::{Origin, OriginError, OriginRequest};
use crate::policy::{headers::single_date, validation::is_weak};

/// How often one body is taken up again. Each attempt costs a request; a link that breaks more often than this within one
/// file is better retried by the client.
const MAX_RESUMES: u32 = 5;

/// A `Last-Modified` this many seconds before `Date` is strong (RFC 9110 §8.8.2.2 speaks of one minute).
const STRONG_DATE_GAP: i64 = 60;

/// A response that is being read, and where it came from.
#[derive(Debug)]
pub(super) struct Progressing {
    pub(super) response: reqwest::Response,
    pub(super) url: Url,
}

/// The body of a response.
#[derive(Debug)]
pub struct OriginBody {
    origin: Origin,
    request: OriginRequest,
    /// The URL asked first, before redirects.
    asked: Url,
    current: Progressing,
    /// What `If-Range` may carry; `None` when the body cannot be resumed.
    validator: Option<HeaderValue>,
    total: Option<u64>,
    received: u64,
    resumes_left: u32,
}

impl OriginBody {
    pub(super) fn new(origin: Origin, request: &OriginRequest, asked: Url, current: Progressing) -> Self {
        let is_whole = current.response.status() == StatusCode::OK && request.method == http::Method::GET;
        let validator = is_whole
            .then(|| strong_validator(current.response.headers()))
            .flatten();
        let total = current.response.content_length();
        Self {
            origin,
            request: request.clone(),
            asked,
            current,
            validator,
            total,
            received: 0,
            resumes_left: MAX_RESUMES,
        }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`OriginError::Body`] or [`OriginError::Stalled`] when it broke off and cannot be taken up again,
    /// [`OriginError::NotResumable`] when what came then does not fit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            match self.read().await {
                Ok(Some(bytes)) => {
                    self.received += bytes.len() as u64;
                    self.origin.received(&self.request.upstream, bytes.len());
                    return Ok(Some(bytes));
                }
                Ok(None) => return Ok(None),
                Err(error) => self.resume(error).await?,
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, OriginError> {
        let url = || redact::url(&self.current.url);
        match timeout(self.origin.progress_timeout(), self.current.response.chunk()).await {
            Ok(Ok(chunk)) => Ok(chunk),
            Ok(Err(source)) => Err(OriginError::Body {
                url: url(),
                source: source.without_url(),
            }),
            Err(_elapsed) => Err(OriginError::Stalled {
                url: url(),
                waited: self.origin.progress_timeout(),
            }),
        }
    }

    /// Asks for the rest after `broken`.
    async fn resume(&mut self, broken: OriginError) -> Result<(), OriginError> {
        let Some(validator) = self.validator.clone().filter(|_| self.resumes_left > 0) else {
            return Err(broken);
        };
        self.resumes_left -= 1;
        tracing::info!(error = %Chain(&broken), at = self.received, "taking up a download where it stopped");
        let mut headers = self.request.headers.clone();
        let range = format!("bytes={}-", self.received);
        headers.insert(
            header::RANGE,
            range.parse().map_err(|_not_a_value| self.misfit("no range"))?,
        );
        headers.insert(header::IF_RANGE, validator);
        let request = OriginRequest {
            headers,
            // Half a body is no stand-in for anything.
            has_stand_in: false,
            ..self.request.clone()
        };
        // The URL that answered may be a redirect with a signature that has run out: the one asked first is asked again.
        let response = match self.origin.follow(&request, &self.asked).await {
            Ok(response) => response.body.current,
            // Still down: the next attempt comes after a pause.
            Err(error) if error.is_retryable() && self.resumes_left > 0 => {
                let attempt = MAX_RESUMES - self.resumes_left;
                tokio::time::sleep(Backoff::NETWORK.wait_jittered(attempt)).await;
                return Box::pin(self.resume(error)).await;
            }
            Err(_still_down) => return Err(broken),
        };
        self.check(&response.response)?;
        self.current = response;
        Ok(())
    }

    /// Whether `response` is the rest of what was received so far.
    fn check(&self, response: &reqwest::Response) -> Result<(), OriginError> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.misfit("the upstream did not answer with 206"));
        }
        let range = response
            .headers()
            .get(header::CONTENT_RANGE)
            .and_then(|value| value.to_str().ok());
        let (first, total) = range
            .and_then(parse_content_range)
            .ok_or_else(|| self.misfit("no usable Content-Range"))?;
        if first != self.received {
            return Err(self.misfit("the rest begins elsewhere"));
        }
        if self.total.zip(total).is_some_and(|(before, now)| before != now) {
            return Err(self.misfit("the total length changed"));
        }
        if strong_validator(response.headers()).is_some_and(|now| Some(now) != self.validator) {
            return Err(self.misfit("the validator changed"));
        }
        Ok(())
    }

    fn misfit(&self, reason: &'static str) -> OriginError {
        OriginError::NotResumable {
            url: redact::url(&self.current.url),
            at: self.received,
            reason,
        }
    }
}

/// A validator that `If-Range` may carry: a strong entity tag, else a strong `Last-Modified`.
fn strong_validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if headers
        .get(header::ACCEPT_RANGES)
        .is_some_and(|value| value == "none")
    {
        return None;
    }
    if let Some(tag) = headers.get(header::ETAG) {
        return (!is_weak(tag.as_bytes())).then(|| tag.clone());
    }
    let modified = single_date(headers, &header::LAST_MODIFIED)?;
    let date = single_date(headers, &header::DATE)?;
    (date.as_second() - modified.as_second() >= STRONG_DATE_GAP)
        .then(|| headers.get(header::LAST_MODIFIED).cloned())
        .flatten()
}

/// First byte and total length of `bytes 5-9/10` (RFC 9110 §14.4).
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = if total.trim() == "*" {
        None
    } else {
        Some(total.trim().parse().ok()?)
    };
    (first <= last && total.is_none_or(|total: u64| last < total)).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_and_nonsense_is_not() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, None)));
        for text in [
            "bytes */10",
            "bytes 9-5/10",
            "bytes 5-10/10",
            "items 1-2/3",
            "bytes 5-9",
            "",
        ] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }

    #[test]
    fn only_strong_validators_carry_a_resumption() {
        let of = |fields: &[(&'static str, &'static str)]| {
            let headers = fields.iter().map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            });
            strong_validator(&headers.collect())
        };
        assert!(of(&[("etag", "\"a\"")]).is_some());
        assert!(of(&[("etag", "W/\"a\"")]).is_none());
        assert!(of(&[("etag", "\"a\""), ("accept-ranges", "none")]).is_none());
        let date = ("date", "Thu, 01 Jan 2026 00:10:00 GMT");
        assert!(of(&[("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"), date]).is_some());
        assert!(of(&[("last-modified", "Thu, 01 Jan 2026 00:09:30 GMT"), date]).is_none());
        assert!(of(&[]).is_none());
    }
}
