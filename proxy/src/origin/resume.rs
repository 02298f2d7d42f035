//! The body of an origin response, which goes on where it broke off as long as that is safe.
//!
//! Safe means: the rest is asked for with `Range` and, where the origin showed a strong validator, `If-Range`; what comes back is a
//! 206 that begins exactly where the body stopped, of the same total length, under the same validator (RFC 9110 §13.1.5, §14.2,
//! §15.3.7). An upstream's next URL is asked in the same way when the first does not answer, and there the validator must be shown
//! again. Without a strong validator a body is taken up only where its digest is known, since then the bytes are verified in the end.
//!
//! A URL that is overloaded (429, 500, 502-504) is asked again after a pause, like one that does not answer.
//! An origin that knows no ranges and sends the whole again, under the same validator, is read over what is here already.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use kato_shared::{backoff::Backoff, chain::Chain, redact};
use tokio::time::{sleep, timeout};
use url::Url;

use super::{Origin, OriginError, OriginRequest, flow::Flow, retry::is_overloaded};
use crate::{
    policy::{headers::single_date, validation::is_weak},
    range::parse_content_range,
};

/// How often one body is taken up again. Each attempt costs a request; a link that breaks more often than this within one
/// file is better retried by the client.
const MAX_RESUMES: u32 = 5;

/// A `Last-Modified` this many seconds before `Date` is strong (RFC 9110 §8.8.2.2 speaks of one minute).
const STRONG_DATE_GAP: i64 = 60;

/// A response that is being read, and where it came from.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) flow: Flow,
    /// The place of the URL that was asked.
    pub(super) nth: usize,
    /// The URL that answered, where it is another.
    pub(super) redirected: Option<Url>,
}

/// The body of a response.
#[derive(Debug)]
pub struct OriginBody {
    origin: Origin,
    request: Arc<OriginRequest>,
    current: Current,
    /// What `If-Range` may carry.
    validator: Option<HeaderValue>,
    is_resumable: bool,
    total: Option<u64>,
    received: u64,
    /// What was read and is to be read again.
    unread: Option<Bytes>,
    /// Bytes to drop: they came before.
    skip: u64,
    resumes_left: u32,
    /// Whether a large body is read past hyper.
    is_bulk: bool,
}

impl OriginBody {
    pub(super) fn new(
        origin: Origin,
        request: Arc<OriginRequest>,
        (status, headers): (StatusCode, &HeaderMap),
        current: Current,
    ) -> Self {
        let is_whole = status == StatusCode::OK && request.method == Method::GET;
        let validator = is_whole.then(|| strong_validator(headers)).flatten();
        let mut body = Self {
            is_resumable: is_whole && (validator.is_some() || request.has_known_digest),
            origin,
            request,
            validator,
            total: current.flow.length(),
            current,
            received: 0,
            unread: None,
            skip: 0,
            resumes_left: MAX_RESUMES,
            is_bulk: false,
        };
        // A body without content has its end here.
        body.current.flow.give_back_at_end();
        body
    }

    /// For a reader that takes whatever comes as fast as it comes: large pieces, where the connection allows that.
    #[must_use]
    pub fn in_bulk(mut self) -> Self {
        // Nothing may have been read of what is taken over.
        self.is_bulk = self.unread.is_none() && self.current.flow.may_go_in_bulk();
        self
    }

    /// The first bytes, and whether they are all: at least `least` of them where there are more. They are read again by [`Self::next`].
    /// For bodies of which nothing was read.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn beginning(&mut self, least: usize) -> Result<(Bytes, bool), OriginError> {
        let mut read = BytesMut::new();
        let is_whole = loop {
            match self.next().await? {
                Some(piece) => read.extend_from_slice(&piece),
                None => break true,
            }
            if read.len() > least {
                break false;
            }
        };
        let beginning = read.freeze();
        self.unread = Some(beginning.clone()).filter(|bytes| !bytes.is_empty());
        Ok((beginning, is_whole))
    }

    /// Whether pieces may be large.
    pub const fn is_in_bulk(&self) -> bool {
        self.is_bulk
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`OriginError::Body`] or [`OriginError::Stalled`] when it broke off and cannot be taken up again,
    /// [`OriginError::NotResumable`] when what came then does not fit.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        if let Some(bytes) = self.unread.take() {
            return Ok(Some(bytes));
        }
        loop {
            match self.read().await {
                Ok(Some(mut bytes)) => {
                    self.origin.received(&self.request.upstream, bytes.len());
                    if self.skip > 0 {
                        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                        drop(bytes.split_to(known));
                        self.skip -= known as u64;
                    }
                    if !bytes.is_empty() {
                        self.received += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                }
                Ok(None) => return Ok(None),
                Err(error) => self.resume(error).await?,
            }
        }
    }

    /// Ends the connection: the bytes that it still has are asked for otherwise.
    pub fn hang_up(&mut self) {
        self.current.flow = Flow::Lost;
    }

    /// Goes on at byte `at`, whatever was read here, as after a break.
    ///
    /// # Errors
    /// [`OriginError::NotResumable`] when nothing that came fits.
    pub async fn go_on_at(&mut self, at: u64) -> Result<(), OriginError> {
        self.received = at;
        self.skip = 0;
        let broken = self.misfit("a range of it was not answered as asked");
        self.resume(broken).await
    }

    /// The next bytes of the current response.
    async fn read(&mut self) -> Result<Option<Bytes>, OriginError> {
        if self.is_bulk {
            self.current.flow.go_in_bulk().await;
        }
        let patience = self.origin.progress_timeout();
        let reading = self.current.flow.next(self.received);
        match timeout(patience, reading).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(source)) => Err(OriginError::Body {
                url: self.url(),
                source,
            }),
            Err(_elapsed) => Err(OriginError::Stalled {
                url: self.url(),
                waited: patience,
            }),
        }
    }

    /// Asks for the rest after `broken`: where it came from, then the upstream's other URLs, with a pause after each round.
    async fn resume(&mut self, broken: OriginError) -> Result<(), OriginError> {
        if !self.is_resumable {
            return Err(broken);
        }
        tracing::info!(error = %Chain(&broken), at = self.received, "taking up a download where it stopped");
        // The connection is of no more use.
        self.current.flow = Flow::Lost;
        let request = Arc::new(self.request_for_the_rest()?);
        let count = request.candidates.len();
        let mut left: Vec<usize> = (0..count).map(|nth| (self.current.nth + nth) % count).collect();
        let mut verdict = None;
        let mut rounds = 0;
        while !left.is_empty() && self.resumes_left > 0 {
            if rounds > 0 {
                sleep(Backoff::NETWORK.wait_jittered(rounds)).await;
            }
            rounds += 1;
            for nth in std::mem::take(&mut left) {
                if self.resumes_left == 0 {
                    break;
                }
                self.resumes_left -= 1;
                // The URL that answered may be a redirect with a signature that has run out: the one asked first is asked again.
                match self.origin.follow(&request, nth).await {
                    // It says nothing about the rest, and may a moment later.
                    Ok(response) if is_overloaded(response.status) => left.push(nth),
                    Ok(response) => {
                        match self.fits((response.status, &response.headers), &response.body, nth) {
                            Ok(skip) => {
                                self.skip = skip;
                                self.current = response.body.current;
                                return Ok(());
                            }
                            Err(reason) => verdict = Some(self.misfit(reason)),
                        }
                    }
                    Err(error) if error.is_retryable() => left.push(nth),
                    Err(_hopeless) => {}
                }
            }
        }
        Err(verdict.unwrap_or(broken))
    }

    fn request_for_the_rest(&self) -> Result<OriginRequest, OriginError> {
        let mut headers = self.request.headers.clone();
        let range = format!("bytes={}-", self.received);
        headers.insert(
            header::RANGE,
            range.parse().map_err(|_not_a_value| self.misfit("no range"))?,
        );
        if let Some(validator) = &self.validator {
            headers.insert(header::IF_RANGE, validator.clone());
        }
        Ok(OriginRequest {
            headers,
            interim: None,
            // Half a body is no stand-in for anything.
            has_stand_in: false,
            ..(*self.request).clone()
        })
    }

    /// Whether a response of the URL at place `nth` is the rest of what was received so far, or the whole again: then how many bytes
    /// of it are known.
    fn fits(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        body: &Self,
        nth: usize,
    ) -> Result<u64, &'static str> {
        let validator = strong_validator(headers);
        let is_same = self.validator.is_some() && validator == self.validator;
        match status {
            StatusCode::PARTIAL_CONTENT => {
                let range = headers
                    .get(header::CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok());
                let (first, _last, total) = range
                    .and_then(parse_content_range)
                    .ok_or("no usable Content-Range")?;
                if first != self.received {
                    return Err("the rest begins elsewhere");
                }
                if self.total.zip(total).is_some_and(|(before, now)| before != now) {
                    return Err("the total length changed");
                }
                let has_changed = validator.is_some() && !is_same;
                if has_changed && !self.request.has_known_digest {
                    return Err("the validator changed");
                }
                if nth != self.current.nth && !is_same && !self.request.has_known_digest {
                    return Err("another URL of the upstream shows no validator");
                }
                Ok(0)
            }
            StatusCode::OK if is_same || self.request.has_known_digest => {
                if self
                    .total
                    .zip(body.total)
                    .is_some_and(|(before, now)| before != now)
                {
                    return Err("the total length changed");
                }
                Ok(self.received)
            }
            _ => Err("the upstream did not answer with 206"),
        }
    }

    fn misfit(&self, reason: &'static str) -> OriginError {
        OriginError::NotResumable {
            url: self.url(),
            at: self.received,
            reason,
        }
    }

    /// The URL that answered, for people.
    fn url(&self) -> String {
        let asked = self.request.candidates.get(self.current.nth);
        let url = self.current.redirected.as_ref().or(asked);
        url.map(redact::url).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

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
