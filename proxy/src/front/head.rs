//! Heads as bytes: which requests the front may take, and how an answer's head is written.
//!
//! What is not plain beyond doubt is left to hyper, which also refuses what has to be refused: there is one place that
//! judges ambiguous requests, and it is not here.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request, response};
use memchr::{memchr_iter, memmem};

/// More fields than any client of a package repository sends; with more, hyper decides.
const MAX_FIELDS: usize = 64;

/// The fields with which a request has content, asks for something beside an answer, or says how the connection goes on.
const NOT_PLAIN: [HeaderName; 7] = [
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::EXPECT,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    HeaderName::from_static("http2-settings"),
];

/// The length of the first head in `bytes`, with the empty line that ends it.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// The request whose head is `bytes`, all of them, if it is plain: GET or HEAD by HTTP/1.1, without content, on a connection that
/// stays open.
pub(super) fn read(bytes: &[u8]) -> Option<request::Parts> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    // Lines that end without a carriage return are read by some and not by others.
    if memchr_iter(b'\n', bytes).any(|at| at == 0 || bytes[at - 1] != b'\r') {
        return None;
    }
    if parsed.parse(bytes).ok()? != httparse::Status::Complete(bytes.len()) || parsed.version != Some(1) {
        return None;
    }
    let method = match parsed.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    // One copy, and every value refers to it.
    let whole = Bytes::copy_from_slice(bytes);
    let part = |text: &[u8]| {
        let at = text.as_ptr().addr() - bytes.as_ptr().addr();
        whole.slice(at..at + text.len())
    };
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = if field.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            HeaderValue::from_maybe_shared(part(field.value)).ok()?
        };
        headers.append(name, value);
    }
    if !is_plain(&headers) {
        return None;
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = Uri::from_maybe_shared(part(parsed.path?.as_bytes())).ok()?;
    parts.version = Version::HTTP_11;
    parts.headers = headers;
    Some(parts)
}

fn is_plain(headers: &HeaderMap) -> bool {
    let keeps_open = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
    headers.get_all(header::CONNECTION).iter().all(keeps_open)
        && !NOT_PLAIN.iter().any(|name| headers.contains_key(name))
}

/// The head of an answer, as it goes over the connection.
pub(super) fn write(head: &response::Parts) -> Bytes {
    let fields: usize = head
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let reason = head.status.canonical_reason().unwrap_or("<none>");
    let mut bytes = BytesMut::with_capacity(fields + reason.len() + 17);
    bytes.put(&b"HTTP/1.1 "[..]);
    bytes.put(head.status.as_str().as_bytes());
    bytes.put_u8(b' ');
    bytes.put(reason.as_bytes());
    bytes.put(&b"\r\n"[..]);
    for (name, value) in &head.headers {
        bytes.put(name.as_str().as_bytes());
        bytes.put(&b": "[..]);
        bytes.put(value.as_bytes());
        bytes.put(&b"\r\n"[..]);
    }
    bytes.put(&b"\r\n"[..]);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requests_are_read_with_all_their_fields() {
        let head =
            b"GET /o/a?b HTTP/1.1\r\nHost: h\r\nX: 1\r\nx:\r\nX:  2 \r\nConnection: Keep-Alive\r\n\r\n";
        let parts = read(head).unwrap();
        assert_eq!(
            (parts.method, parts.uri.to_string()),
            (Method::GET, "/o/a?b".into())
        );
        let lines: Vec<_> = parts.headers.get_all("x").iter().collect();
        assert_eq!(lines, ["1", "", "2"]);
        let absolute = read(b"HEAD http://h/a HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(absolute.uri.authority().unwrap(), "h");
        assert_eq!(absolute.method, Method::HEAD);
    }

    #[test]
    fn what_is_not_plain_is_left_to_hyper() {
        let with = |field: &str| format!("GET /o/a HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
        for field in [
            "Content-Length: 0",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "Connection: keep-alive, close",
            "Connection: keep-alive\r\nConnection: x",
            "Expect: 100-continue",
            "Upgrade: h2c",
            "TE: trailers",
            "Bad Name: 1",
            "Folded: 1\r\n 2",
            "X: a\0b",
            "X: 1\nY: 2",
        ] {
            let head = with(field);
            assert!(read(head.as_bytes()).is_none(), "{field}");
        }
        for head in [
            "GET /o/a HTTP/1.0\r\nHost: h\r\n\r\n",
            "POST /o/a HTTP/1.1\r\nHost: h\r\n\r\n",
            "get /o/a HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET  /o/a HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /o/a HTTP/1.1\r\nHost: h\n\nGET /secret HTTP/1.1\r\nHost: h\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert!(read(head.as_bytes()).is_none(), "{head}");
        }
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line() {
        assert_eq!(length(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Some(18));
        assert_eq!(length(b"GET / HTTP/1.1\r\n\r"), None);
    }

    #[test]
    fn an_answers_head_is_written_as_hyper_writes_it() {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.headers.append("x-a", HeaderValue::from_static("1"));
        parts.headers.append("x-a", HeaderValue::from_static("2"));
        assert_eq!(write(&parts), "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
    }
}
