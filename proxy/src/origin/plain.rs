//! An exchange over plain TCP without hyper, for what nearly every exchange of a cache is: a GET without content, and an answer with
//! its length.
//!
//! ```text
//! ask       the request is written; the answer's head is read, and what came with it
//! plain     a final status, `Content-Length` (or a status without content), no transfer coding
//! small     all of it is here: the connection is free before anybody has looked at the answer
//! large     the rest comes by way of `bulk`
//! ```
//!
//! Whatever else comes is hyper's: it gets the connection with the bytes read so far, as if it had asked itself ([`Rewound`]). So there
//! is one implementation of everything difficult, interim responses, chunks, broken heads and connections that end among it.
//!
//! Why: hyper drives a connection by a task of its own. A small cold object then costs two hops between tasks, their channels, and a
//! buffer that is given away with the head and the body; here it costs a write and a read.
//!
//! Invariant: never more than the announced bytes are handed out, and a connection that has said more is not used again.

use bytes::{Buf, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header,
    response::{self, Response},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::rewound::Rewound;

/// Room for a head and a small body. A head that has not ended after this many bytes is hyper's.
const ROOM: usize = 16 << 10;

/// More fields than servers send; with more, hyper decides.
const MAX_FIELDS: usize = 64;

/// A connection on which nothing is under way.
#[derive(Debug)]
pub(super) struct Plain {
    stream: TcpStream,
    /// Empty; its memory is used again.
    buffer: BytesMut,
}

/// What an exchange came to.
pub(super) enum Heard {
    /// A plain answer.
    Answer(Box<Answer>),
    /// Something that is hyper's to judge, with the connection.
    Difficult(Rewound),
}

/// A plain answer.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    /// What has come of the content, of its own size.
    pub(super) come: Bytes,
    /// The length of all of it.
    pub(super) length: u64,
    pub(super) connection: Plain,
    /// Whether the connection may be used again once all has come.
    pub(super) may_be_kept: bool,
}

impl Plain {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// Whether it can carry a request: a server that has closed it, or says something unasked, is not listened to.
    pub(super) fn is_quiet(&self) -> bool {
        // The reactor knows; the kernel is asked only where it is not sure.
        let said = self.stream.try_read(&mut [0]);
        said.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends the `request`, a GET without content, and waits for the head of its answer.
    ///
    /// # Cancel safety
    /// Dropped early, the connection is lost.
    pub(super) async fn ask(mut self, request: &[u8]) -> Heard {
        let mut unsent = request;
        while !unsent.is_empty() {
            match self.stream.write(unsent).await {
                Ok(sent @ 1..) => unsent.advance(sent),
                // It meets the same, and says what it means.
                Ok(0) | Err(_) => return self.difficult(unsent.len() < request.len()),
            }
        }
        self.buffer.reserve(ROOM);
        while self.buffer.len() < ROOM {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
            match read(&self.buffer) {
                Head::Partial => {}
                Head::Difficult => break,
                Head::Plain(head, content, length) => return self.answer(*head, content, length),
            }
        }
        self.difficult(true)
    }

    fn difficult(self, is_asked: bool) -> Heard {
        Heard::Difficult(Rewound::new(self.stream, self.buffer.freeze(), is_asked))
    }

    fn answer(mut self, head: response::Parts, content: usize, length: u64) -> Heard {
        let here = &self.buffer[content..];
        let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(here.len());
        let come = Bytes::copy_from_slice(&here[..wanted]);
        // More than was announced is no response to anything that was asked.
        let may_be_kept = wanted == here.len() && is_persistent(head.version, &head.headers);
        self.buffer.clear();
        Heard::Answer(Box::new(Answer {
            head,
            come,
            length,
            connection: self,
            may_be_kept,
        }))
    }
}

/// Whether the connection stays open after this response, as far as the response says (RFC 9112 §9.3).
pub(super) fn is_persistent(version: Version, headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(header::CONNECTION).iter();
    version == Version::HTTP_11 && options.all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

/// A head, as far as it came.
enum Head {
    Partial,
    Difficult,
    /// Plain, with where the content begins, and its length.
    Plain(Box<response::Parts>, usize, u64),
}

fn read(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let content = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(content)) => content,
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(_hyper_says_why) => return Head::Difficult,
    };
    plain(&parsed, &bytes[..content]).map_or(Head::Difficult, |(head, length)| {
        Head::Plain(Box::new(head), content, length)
    })
}

/// The head `whole`, which was `parsed`, and the length of the content, if it is plain.
fn plain(parsed: &httparse::Response<'_, '_>, whole: &[u8]) -> Option<(response::Parts, u64)> {
    if parsed.version != Some(1) {
        return None;
    }
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    // Interim responses are passed on; a 205 with content is a case of its own.
    if status.is_informational() || status == StatusCode::RESET_CONTENT {
        return None;
    }
    // One copy, and every value refers to it: what is stored must not keep the buffer.
    let own = Bytes::copy_from_slice(whole);
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = if field.value.is_empty() {
            HeaderValue::from_static("")
        } else {
            let at = field.value.as_ptr().addr() - whole.as_ptr().addr();
            HeaderValue::from_maybe_shared(own.slice(at..at + field.value.len())).ok()?
        };
        headers.append(name, value);
    }
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = if has_content { length(&headers)? } else { 0 };
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    head.version = Version::HTTP_11;
    head.headers = headers;
    Some((head, length))
}

/// `Content-Length`, where it stands once and is nothing but a number.
fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let (only, None) = (lines.next()?, lines.next()) else {
        return None;
    };
    let digits = only.to_str().ok()?;
    (digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_plain(head: &str) -> Option<(u16, u64)> {
        match read(head.as_bytes()) {
            Head::Plain(head, _, length) => Some((head.status.as_u16(), length)),
            Head::Partial | Head::Difficult => None,
        }
    }

    #[test]
    fn an_answer_with_one_length_is_plain_and_keeps_all_its_fields() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: 1\r\nx:\r\nX:  2 \r\n\r\nabcd";
        let Head::Plain(head, content, length) = read(bytes) else {
            panic!("it is plain");
        };
        assert_eq!((&bytes[content..], length), (&b"abcd"[..], 3));
        let lines: Vec<_> = head.headers.get_all("x").iter().collect();
        assert_eq!(lines, ["1", "", "2"]);
        assert!(is_persistent(head.version, &head.headers));
        assert_eq!(
            is_plain("HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n"),
            Some((404, 0))
        );
        assert_eq!(
            is_plain("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
            Some((304, 0))
        );
        assert_eq!(is_plain("HTTP/1.1 204 No Content\r\n\r\n"), Some((204, 0)));
    }

    #[test]
    fn what_is_not_plain_is_left_to_hyper() {
        for head in [
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nBad Name: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: 1\r\n folded\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 3\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert_eq!(is_plain(head), None, "{head}");
        }
        let closes = is_plain("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n");
        assert_eq!(closes, Some((200, 3)));
        assert!(matches!(read(b"HTTP/1.1 200 OK\r\nContent-"), Head::Partial));
    }
}
