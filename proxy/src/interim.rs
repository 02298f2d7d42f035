//! Interim responses (1xx) on their way from an origin to the one client whose request is being answered.
//!
//! "A proxy MUST forward 1xx responses unless the proxy itself requested the generation of the 1xx response"
//! ([RFC 9110 §15.2]). hyper's server cannot send them, so they are written beside it: [`Interim`] leaves one with the connection,
//! and the connection writes it at the one place where it cannot cut anything in two, between the end of the answer before
//! and the head of this one.
//!
//! Invariants:
//! * Bytes are taken only while a request is open, and only after the connection was flushed since that request began:
//!   then hyper has nothing under way, and whatever it writes next is the final response to this request.
//! * Once the final response is handed to hyper the request is closed; what comes later, from a download that goes on without
//!   the client, is dropped.
//! * Nothing is stored: an interim response is part of one exchange.
//!
//! Deliberately absent: 100 of an origin (hyper itself says it when a request's content is read; ours asks whether a client that
//! says nothing more is there, see `presence`) and 101 (we ask for no upgrade).
//!
//! [RFC 9110 §15.2]: https://www.rfc-editor.org/rfc/rfc9110#section-15.2

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use http::{HeaderMap, StatusCode, Version, header};

use crate::{
    policy::headers::{append_via, strip_hop_by_hop},
    presence::CONTINUE,
};

/// More than this for one request is dropped: an origin must not fill our memory with what it says beforehand.
const MAX_WAITING: usize = 64 << 10;

/// The place of a connection where interim responses wait to be written.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The request that is being answered, by its number on this connection.
    open: Option<u64>,
    requests: u64,
    /// Flushed since that request began, and nothing written since.
    is_between: bool,
    bytes: Vec<u8>,
    /// The connection's task.
    connection: Option<Waker>,
}

impl Waiting {
    /// A request of `version` is going to be answered; `None` for a client that knows no interim responses.
    ///
    /// "a server MUST NOT send a 1xx response to an HTTP/1.0 client" (RFC 9110 §15.2).
    pub fn begin(&self, version: Version) -> Option<Interim> {
        let mut state = self.lock();
        state.requests += 1;
        state.is_between = false;
        state.bytes.clear();
        state.open = (version == Version::HTTP_11).then_some(state.requests);
        Some(Interim {
            request: state.open?,
            waiting: self.clone(),
            pseudonym: None,
        })
    }

    /// The connection has written all it was given; its task is woken by `connection` when an interim response comes.
    pub(crate) fn flushed(&self, connection: &Waker) {
        let mut state = self.lock();
        if state.open.is_some() {
            state.is_between = true;
            state.connection = Some(connection.clone());
        }
    }

    /// Says something that needs no answer, where nothing else waits to be said: a client that is gone is found out by it.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        if state.open.is_some() && state.is_between && state.bytes.is_empty() {
            state.bytes.extend_from_slice(CONTINUE);
        }
    }

    /// hyper writes: what waits has to be written first.
    pub(crate) fn writes(&self) {
        self.lock().is_between = false;
    }

    /// Lets `write` take from the front of what waits, until nothing is left or it takes nothing.
    pub(crate) fn drain<E>(&self, mut write: impl FnMut(&[u8]) -> Result<usize, E>) -> Result<(), E> {
        let mut state = self.lock();
        while !state.bytes.is_empty() {
            let written = write(&state.bytes)?;
            state.bytes.drain(..written);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the client of one request hears of interim responses, as long as it has no final one. Clones are the same place.
#[derive(Debug, Clone)]
pub struct Interim {
    request: u64,
    waiting: Waiting,
    /// Ours, for `Via`.
    pseudonym: Option<Arc<str>>,
}

impl Interim {
    /// What is sent carries `Via` with `pseudonym`.
    #[must_use]
    pub fn by_way_of(self, pseudonym: &str) -> Self {
        Self {
            pseudonym: Some(pseudonym.into()),
            ..self
        }
    }

    /// Passes one on. Dropped where it is not one to pass on, or where its time is over.
    pub fn send(&self, status: StatusCode, headers: &HeaderMap) {
        if !status.is_informational()
            || matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS)
        {
            return;
        }
        let head = head(status, headers, self.pseudonym.as_deref());
        let mut state = self.waiting.lock();
        let is_in_time = state.open == Some(self.request) && state.is_between;
        if !is_in_time || state.bytes.len() + head.len() > MAX_WAITING {
            tracing::debug!(
                status = status.as_u16(),
                is_in_time,
                "an interim response is not passed on"
            );
            return;
        }
        state.bytes.extend(head);
        if let Some(connection) = state.connection.take() {
            connection.wake();
        }
    }

    /// The final response is there.
    pub fn close(&self) {
        let mut state = self.waiting.lock();
        if state.open == Some(self.request) {
            state.open = None;
        }
    }
}

/// The message as it goes over an HTTP/1.1 connection.
fn head(status: StatusCode, headers: &HeaderMap, pseudonym: Option<&str>) -> Vec<u8> {
    let mut headers = headers.clone();
    strip_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(pseudonym) = pseudonym {
        append_via(&mut headers, Version::HTTP_11, pseudonym);
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        head.extend(name.as_str().bytes());
        head.extend(b": ");
        head.extend(value.as_bytes());
        head.extend(b"\r\n");
    }
    head.extend(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_support::headers;

    fn written(waiting: &Waiting) -> String {
        let mut written = Vec::new();
        let taken: Result<(), ()> = waiting.drain(|bytes| {
            written.push(bytes[0]);
            Ok(1)
        });
        taken.unwrap();
        String::from_utf8(written).unwrap()
    }

    fn hints() -> HeaderMap {
        headers(&[("link", "</a.css>; rel=preload"), ("connection", "x"), ("x", "1")])
    }

    #[test]
    fn rfc9110_s15_2_an_interim_response_is_passed_on_between_two_answers() {
        let waiting = Waiting::default();
        let interim = waiting.begin(Version::HTTP_11).unwrap().by_way_of("kato-1");
        waiting.flushed(Waker::noop());
        interim.send(StatusCode::EARLY_HINTS, &hints());
        interim.send(StatusCode::PROCESSING, &HeaderMap::new());
        assert_eq!(
            written(&waiting),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nvia: 1.1 kato-1\r\n\r\n\
             HTTP/1.1 102 Processing\r\nvia: 1.1 kato-1\r\n\r\n"
        );
    }

    #[test]
    fn rfc9110_s15_2_http_1_0_clients_get_none() {
        assert!(Waiting::default().begin(Version::HTTP_10).is_none());
    }

    #[test]
    fn nothing_is_written_into_another_message() {
        let waiting = Waiting::default();
        let first = waiting.begin(Version::HTTP_11).unwrap();
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(written(&waiting), "", "the answer before may not be flushed yet");
        waiting.flushed(Waker::noop());
        waiting.writes();
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(written(&waiting), "", "the final response is being written");
        first.close();
        waiting.flushed(Waker::noop());
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(written(&waiting), "", "it is over");
        let _second = waiting.begin(Version::HTTP_11).unwrap();
        waiting.flushed(Waker::noop());
        first.send(StatusCode::EARLY_HINTS, &hints());
        assert_eq!(written(&waiting), "", "another request is being answered");
    }

    #[test]
    fn what_the_proxy_itself_asks_for_and_what_is_final_is_not_passed_on() {
        let waiting = Waiting::default();
        let interim = waiting.begin(Version::HTTP_11).unwrap();
        waiting.flushed(Waker::noop());
        for status in [
            StatusCode::CONTINUE,
            StatusCode::SWITCHING_PROTOCOLS,
            StatusCode::OK,
        ] {
            interim.send(status, &hints());
        }
        let flood = "x".repeat(MAX_WAITING);
        let mut large = hints();
        large.insert("x-large", flood.parse().unwrap());
        interim.send(StatusCode::EARLY_HINTS, &large);
        assert_eq!(written(&waiting), "");
    }
}
