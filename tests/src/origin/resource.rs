//! What is served at a path, and the faults with which it is served.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

/// Holds something up until the test opens it; clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everything pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns when the gate is open.
    pub(super) async fn passed(&self) {
        // The sender lives in `self`: waiting cannot fail.
        self.0.subscribe().wait_for(|open| *open).await.ok();
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`, true.
    Length,
    /// Chunked coding.
    Chunked,
    /// The end of the connection.
    UntilClose,
    /// `Content-Length` with this number, whatever is sent; the connection is closed after the body.
    Claimed(u64),
}

/// One thing that goes wrong. Positions count the content bytes sent in that response.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing: for a place in the queue.
    None,
    /// No byte of the answer before the gate opens.
    HoldHead(Gate),
    /// No byte from this position on before the gate opens.
    HoldBody(u64, Gate),
    /// The connection ends in good order (FIN) at this position.
    Cut(u64),
    /// The connection is reset (RST) at this position.
    Reset(u64),
    /// Another status code, with a short body.
    Status(u16),
    /// The header section arrives byte by byte, one each 5 ms.
    DripHead,
}

/// What is served at one path.
#[derive(Debug, Clone)]
pub struct Resource {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    pub(super) framing: Framing,
    pub(super) ranges: bool,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) afterwards: Fault,
    pub(super) wanted: Option<String>,
}

impl Resource {
    /// A 200 with this body, ranges honoured, no freshness stated and no validator.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
            ranges: true,
            bytes_per_second: None,
            faults: VecDeque::new(),
            afterwards: Fault::None,
            wanted: None,
        }
    }

    /// Fresh for an hour, with a strong entity tag: what most tests want.
    pub fn cacheable(body: impl Into<Bytes>) -> Self {
        Self::new(body)
            .header("cache-control", "max-age=3600")
            .header("etag", "\"v1\"")
    }

    /// Another status code.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// One more header field line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another way to tell the end of the body.
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// Answers every range with the whole.
    #[must_use]
    pub fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// Sends no faster than this, on each connection.
    #[must_use]
    pub fn bytes_per_second(mut self, rate: u64) -> Self {
        self.bytes_per_second = Some(rate);
        self
    }

    /// A fault for the next request that has none yet; requests after the last fault are served well.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push_back(fault);
        self
    }

    /// A fault for every request after those of [`Resource::fault`].
    #[must_use]
    pub fn always(mut self, fault: Fault) -> Self {
        self.afterwards = fault;
        self
    }

    /// For requests with this `Authorization` alone; all others get 401.
    #[must_use]
    pub fn wants(mut self, authorization: &str) -> Self {
        self.wanted = Some(authorization.to_owned());
        self
    }

    /// The content.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn header_value(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}
