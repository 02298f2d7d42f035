//! Answers to requests that never became requests: written by hand, because there is nothing that hyper could answer.

use bytes::Bytes;
use http::StatusCode;
use kato_shared::api::Problem;

use super::client::HEAD_LIMIT;
use crate::{cache_status::CacheStatus, respond};

/// What of a head is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// The request line, which has not ended.
    Target,
    /// The fields after it.
    Fields,
}

/// The whole answer to a head that is too large; the connection ends after it.
pub(super) fn too_large(part: TooLarge) -> Bytes {
    let (kind, status) = match part {
        TooLarge::Target => ("target-too-long", StatusCode::URI_TOO_LONG),
        TooLarge::Fields => ("head-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
    };
    let problem = respond::describe(
        kind,
        "request head too large",
        status,
        format!("a request head may have {HEAD_LIMIT} bytes"),
        None,
    );
    answer(status, &problem, kind)
}

fn answer(status: StatusCode, problem: &Problem, detail: &str) -> Bytes {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut fields = http::HeaderMap::new();
    CacheStatus::generated().detail(detail).append_to(&mut fields);
    let cache_status = fields
        .get("cache-status")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         cache-status: {cache_status}\r\nconnection: close\r\n\r\n{body}",
        Problem::MEDIA_TYPE,
        body.len(),
    );
    text.into()
}
