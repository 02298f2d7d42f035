//! What is asked of an origin, and what comes back.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use kato_shared::redact;
use url::Url;

use super::{OriginBody, OriginError, health::Standing};
use crate::{interim::Interim, policy::redirects::Hop};

/// What to ask.
#[derive(Debug, Clone)]
pub struct OriginRequest {
    /// The upstream's name.
    pub upstream: String,
    /// Its mirrors of the target, tried in this order. Never empty.
    pub candidates: Vec<Url>,
    /// The method.
    pub method: Method,
    /// The fields, without hop-by-hop ones.
    pub headers: HeaderMap,
    /// The content.
    pub body: Bytes,
    /// Where interim responses go.
    pub interim: Option<Interim>,
    /// Whether a stored response can stand in, so that waiting for a dead origin gains nothing.
    pub has_stand_in: bool,
    /// Whether the content's digest is known, so that bytes of whatever URL are verified in the end.
    pub has_known_digest: bool,
}

/// What came back.
#[derive(Debug)]
pub struct OriginResponse {
    /// The status code.
    pub status: StatusCode,
    /// The fields as received.
    pub headers: HeaderMap,
    /// The HTTP version of the answer.
    pub version: http::Version,
    /// When the request was sent, and when the head had arrived.
    pub request_time: Timestamp,
    /// See `request_time`.
    pub response_time: Timestamp,
    /// The redirects that were followed, in order; they have a say in what may be done with the response.
    pub hops: Vec<Hop>,
    /// Where they led.
    pub found_at: Option<Url>,
    /// The content.
    pub body: OriginBody,
}

impl OriginRequest {
    /// Why `url` is left out of a round, if it is.
    pub(super) fn not_worth_asking(&self, url: &Url, standing: Standing) -> Option<OriginError> {
        match standing {
            Standing::Down { .. } if self.has_stand_in => Some(OriginError::Down {
                url: redact::url(url),
            }),
            Standing::Busy(retry_after) if self.method.is_safe() => Some(OriginError::Busy {
                url: redact::url(url),
                retry_after,
            }),
            Standing::Up | Standing::Down { .. } | Standing::Busy(_) => None,
        }
    }

    /// The origin's own words, unless it asks for patience and a stored response can stand in.
    pub(super) fn passed_on(
        &self,
        response: OriginResponse,
        wait: Option<Duration>,
    ) -> Result<OriginResponse, OriginError> {
        match wait {
            Some(retry_after) if self.has_stand_in => Err(OriginError::Busy {
                url: self.candidates.first().map(redact::url).unwrap_or_default(),
                retry_after,
            }),
            _ => Ok(response),
        }
    }
}
