//! Makes the answer of a client out of a stored head and the place where its content is: whole, in part, or only the news
//! that the client has it already.

use std::collections::VecDeque;

use http::{HeaderMap, Method, Response, StatusCode, header};
use jiff::SignedDuration;
use url::Url;

use super::generation::nonce;
use crate::{
    conditional::{self, Length},
    deliver::{Payload, Span},
    fill::{End, Fill, Reader},
    origin::OriginBody,
    policy::{Request, Stored, headers as fields},
    range::{self, ByteRange, multipart},
    store::Content,
};

/// Where the content is.
pub(super) enum Source<'f> {
    /// In the store.
    Stored(Content),
    /// On its way into the store; the reader stands at its beginning.
    Filling(&'f Fill, Option<Reader>),
    /// On its way to this client alone.
    Passing(Box<OriginBody>),
}

impl Source<'_> {
    fn length(&self, head: &Stored) -> Length {
        let known = match self {
            Self::Stored(content) => Some(content.length()),
            Self::Filling(fill, _) => match fill.progress().end {
                Some(End::Complete { length, .. }) => Some(length),
                _ => fill.announced,
            },
            Self::Passing(_) => head
                .headers
                .get(header::CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok()),
        };
        known.map_or(Length::Growing, Length::Known)
    }
}

/// Among an answer's extensions: where redirects led to its content, see [`Stored::found_at`].
#[derive(Debug, Clone)]
pub(super) struct FoundAt(pub(super) Url);

/// The answer to `request` from `head` and its content; `age` where the answer comes from before this request.
pub(super) fn present(
    request: &Request<'_>,
    head: &Stored,
    source: Source<'_>,
    age: Option<SignedDuration>,
) -> Response<Payload> {
    let mut response = judged(request, head, source, age);
    if let Some(url) = &head.found_at {
        response.extensions_mut().insert(FoundAt(url.clone()));
    }
    response
}

fn judged(
    request: &Request<'_>,
    head: &Stored,
    source: Source<'_>,
    age: Option<SignedDuration>,
) -> Response<Payload> {
    let length = source.length(head);
    let outcome = conditional::evaluate(request, head, length);
    let mut headers = head.headers.clone();
    if let Some(age) = age {
        fields::set_age(&mut headers, age);
    }
    match outcome {
        conditional::Outcome::Whole | conditional::Outcome::RangeNeedsLength => {
            let payload = source.whole(length);
            set_length(&mut headers, length, request.method);
            answer(head.status, headers, payload)
        }
        conditional::Outcome::Partial(parts) => partial(headers, source, &parts, length),
        conditional::Outcome::PartialOfGrowing(_) => {
            // Where the end is not known, a 206 could promise bytes that never come: the whole is right, too.
            let payload = source.whole(length);
            answer(head.status, headers, payload)
        }
        conditional::Outcome::NotModified => {
            let headers = conditional::not_modified_headers(&headers);
            answer(StatusCode::NOT_MODIFIED, headers, Payload::Empty)
        }
        conditional::Outcome::PreconditionFailed => {
            let mut headers = conditional::not_modified_headers(&headers);
            headers.remove(header::CACHE_CONTROL);
            answer(StatusCode::PRECONDITION_FAILED, headers, Payload::Empty)
        }
        conditional::Outcome::RangeNotSatisfiable { length } => {
            let mut headers = conditional::not_modified_headers(&headers);
            headers.remove(header::CACHE_CONTROL);
            headers.insert(header::CONTENT_RANGE, range::unsatisfied_content_range(length));
            answer(StatusCode::RANGE_NOT_SATISFIABLE, headers, Payload::Empty)
        }
    }
}

impl Source<'_> {
    fn whole(self, length: Length) -> Payload {
        let left = match length {
            Length::Known(length) => Some(length),
            Length::Growing => None,
        };
        match self {
            Self::Stored(content) => content.span(0, content.length()),
            Self::Filling(_, Some(reader)) => Payload::Filling { reader, left },
            // The bytes are gone, though the caller just held them: a body that breaks at once.
            Self::Filling(fill, None) => {
                fill.reader(0)
                    .map_or(Payload::Parts(VecDeque::new()), |reader| Payload::Filling {
                        reader,
                        left,
                    })
            }
            Self::Passing(body) => Payload::Passing { body, skip: 0, left },
        }
    }

    /// One range; `None` where this source can only be read once from its beginning and was.
    fn part(&mut self, range: ByteRange) -> Option<Payload> {
        match self {
            Self::Stored(content) => Some(content.span(range.first(), range.last() + 1)),
            Self::Filling(fill, reader) => {
                let mut reader = reader
                    .take()
                    .filter(|reader| reader.position() <= range.first())
                    .or_else(|| fill.reader(0))?;
                reader.skip_to(range.first());
                Some(Payload::Filling {
                    reader,
                    left: Some(range.size()),
                })
            }
            Self::Passing(_) => None,
        }
    }
}

fn partial(
    mut headers: HeaderMap,
    mut source: Source<'_>,
    parts: &[ByteRange],
    length: Length,
) -> Response<Payload> {
    let complete = match length {
        Length::Known(length) => Some(length),
        Length::Growing => None,
    };
    headers.remove(header::CONTENT_LENGTH);
    if let [one] = parts {
        let payload = match source {
            Source::Passing(body) => Some(Payload::Passing {
                body,
                skip: one.first(),
                left: Some(one.size()),
            }),
            Source::Stored(_) | Source::Filling(..) => source.part(*one),
        };
        headers.insert(header::CONTENT_RANGE, one.content_range(complete));
        return answer(StatusCode::PARTIAL_CONTENT, headers, payload.unwrap_or_default());
    }
    // Several parts of a body that passes by once cannot be had in any order: the whole is right, too.
    let (Some(complete), false) = (complete, matches!(source, Source::Passing(_))) else {
        return answer(StatusCode::OK, headers, source.whole(length));
    };
    let layout = multipart::Layout::new(parts, complete, headers.get(header::CONTENT_TYPE), nonce());
    headers.insert(header::CONTENT_TYPE, layout.content_type());
    // "a server MUST NOT generate a Content-Range header field in the HTTP header section of a multiple part response"
    // (RFC 9110 §15.3.7.2); what is stored may have one without meaning.
    headers.remove(header::CONTENT_RANGE);
    let segments = layout.segments().iter().map(|segment| match segment {
        multipart::Segment::Text(text) => Some(Payload::bytes(text.clone())),
        multipart::Segment::Content(range) => source.part(*range),
    });
    let payload = segments
        .collect::<Option<VecDeque<_>>>()
        .map_or(Payload::Empty, Payload::Parts);
    answer(StatusCode::PARTIAL_CONTENT, headers, payload)
}

impl Content {
    /// Bytes `first..end`.
    fn span(&self, first: u64, end: u64) -> Payload {
        match self {
            Self::Memory(bytes) => {
                let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len());
                Payload::Memory(bytes.slice(at(first)..at(end)))
            }
            Self::File { file, in_use, .. } => Payload::Stored(Span {
                file: std::sync::Arc::clone(file),
                next: first,
                end,
                in_use: Some(std::sync::Arc::clone(in_use)),
            }),
        }
    }
}

/// A GET's length is set where the payload is known; a HEAD has to say it here.
fn set_length(headers: &mut HeaderMap, length: Length, method: &Method) {
    headers.remove(header::CONTENT_LENGTH);
    if let Length::Known(length) = length
        && method == Method::HEAD
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
}

fn answer(status: StatusCode, headers: HeaderMap, payload: Payload) -> Response<Payload> {
    let mut response = Response::new(payload);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
