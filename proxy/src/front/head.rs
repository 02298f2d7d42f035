//! Heads as bytes: which requests the front may take, and how an answer's head is written.
//!
//! What is not plain beyond doubt is left to hyper, which also refuses what has to be refused: there is one place that
//! judges ambiguous requests, and it is not here.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, request, response};
use memchr::{memchr_iter, memmem};

use crate::cache_status::CACHE_STATUS;

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

/// What stands before the time left in `Cache-Status`.
const TTL: &[u8] = b"; ttl=";

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
    // hyper's place refuses it; `Uri` would drop it without a word.
    if parsed.path?.contains('#') {
        return None;
    }
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
pub(super) fn write(head: &response::Parts, into: &mut Vec<u8>) {
    into.clear();
    write_status(head, into);
    for (name, value) in &head.headers {
        write_field(name, value, into);
    }
    into.extend_from_slice(b"\r\n");
}

fn write_status(head: &response::Parts, into: &mut Vec<u8>) {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(head.status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(head.status.canonical_reason().unwrap_or("<none>").as_bytes());
    into.extend_from_slice(b"\r\n");
}

fn write_field(name: &HeaderName, value: &HeaderValue, into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value.as_bytes());
    into.extend_from_slice(b"\r\n");
}

/// The head of a hit with gaps for the two numbers that grow and shrink with time: `Age`, and the time left in the last line
/// of `Cache-Status`, which is ours.
#[derive(Debug)]
pub(super) struct Template {
    bytes: Box<[u8]>,
    age: Range<usize>,
    ttl: Range<usize>,
}

impl Template {
    /// The template of `head`; `None` where a number is not where it is expected.
    pub(super) fn of(head: &response::Parts) -> Option<Self> {
        let ours = head.headers.get_all(CACHE_STATUS).iter().next_back()?;
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ttl_at = memmem::find(ours.as_bytes(), TTL)? + TTL.len();
        let ttl_length = digits(&ours.as_bytes()[ttl_at..]);
        let (mut age, mut ttl) = (None, None);
        let mut bytes = Vec::new();
        write_status(head, &mut bytes);
        for (name, value) in &head.headers {
            let value_at = bytes.len() + name.as_str().len() + 2;
            if name == header::AGE {
                age = Some(value_at..value_at + digits(value.as_bytes()));
            } else if std::ptr::eq(value, ours) {
                ttl = Some(value_at + ttl_at..value_at + ttl_at + ttl_length);
            }
            write_field(name, value, &mut bytes);
        }
        bytes.extend_from_slice(b"\r\n");
        let template = Self {
            bytes: bytes.into(),
            age: age.filter(|age| !age.is_empty())?,
            ttl: ttl.filter(|ttl| !ttl.is_empty())?,
        };
        Some(template)
    }

    /// How long the head is, about.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the head with these seconds.
    pub(super) fn write(&self, age: u64, ttl: u64, into: &mut Vec<u8>) {
        let mut gaps = [(&self.age, age), (&self.ttl, ttl)];
        gaps.sort_unstable_by_key(|(gap, _)| gap.start);
        let mut from = 0;
        for (gap, seconds) in gaps {
            into.extend_from_slice(&self.bytes[from..gap.start]);
            write_number(seconds, into);
            from = gap.end;
        }
        into.extend_from_slice(&self.bytes[from..]);
    }
}

/// Decimal digits.
fn write_number(number: u64, into: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let (mut left, mut at) = (number, digits.len());
    loop {
        at -= 1;
        // A remainder of ten is a digit.
        digits[at] = b'0' + u8::try_from(left % 10).unwrap_or_default();
        left /= 10;
        if left == 0 {
            break;
        }
    }
    into.extend_from_slice(&digits[at..]);
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
            "GET /o/a#b HTTP/1.1\r\nHost: h\r\n\r\n",
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
        let mut written = Vec::new();
        write(&parts, &mut written);
        assert_eq!(written, b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\n\r\n");
    }

    #[test]
    fn a_template_writes_the_head_with_other_numbers_and_leaves_what_others_said() {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        for (name, value) in [
            ("cache-status", "theirs; hit; ttl=1"),
            ("x", "ttl=5"),
            ("age", "9"),
            ("cache-status", "kato; hit; ttl=51"),
        ] {
            parts.headers.append(name, HeaderValue::from_static(value));
        }
        let template = Template::of(&parts).unwrap();
        for (age, ttl) in [(0, 60), (9, 51), (10, 50), (1_234_567_890, 0)] {
            parts.headers.insert("age", age.into());
            parts
                .headers
                .insert("cache-status", HeaderValue::from_static("theirs; hit; ttl=1"));
            let ours = HeaderValue::try_from(format!("kato; hit; ttl={ttl}")).unwrap();
            parts.headers.append("cache-status", ours);
            let (mut again, mut anew) = (Vec::new(), Vec::new());
            template.write(age, ttl, &mut again);
            write(&parts, &mut anew);
            assert_eq!(String::from_utf8(again), String::from_utf8(anew));
        }
        parts.headers.remove("age");
        assert!(Template::of(&parts).is_none());
    }
}
