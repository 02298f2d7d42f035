//! One request's answer: the file, a range of it, "not modified", or what the fault of the moment makes of it.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Component, Path},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};

use super::{Fault, Shared};

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

pub(super) fn answer(shared: &Shared, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let fault = note(shared, &path);
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    if let Some(Fault::Status(code)) = fault {
        return empty(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let Some((bytes, etag)) = read(&shared.folder, &path) else {
        return empty(StatusCode::NOT_FOUND);
    };
    let mut headers = HeaderMap::new();
    let is_plain = fault == Some(Fault::Plain);
    if !is_plain {
        insert(&mut headers, header::ETAG, &etag);
        insert(&mut headers, header::ACCEPT_RANGES, "bytes");
    }
    insert(&mut headers, header::CONTENT_TYPE, "application/octet-stream");
    if value(request, header::IF_NONE_MATCH).is_some_and(|known| known == "*" || known.contains(&etag)) {
        return respond(StatusCode::NOT_MODIFIED, headers, full(Bytes::new()));
    }
    let size = bytes.len() as u64;
    let range = range(request, &etag, size).filter(|_| !is_plain && fault != Some(Fault::IgnoreRange));
    let (status, start, end) = match range {
        Some(Ok((start, end))) => (StatusCode::PARTIAL_CONTENT, start, end),
        Some(Err(())) => {
            insert(&mut headers, header::CONTENT_RANGE, &format!("bytes */{size}"));
            return respond(StatusCode::RANGE_NOT_SATISFIABLE, headers, full(Bytes::new()));
        }
        None => (StatusCode::OK, 0, size),
    };
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {start}-{}/{size}", end.saturating_sub(1));
        insert(&mut headers, header::CONTENT_RANGE, &text);
    }
    let part = slice(&bytes, start, end);
    if request.method() == Method::HEAD {
        insert(&mut headers, header::CONTENT_LENGTH, &part.len().to_string());
        return respond(status, headers, full(Bytes::new()));
    }
    sent(shared, &path, status, part.len() as u64);
    respond_with(status, headers, part, fault)
}

/// Counts the request and gives the fault that applies to it.
fn note(shared: &Shared, path: &str) -> Option<Fault> {
    let mut state = shared.state();
    *state.requests.entry(path.to_owned()).or_default() += 1;
    let (_, fault, times) = state
        .faults
        .iter_mut()
        .find(|(suffix, _, times)| path.ends_with(suffix.as_str()) && *times != Some(0))?;
    *times = times.map(|left| left - 1);
    Some(*fault)
}

fn sent(shared: &Shared, path: &str, status: StatusCode, bytes: u64) {
    let mut state = shared.state();
    *state.bodies.entry(path.to_owned()).or_default() += 1;
    if status == StatusCode::PARTIAL_CONTENT {
        *state.ranges.entry(path.to_owned()).or_default() += 1;
    }
    state.bytes += bytes;
}

fn respond_with(
    status: StatusCode,
    mut headers: HeaderMap,
    part: Bytes,
    fault: Option<Fault>,
) -> Response<Body> {
    let length = part.len() as u64;
    match fault {
        Some(Fault::Alter) => {
            let mut altered = part.to_vec();
            if let Some(first) = altered.first_mut() {
                *first ^= 1;
            }
            respond(status, headers, full(altered.into()))
        }
        Some(Fault::Truncate(after)) => {
            insert(&mut headers, header::CONTENT_LENGTH, &length.to_string());
            let pieces = vec![
                Ok(Frame::data(slice(&part, 0, after))),
                Err(std::io::Error::other("cut off by the test")),
            ];
            let stream = futures_util::stream::iter(pieces);
            respond(status, headers, StreamBody::new(stream).boxed())
        }
        Some(Fault::Stall(after)) => {
            insert(&mut headers, header::CONTENT_LENGTH, &length.to_string());
            let first = slice(&part, 0, after);
            let stream = futures_util::stream::unfold(Some(first), |first| async move {
                match first {
                    Some(first) => Some((Ok(Frame::data(first)), None)),
                    None => std::future::pending().await,
                }
            });
            respond(status, headers, into_body(stream))
        }
        Some(Fault::Endless) => {
            let stream = futures_util::stream::unfold(Some(part), |next| async move {
                let piece = next.unwrap_or_else(|| Bytes::from_static(&ZEROS));
                Some((Ok(Frame::data(piece)), None))
            });
            respond(status, headers, into_body(stream))
        }
        Some(Fault::Status(_) | Fault::IgnoreRange | Fault::Plain) | None => {
            respond(status, headers, full(part))
        }
    }
}

static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];

/// A stream of any kind as a body; `boxed` needs `Sync`, which a channel has.
fn into_body(
    stream: impl futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send + Sync + 'static,
) -> Body {
    StreamBody::new(stream).boxed()
}

/// `None` for no (usable) range, `Err` for one that cannot be satisfied; the end is exclusive.
fn range(request: &Request<Incoming>, etag: &str, size: u64) -> Option<Result<(u64, u64), ()>> {
    if value(request, header::IF_RANGE).is_some_and(|validator| validator != etag) {
        return None;
    }
    let (first, last) = value(request, header::RANGE)?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    let (start, end) = match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), last) => (first, last.map_or(size, |last| (last + 1).min(size))),
        (None, Some(suffix)) => (size.saturating_sub(suffix), size),
        (None, None) => return None,
    };
    Some(if start < end { Ok((start, end)) } else { Err(()) })
}

fn value(request: &Request<Incoming>, name: header::HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

/// A file below `folder` with its entity tag (of time and size, as web servers do); a path out of it is not there.
fn read(folder: &Path, path: &str) -> Option<(Bytes, String)> {
    let relative = Path::new(path.strip_prefix('/')?);
    let is_plain = relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let path = is_plain.then(|| folder.join(relative))?;
    let facts = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
    let etag = format!(
        "\"{:x}-{:x}-{:x}\"",
        facts.mtime(),
        facts.mtime_nsec(),
        facts.len()
    );
    Some((std::fs::read(path).ok()?.into(), etag))
}

fn slice(bytes: &Bytes, start: u64, end: u64) -> Bytes {
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(index(start)..index(end))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

fn empty(status: StatusCode) -> Response<Body> {
    respond(status, HeaderMap::new(), full(Bytes::new()))
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
