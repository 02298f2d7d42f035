//! Answers that the pipeline does not make: to requests that never became requests, written by hand, because there is nothing that
//! hyper could answer; and to those that it has not answered when all ends.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header, response};
use kato_shared::api::Problem;
use tokio_util::sync::CancellationToken;

use super::client::HEAD_LIMIT;
use crate::{
    cache_status::CacheStatus,
    deliver::{Payload, ResponseBody},
    respond,
};

/// A restart takes less.
const RETRY_AFTER_SECONDS: u16 = 5;

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

/// The whole answer to a connection beyond `limits.connections_per_client`.
pub(super) fn crowded() -> Bytes {
    let (kind, status) = ("overloaded", StatusCode::SERVICE_UNAVAILABLE);
    let problem = respond::describe(
        kind,
        "too many connections",
        status,
        "this client has as many connections as one may have".to_owned(),
        Some("close some, or ask again in a moment".to_owned()),
    );
    answer(status, &problem, kind)
}

/// The answer to a request that has none when the grace of the shutdown is over: its head, and its body.
pub(crate) fn stopping() -> (response::Parts, Vec<u8>) {
    let problem = respond::describe(
        "stopping",
        "the server is stopping",
        StatusCode::SERVICE_UNAVAILABLE,
        "the upstream has not answered before the end of this server".to_owned(),
        Some("ask again: another server may take over, or this one start anew".to_owned()),
    );
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let (mut head, _same_body) = respond::problem(&problem).into_parts();
    CacheStatus::generated()
        .detail("stopping")
        .append_to(&mut head.headers);
    let fields = [
        (header::CONTENT_LENGTH, HeaderValue::from(body.len())),
        (header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS)),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ];
    head.headers.extend(fields);
    (head, body)
}

/// The whole answer to a request line whose target has a fragment, which is nothing that a client may send ([RFC 9112 §3.2]); the connection
/// ends after it.
///
/// [RFC 9112 §3.2]: https://www.rfc-editor.org/rfc/rfc9112#section-3.2
pub(super) fn fragment() -> Bytes {
    let (kind, status) = ("bad-target", StatusCode::BAD_REQUEST);
    let problem = respond::describe(
        kind,
        "target not usable",
        status,
        "the target of the request has a fragment (`#`)".to_owned(),
        Some("write `#` as %23 where it belongs to a name".to_owned()),
    );
    answer(status, &problem, kind)
}

/// What `answering` comes to, or a refusal where it has come to nothing when the grace of the shutdown is over.
pub(super) async fn or_refused(
    answering: impl Future<Output = Response<ResponseBody>>,
    cut: CancellationToken,
) -> Response<ResponseBody> {
    tokio::select! {
        biased;
        response = answering => response,
        () = cut.cancelled() => {
            let (head, body) = stopping();
            Response::from_parts(head, ResponseBody::new(Payload::bytes(body), None))
        }
    }
}

fn answer(status: StatusCode, problem: &Problem, detail: &str) -> Bytes {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let mut fields = http::HeaderMap::new();
    CacheStatus::generated().detail(detail).append_to(&mut fields);
    let cache_status = fields
        .get("cache-status")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let again = if status == StatusCode::SERVICE_UNAVAILABLE {
        "retry-after: 1\r\n"
    } else {
        ""
    };
    let text = format!(
        "HTTP/1.1 {status}\r\n{again}content-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         cache-status: {cache_status}\r\nconnection: close\r\n\r\n{body}",
        Problem::MEDIA_TYPE,
        body.len(),
    );
    text.into()
}
